"""Reads a sentence of the language of rules (`rewrite.patterns.grammar`) back into its rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from rewrite.patterns.grammar import (
    LEAD,
    LISTED,
    LONGEST,
    NEVER,
    PHRASES,
    PLACES,
    Before,
    Form,
    GrammarError,
    Pattern,
    Place,
    Rule,
)

LEXEME: Final = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^\W\d_]+)|(\d+)|([(),;.]))', re.DOTALL)


UNESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)


NAMED: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "0": ""}


def parse(sentence: str) -> tuple[Rule, ...]:
    """The rules of a sentence, in its order. Raises GrammarError, quoting the sentence, where it is not one."""
    return _Parser(sentence).explanation()


@dataclass(frozen=True)
class _Lexeme:
    kind: Literal["quoted", "name", "number", "sign", "end"]
    text: str
    at: int


def _lex(sentence: str) -> Iterator[_Lexeme]:
    at, end = 0, len(sentence.rstrip())
    kinds: tuple[Literal["quoted", "name", "number", "sign"], ...] = ("quoted", "name", "number", "sign")
    while at < end:
        match = LEXEME.match(sentence, at)
        if match is None:
            raise GrammarError(f"cannot read {sentence[at : at + 20]!r} in: {sentence}")
        group = match.lastindex or 1
        text = match.group(group)
        yield _Lexeme(kinds[group - 1], text.lower() if group == 2 else text, match.start(group))
        at = match.end()
    yield _Lexeme("end", "", end)


class _Parser:
    """Recursive descent, one method a line of the grammar."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence
        self.lexemes = list(_lex(sentence))
        self.next = 0

    def fail(self, wanted: str) -> GrammarError:
        lexeme = self.lexemes[self.next]
        found = "the end" if lexeme.kind == "end" else repr(self.sentence[lexeme.at : lexeme.at + 20])
        return GrammarError(f"wanted {wanted}, found {found} in: {self.sentence}")

    def take(self, *texts: str) -> bool:
        """Step over these lexemes if they come next."""
        ahead = self.lexemes[self.next : self.next + len(texts)]
        found = tuple(lexeme.text for lexeme in ahead if lexeme.kind in ("name", "sign")) == texts
        self.next += len(texts) if found else 0
        return found

    def take_phrase(self, phrase: str) -> bool:
        return self.take(*phrase.split(" "))

    def number(self) -> int:
        if self.lexemes[self.next].kind != "number":
            raise self.fail("a number")
        self.next += 1
        return int(self.lexemes[self.next - 1].text)

    def explanation(self) -> tuple[Rule, ...]:
        if self.take("never", "fires"):
            rules: list[Rule] = []
        elif self.take("fires", "on"):
            rules = [self.rule()]
            while self.take(";"):
                if self.lexemes[self.next].kind in ("quoted", "name"):
                    rules.append(self.rule())
        else:
            raise self.fail(f"'{LEAD}' or '{NEVER}'")
        self.take(".")
        if self.lexemes[self.next].kind != "end":
            raise self.fail("';' or the end")
        return tuple(rules)

    def rule(self) -> Rule:
        pattern = self.pattern()
        before: list[Before] = []
        places: list[Place] = []
        while not self.take("("):
            condition = self.before()
            if condition:
                before.append(condition)
            else:
                places.append(self.place())
        self.take("strength")
        strength = self.number()
        if strength > 9 or not self.take(")"):
            raise self.fail("a strength from 0 to 9 and ')'")
        try:
            return Rule(pattern, strength, tuple(before), tuple(places))
        except ValueError:
            raise self.fail("single words, not runs of words with a condition 'after', before this,") from None

    def before(self) -> Before | None:
        within = 1
        if self.take("within"):
            within = self.number()
            if within < 1 or not self.take("words"):
                raise self.fail("'within N words after', N at least 1")
        elif self.lexemes[self.next].text != "after":
            return None
        if not self.take("after"):
            raise self.fail("'after'")
        try:
            return Before(self.pattern(), within)
        except ValueError:
            raise self.fail("single words or kinds of word before this, after 'after',") from None

    def place(self) -> Place:
        for place in PLACES:
            if self.take_phrase(place):
                return place
        raise self.fail("a condition or a strength such as (9)")

    def pattern(self) -> Pattern:
        for form, phrase in PHRASES.items():
            if phrase and self.take_phrase(phrase):
                return Pattern(form, self.items(form) if form in LISTED else ())
        return Pattern("words", self.items("words"))

    def items(self, form: Form) -> tuple[tuple[str, ...], ...]:
        items = [self.item(form)]
        while self.take(",") or self.take("or") or self.take("and"):
            self.take("or")
            items.append(self.item(form))
        return tuple(items)

    def item(self, form: Form) -> tuple[str, ...]:
        if self.lexemes[self.next].kind != "quoted":
            raise self.fail("something in double quotes")
        item = tuple(self.unescape(part) for part in self.lexemes[self.next].text.split(" "))
        longest = LONGEST if form == "words" else 1
        if len(item) > longest:
            raise self.fail(f"at most {longest} words in the quotes")
        self.next += 1
        return item

    def unescape(self, text: str) -> str:
        return " ".join(UNESCAPE.sub(self._character, part) for part in text.split("␣"))

    def _character(self, escape: re.Match[str]) -> str:
        code = escape.group(1)
        if len(code) > 1:
            return chr(int(code[1:], 16))
        if code not in NAMED:
            raise self.fail(f"one of the escapes, not \\{code},")
        return NAMED[code]
