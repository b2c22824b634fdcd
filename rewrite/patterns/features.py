"""What a rule may ask of a position, read from the token strings alone.

Only the text to the left of a position, and its own token, are used, for that is all the subject itself can see.

How words and places are read is told in `words.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int

from rewrite.patterns.words import Reader, Unit, look_at
from rewrite.text.windows import Text

PLACES = ("line", "sentence", "quotes", "brackets", "piece")
"""First word of a line, first word of a sentence, inside quotes, inside brackets, the token continues its word."""

PLACE_VALUES = {
    "starting a line": (0, True),
    "starting a sentence": (1, True),
    "inside quotes": (2, True),
    "inside brackets": (3, True),
    "inside a word": (4, True),
    "starting a word": (4, False),
}
"""What `rewrite.patterns.grammar` calls them: the column of `Features.places`, and what it must be."""

APART = 1000


@dataclass(frozen=True)
class Features:
    """Columns over positions; words and tokens are ids into `words` and `tokens`.

    `number` counts the complete words so far, the last of which is `before`; windows are `APART` numbers apart, so
    that words of different windows are never near each other.
    """

    words: tuple[str, ...]
    tokens: tuple[str, ...]
    word: Int[np.ndarray, " position"]
    before: Int[np.ndarray, " position"]
    before2: Int[np.ndarray, " position"]
    token: Int[np.ndarray, " position"]
    number: Int[np.ndarray, " position"]
    places: Bool[np.ndarray, "position place"]


@dataclass(frozen=True)
class _Known:
    """What is known of each token of a vocabulary before any text is read; tokens that differ in spaces are one."""

    units: Sequence[Sequence[Unit]]
    breaks: Sequence[bool]
    tokens: tuple[str, ...]
    token_of: Int[np.ndarray, " vocabulary"]


@lru_cache(maxsize=1)
def _look_at_all(vocabulary: tuple[str, ...]) -> _Known:
    """Once for a vocabulary, which may be longer than the texts that are read one after the other."""
    bodies: dict[str, int] = {}
    own = [token.strip(" ") or token for token in vocabulary]
    token_of = np.array([bodies.setdefault(body, len(bodies)) for body in own], dtype=np.int64)
    breaks = [token == "" or token[0].isspace() for token in vocabulary]
    return _Known([look_at(token) for token in vocabulary], breaks, tuple(bodies), token_of)


def read_features(text: Text, words: dict[str, int] | None = None) -> Features:
    """Read every window of `text` from left to right; windows do not see each other.

    Texts that are read one after the other share their ids where they are given the same `words`, which grow.
    """
    known = _look_at_all(text.vocabulary)
    units, breaks = known.units, known.breaks
    words = {} if words is None else words
    number = 0
    table = np.zeros((len(text.ids), 9), dtype=np.int64)
    for begin, end in zip(text.starts[:-1].tolist(), text.starts[1:].tolist(), strict=True):
        reader, columns = Reader(), []
        reader.number = number
        for i in text.ids[begin:end].tolist():
            reader.read(units[i], breaks[i])
            columns.append(
                (
                    words.setdefault(reader.word, len(words)),
                    words.setdefault(reader.before, len(words)),
                    words.setdefault(reader.before2, len(words)),
                    reader.number,
                    reader.line,
                    reader.sentence,
                    reader.quotes,
                    reader.depth > 0,
                    reader.inside,
                )
            )
        number = reader.number + APART
        if columns:  # Numbers of Python's own take ten times the memory, so they are only those of a window.
            table[begin:end] = columns
    return Features(
        words=tuple(words),
        tokens=known.tokens,
        word=table[:, 0],
        before=table[:, 1],
        before2=table[:, 2],
        token=known.token_of[text.ids] if len(text.ids) else np.zeros(0, dtype=np.int64),
        number=table[:, 3],
        places=table[:, 4:].astype(bool),
    )
