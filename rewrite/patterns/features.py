"""What a rule may ask of a position, read from the token strings alone.

Only the text to the left of a position, and its own token, are used, for that is all the subject itself can see.

1. A word is a run of letters, digits and underscores, its pieces joined ("un" "happ" "y"); a run of other signs in one
   token is a word too, and white space ends one. An apostrophe inside a word belongs to it (don't) unless the word
   itself follows one ('quoted').
2. The word *so far* is what has been read of it up to and including the current token, without spaces around it; of
   a token that spans several words it is the last.
3. The word *before* is the last complete word; spaces and tabs alone are skipped, newlines are not. It is empty at
   the start of a window.
4. Places are kept while reading: the first word of a line or of a sentence, inside double quotes (which a newline
   closes), inside brackets, and whether the token begins its word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

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

UNIT = re.compile(r"[\w\ufffd]+|\s+|[^\w\s\ufffd]+")
APART = 1000
SENTENCE_ENDS = frozenset(".!?\n")
CLOSERS = frozenset("\"'”’)]}")
APOSTROPHES = frozenset("'’")


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
class _Unit:
    """A run of one sort of characters in a token."""

    text: str
    blank: bool
    wordlike: bool


def is_wordlike(character: str) -> bool:
    """Letters, digits, underscores, and U+FFFD, which stands for a part of a character."""
    return character.isalnum() or character in ("_", "\ufffd")


def has_kind(word: str, kind: str) -> bool:
    """Whether a word is of a kind that `rewrite.patterns.grammar` names: numbers, capitalised, capitals or symbols."""
    if kind == "numbers":
        return word.isdigit()
    if kind == "capitalised":
        return word[:1].isupper() and not any(c.isupper() for c in word[1:])
    if kind == "capitals":
        return len(word) > 1 and word.isupper()
    if kind == "symbols":
        return word != "" and not word.isspace() and not any(map(is_wordlike, word))
    raise ValueError(kind)


def _look_at(token: str) -> list[_Unit]:
    """A token in units; its outer spaces are cut off, but where there is nothing else they are its word."""
    body = token.strip(" ") or token
    runs = UNIT.findall(body) or [""]
    return [_Unit(run, bool(run) and not run.strip(" \t"), is_wordlike(run[:1])) for run in runs]


class _Reader:
    """The state of reading one window from left to right."""

    def __init__(self) -> None:
        self.word, self.before, self.before2 = "", "", ""
        self.blank = True
        self.tail = False
        self.quoted_word = False
        self.number = 0
        self.line = self.sentence = True
        self.quotes, self.depth = False, 0
        self.inside = False

    def read(self, units: list[_Unit], breaks: bool) -> None:
        """Take in one token; `breaks` if it cannot go on with the word before it."""
        for unit in units:
            apostrophe = unit.text in APOSTROPHES and not self.quoted_word
            self.inside = self.tail and not breaks and (unit.wordlike or apostrophe)
            if self.inside:
                self.word += unit.text
            else:
                self._begin(unit, breaks)
            self.tail = unit.wordlike or (self.inside and apostrophe)
            breaks = False

    def _begin(self, unit: _Unit, breaks: bool) -> None:
        self._leave()
        self.quoted_word = not breaks and self.word[-1:] in APOSTROPHES and not self.tail
        self.word, self.blank = unit.text, unit.blank

    def _leave(self) -> None:
        """Complete the current word: it becomes the word before, and moves the places."""
        if self.blank:
            return
        self.before2, self.before = self.before, self.word
        self.number += 1
        newline = "\n" in self.word
        self.line = newline or self.word == ""
        if self.word[-1:] in SENTENCE_ENDS:
            self.sentence = True
        elif not (self.sentence and self.word in CLOSERS) and self.word != "":
            self.sentence = False
        if newline:
            self.quotes = False
        for character in self.word:
            if character in '"“”':
                self.quotes = character == "“" or (character == '"' and not self.quotes)
            elif character in "([{":
                self.depth += 1
            elif character in ")]}":
                self.depth = max(0, self.depth - 1)


class _Ids:
    """Strings to consecutive ids."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def of(self, text: str) -> int:
        return self.known.setdefault(text, len(self.known))


def read_features(text: Text) -> Features:
    """Read every window of `text` from left to right; windows do not see each other."""
    units = [_look_at(token) for token in text.vocabulary]
    breaks = [token == "" or token[0].isspace() for token in text.vocabulary]
    words, columns = _Ids(), []
    number = 0
    ids = text.ids.tolist()
    for begin, end in zip(text.starts[:-1].tolist(), text.starts[1:].tolist(), strict=True):
        reader = _Reader()
        reader.number = number
        for i in ids[begin:end]:
            reader.read(units[i], breaks[i])
            columns.append(
                (
                    words.of(reader.word),
                    words.of(reader.before),
                    words.of(reader.before2),
                    reader.number,
                    reader.line,
                    reader.sentence,
                    reader.quotes,
                    reader.depth > 0,
                    reader.inside,
                )
            )
        number = reader.number + APART
    table = np.array(columns, dtype=np.int64).reshape(len(ids), 9)
    bodies = _Ids()
    token_of = np.array([bodies.of(token.strip(" ") or token) for token in text.vocabulary], dtype=np.int64)
    return Features(
        words=tuple(words.known),
        tokens=tuple(bodies.known),
        word=table[:, 0],
        before=table[:, 1],
        before2=table[:, 2],
        token=token_of[text.ids] if len(ids) else np.zeros(0, dtype=np.int64),
        number=table[:, 3],
        places=table[:, 4:].astype(bool),
    )
