"""Documents that say the same: copies, and those that share a long run of words.

1. Two documents are equal where they are after `normalise`: case, white space and a licence at the begin do not count.
   Of those that are equal one is kept (`rewrite.text.corpus.split_documents`).
2. A run of `RUN` words that stands in a calibrate document and in a train document, or in a test document and in one of
   the others, was seen before. `find_shared` says which documents have one and what share of their words lies in such
   runs. It is exact but for collisions of 64-bit hashes. A character of a script without spaces is a word. What is held
   are the hashes of calibrate and test documents; train documents pass by one at a time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt64

RUN = 50
"""Words in a run that counts as seen before [words]."""
COMMENT = re.compile(r"\A(?:\s*(?:#|//|/\*|\*|<!--|--|%|;)[^\n]*(?:\n|\Z))+")
"""Lines at the begin that are comments in some language."""
LICENCE = re.compile("copyright|licen[cs]e|spdx", re.IGNORECASE)
UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
BASE = 0x9E3779B97F4A7C15
INVERSE = pow(BASE, -1, 1 << 64)
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")


def normalise(text: str) -> str:
    """The text without what makes no difference: case, white space, a licence at its begin."""
    head = COMMENT.match(text)
    without = text[head.end() :] if head and LICENCE.search(head[0]) else text
    return " ".join((without if without.strip() else text).casefold().split())


def find_equal(texts: Iterable[str]) -> list[int]:
    """For each text the number of the first that is equal to it."""
    first: dict[bytes, int] = {}
    return [
        first.setdefault(hashlib.sha256(normalise(text).encode("utf-8", errors="surrogatepass")).digest(), number)
        for number, text in enumerate(texts)
    ]


def hash_runs(text: str) -> UInt64[np.ndarray, " run"]:
    """A hash of each run of a text, in order; the run at i holds the words i to i + RUN.

    It is Σ h(word i + k) · base⁻ᵏ modulo 2⁶⁴ with Python's own hash h, which is another in the next process. As base is
    odd it has an inverse, so that runs are differences of one running sum.
    """
    words = WORD.findall(text.casefold())
    hashed = np.fromiter(map(hash, words), dtype=np.int64, count=len(words)).view(np.uint64)
    sums = np.cumsum(hashed * _powers(INVERSE, len(words)), dtype=np.uint64)
    runs = sums[RUN - 1 :] - np.append(np.zeros(1, dtype=np.uint64), sums)[: max(len(words) - RUN + 1, 0)]
    hashes: np.ndarray = runs * _powers(BASE, len(runs))
    return hashes


def _powers(base: int, count: int) -> UInt64[np.ndarray, " power"]:
    """The first powers of a number, from 1 on, modulo 2⁶⁴."""
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)


def cover(seen: Bool[np.ndarray, " run"]) -> int:
    """How many words lie in at least one of the runs that are marked."""
    if not seen.any():
        return 0
    edges = np.zeros(len(seen) + RUN, dtype=np.int64)
    np.add.at(edges, np.flatnonzero(seen), 1)
    np.add.at(edges, np.flatnonzero(seen) + RUN, -1)
    return int((np.cumsum(edges) > 0).sum())


class Seen:
    """The runs of a split's documents, and which of them stand elsewhere."""

    def __init__(self, hashed: Iterable[UInt64[np.ndarray, " run"]]) -> None:
        self.runs = np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *hashed]))
        self.seen = np.zeros(len(self.runs), dtype=bool)

    def _places(self, runs: UInt64[np.ndarray, " run"]) -> Int[np.ndarray, " run"]:
        """Where runs stand among these, -1 where they do not: by bisection, for these may be many."""
        if not len(self.runs):
            return np.full(len(runs), -1)
        place = np.minimum(np.searchsorted(self.runs, runs), len(self.runs) - 1)
        return np.where(self.runs[place] == runs, place, -1)

    def mark(self, runs: UInt64[np.ndarray, " run"]) -> None:
        """Take in the runs of a document elsewhere."""
        place = self._places(runs)
        self.seen[place[place >= 0]] = True

    def __call__(self, runs: UInt64[np.ndarray, " run"]) -> Bool[np.ndarray, " run"]:
        """Which of a document's own runs stand elsewhere."""
        found: np.ndarray = self.seen[self._places(runs)]
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
    names = list(splits)
    hashed = {name: {i: hash_runs(texts[i]) for i in splits[name]} for name in names[1:]}
    seen = {name: Seen(hashed[name].values()) for name in names[1:]}
    for number, name in enumerate(names[:-1]):
        for i in splits[name]:
            own = hashed[name][i] if number else hash_runs(texts[i])
            for later in names[number + 1 :]:
                seen[later].mark(own)
    found = {}
    for name in names[1:]:
        covered = {i: cover(seen[name](own)) for i, own in hashed[name].items()}
        size = {i: len(own) + RUN - 1 if len(own) else len(WORD.findall(texts[i])) for i, own in hashed[name].items()}
        shares = {i: covered[i] / size[i] for i in splits[name] if covered[i]}
        found[name] = Shared(sum(size.values()), sum(covered.values()), shares)
    return found
