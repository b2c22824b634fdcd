"""Words as they are read from left to right, a token at a time, and the places where they stand.

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
from collections.abc import Sequence
from dataclasses import dataclass

UNIT = re.compile(r"[\w\ufffd]+|\s+|[^\w\s\ufffd]+")
SENTENCE_ENDS = frozenset(".!?\n")
CLOSERS = frozenset("\"'”’)]}")
APOSTROPHES = frozenset("'’")


@dataclass(frozen=True)
class Unit:
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


def look_at(token: str) -> list[Unit]:
    """A token in units; its outer spaces are cut off, but where there is nothing else they are its word."""
    body = token.strip(" ") or token
    runs = UNIT.findall(body) or [""]
    return [Unit(run, bool(run) and not run.strip(" \t"), is_wordlike(run[:1])) for run in runs]


class Reader:
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

    def read(self, units: Sequence[Unit], breaks: bool) -> None:
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

    def _begin(self, unit: Unit, breaks: bool) -> None:
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
