"""What a rule may ask of a position, read from the token strings alone.

Only the text to the left of a position, and its own token, are used, for that is all the subject itself can see.

1. A token begins a new word if it starts with white space, or if it and the piece before it are not both made of
   letters, digits and underscores; so a word is the pieces joined ("un" "happ" "y"), and every other sign is a word
   of its own. An apostrophe inside a word belongs to it (don't) unless the word itself follows one ('quoted').
2. The word *so far* is what has been read of it up to and including the current token, without spaces around it.
3. The word *before* is the last complete word; spaces and tabs alone are skipped, newlines are not. It is empty at
   the start of a window.
4. Places are kept while reading: the first word of a line or of a sentence, inside double quotes (which a newline
   closes), inside brackets, and whether the token begins its word.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from rewrite.records import Text

PLACES = ("line", "sentence", "quotes", "brackets", "piece")
"""First word of a line, first word of a sentence, inside quotes, inside brackets, the token continues its word."""

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
class _Piece:
    """A vocabulary entry, looked at once."""

    body: str
    blank: bool
    breaks: bool
    opens_wordlike: bool
    closes_wordlike: bool


def is_wordlike(character: str) -> bool:
    """Letters, digits, underscores, and U+FFFD, which stands for a part of a character."""
    return character.isalnum() or character in ("_", "\ufffd")


def has_kind(word: str, kind: str) -> bool:
    """Whether a word is of a kind that `rewrite.grammar` names: numbers, capitalised, capitals or symbols."""
    if kind == "numbers":
        return word.isdigit()
    if kind == "capitalised":
        return word[:1].isupper() and not any(c.isupper() for c in word[1:])
    if kind == "capitals":
        return len(word) > 1 and word.isupper()
    if kind == "symbols":
        return word != "" and not word.isspace() and not any(map(is_wordlike, word))
    raise ValueError(kind)


def _look_at(token: str) -> _Piece:
    body = token.strip(" ")
    blank = not token.strip(" \t") and token != ""
    return _Piece(
        body=token if blank else body,
        blank=blank,
        breaks=token == "" or token[0].isspace(),
        opens_wordlike=is_wordlike(body[:1]) if body else False,
        closes_wordlike=is_wordlike(token[-1:]) if token else False,
    )


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

    def read(self, piece: _Piece) -> None:
        """Take in one token."""
        apostrophe = piece.body in APOSTROPHES and not self.quoted_word
        joins = not piece.breaks and self.tail and (piece.opens_wordlike or apostrophe)
        self.inside = joins
        if joins:
            self.word += piece.body
        else:
            self._begin(piece)
        self.tail = piece.closes_wordlike or (joins and apostrophe)

    def _begin(self, piece: _Piece) -> None:
        self._leave()
        self.quoted_word = not piece.breaks and self.word[-1:] in APOSTROPHES and not self.tail
        self.word, self.blank = piece.body, piece.blank

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
    pieces = [_look_at(token) for token in text.vocabulary]
    words, columns = _Ids(), []
    number = 0
    ids = text.ids.tolist()
    for begin, end in zip(text.starts[:-1].tolist(), text.starts[1:].tolist(), strict=True):
        reader = _Reader()
        reader.number = number
        for i in ids[begin:end]:
            reader.read(pieces[i])
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
    token_of = np.array([bodies.of(piece.body) for piece in pieces], dtype=np.int64)
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
