"""Documents that say the same: equal ones, and those that share a long run of words.

1. Two documents are equal where they are after `normalise`: case, white space and a comment at the begin (a licence) do
   not count. Equal documents are never in two splits (`rewrite.text.corpus.split_documents`).
2. A run of `RUN` words that stands in a calibrate document and in a train document, or in a test document and in one of
   the others, was seen before. `find_shared` says which documents have one and what share of their words lies in such
   runs. It is exact but for collisions of 64-bit hashes. A character of a script without spaces is a word.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, UInt64

RUN = 50
"""Words in a run that counts as seen before [words]."""
COMMENT = re.compile(r"\A(?:\s*(?:#|//|/\*|\*|<!--|--|%|;)[^\n]*(?:\n|\Z))+")
"""Lines at the begin that are comments in some language."""
UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")


def normalise(text: str) -> str:
    """The text without what makes no difference: case, white space, a comment at its begin."""
    without = COMMENT.sub("", text) or text
    return " ".join(without.casefold().split())


def find_equal(texts: Iterable[str]) -> list[int]:
    """For each text the number of the first that is equal to it."""
    first: dict[bytes, int] = {}
    return [
        first.setdefault(hashlib.sha256(normalise(text).encode("utf-8", errors="surrogatepass")).digest(), number)
        for number, text in enumerate(texts)
    ]


@dataclass
class Runs:
    """Hashes of every run of words; one word has the same number in all texts."""

    numbers: dict[str, int] = field(default_factory=dict)

    def hash(self, text: str) -> UInt64[np.ndarray, " run"]:
        """A hash of each run of a text, in order; the run at i holds the words i to i + RUN."""
        words = [self.numbers.setdefault(word, len(self.numbers)) for word in WORD.findall(text.casefold())]
        mixed = _mix(np.array(words, dtype=np.uint64))
        runs = np.zeros(max(len(words) - RUN + 1, 0), dtype=np.uint64)
        for place in range(RUN):
            runs = runs * np.uint64(0x9E3779B97F4A7C15) + mixed[place : place + len(runs)]
        return runs


def _mix(numbers: UInt64[np.ndarray, " word"]) -> UInt64[np.ndarray, " word"]:
    """splitmix64's finaliser: neighbouring numbers become unrelated ones."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(1)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = numbers ^ (numbers >> np.uint64(31))
    return mixed


def cover(seen: Bool[np.ndarray, " run"]) -> int:
    """How many words lie in at least one of the runs that are marked."""
    if not seen.any():
        return 0
    edges = np.zeros(len(seen) + RUN, dtype=np.int64)
    np.add.at(edges, np.flatnonzero(seen), 1)
    np.add.at(edges, np.flatnonzero(seen) + RUN, -1)
    return int((np.cumsum(edges) > 0).sum())


def _stands_in(runs: UInt64[np.ndarray, " run"], known: UInt64[np.ndarray, " known"]) -> Bool[np.ndarray, " run"]:
    """Which runs are among the known, which are sorted: by bisection, for the known are many."""
    if not len(known):
        return np.zeros(len(runs), dtype=bool)
    place = np.minimum(np.searchsorted(known, runs), len(known) - 1)
    found: np.ndarray = known[place] == runs
    return found


@dataclass(frozen=True)
class Shared:
    """How much of a split stands in earlier splits too."""

    words: int
    """Words of the split."""
    seen: int
    """Words of it in runs that were seen before."""
    documents: dict[int, float]
    """The share of its words in such runs, of each document that has one."""


def find_shared(texts: Sequence[str], splits: Mapping[str, Sequence[int]]) -> dict[str, Shared]:
    """What each split but the first shares with those before it; a split is the numbers of its texts."""
    runs, before = Runs(), np.empty(0, dtype=np.uint64)
    found: dict[str, Shared] = {}
    for number, (split, members) in enumerate(splits.items()):
        hashed = {i: runs.hash(texts[i]) for i in members}
        if number:
            seen = {i: cover(_stands_in(own, before)) for i, own in hashed.items()}
            size = {i: len(own) + RUN - 1 if len(own) else len(WORD.findall(texts[i])) for i, own in hashed.items()}
            shares = {i: seen[i] / size[i] for i in members if seen[i]}
            found[split] = Shared(sum(size.values()), sum(seen.values()), shares)
        before = np.unique(np.concatenate([before, *hashed.values()]))
    return found
