r"""The language of rules: a sentence that a person reads, and a machine reads back.

    Fires on "king", "queen", "in the" (9); words ending "al", "ful" (5); "the", "a" after "in", "on" (3).

An explanation is `Never fires.`, or `Fires on` and rules separated by semicolons. A rule is a *pattern* for the
current word, then *conditions* on what came before it, then a strength from 0 to 9 in brackets.

| pattern | the current word, as far as it has been read, |
|---|---|
| `"king", "in the"` | is one of these; earlier words in the same quotes stand directly before it |
| `words ending "al", "ful"`, `words starting "th"` | ends or starts so |
| `tokens "ing"` | was last continued by one of these pieces |
| `numbers`, `symbols` | is of digits; is of signs only |
| `capitalised words`, `capitals` | has a capital first and no other; is of two capitals or more |
| `anything` | is any word |

| condition | |
|---|---|
| `after PATTERN` | the word directly before matches PATTERN (single words only) |
| `within 5 words after PATTERN` | one of the 5 words before matches PATTERN |
| `starting a line`, `starting a sentence` | it is the first word there |
| `starting a word`, `inside a word` | the token begins its word; continues it |
| `inside quotes`, `inside brackets` | it stands there |

Where several rules match, the one that says most about the current word wins (a whole word, then a token, a longer
ending or start, a kind of word, anything), among those the one with most conditions, then the strongest.

In quotes, `\n`, `\t`, `\\`, `\"`, `\xNN`, `\uNNNN` are as in Python, `␣` is a space and `\0` is no word (the start of
a text). What words, places and "before" are, `rewrite.patterns.features` says.

Words are counted honestly by `count_words`: a quoted item is as many words as it names, at least one; outside quotes
every run of letters or digits is one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

Form = Literal["words", "ending", "starting", "tokens", "numbers", "capitalised", "capitals", "symbols", "anything"]
Place = Literal[
    "starting a line", "starting a sentence", "starting a word", "inside quotes", "inside brackets", "inside a word"
]
PLACES: Final[tuple[Place, ...]] = get_args(Place)

# How each form is written; those that hold a quoted list come first.
PHRASES: Final[dict[Form, str]] = {
    "words": "",
    "ending": "words ending",
    "starting": "words starting",
    "tokens": "tokens",
    "numbers": "numbers",
    "capitalised": "capitalised words",
    "capitals": "capitals",
    "symbols": "symbols",
    "anything": "anything",
}
LISTED: Final = ("words", "ending", "starting", "tokens")

LONGEST: Final = 3
"""Words in one pair of quotes, at most."""

NEVER: Final = "Never fires."
LEAD: Final = "Fires on"


class GrammarError(ValueError):
    """A sentence that is not in the language; says where, and quotes the sentence."""


@dataclass(frozen=True)
class Pattern:
    """What a word is like. An item of `words` is a run of consecutive words, the current one last; of the other listed
    forms, one string in a tuple; the kinds of word have no items."""

    form: Form
    items: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if (self.form in LISTED) != bool(self.items):
            raise ValueError(f"{self.form}: items {self.items!r}")
        longest = LONGEST if self.form == "words" else 1
        if not all(1 <= len(item) <= longest for item in self.items):
            raise ValueError(f"{self.form}: items {self.items!r}")


@dataclass(frozen=True)
class Before:
    """A word that matches `pattern` stands directly before (`within` 1), or among the `within` words before."""

    pattern: Pattern
    within: int = 1

    def __post_init__(self) -> None:
        if self.within < 1 or self.pattern.form == "tokens" or any(len(item) > 1 for item in self.pattern.items):
            raise ValueError(f"within {self.within} words after {self.pattern}")


@dataclass(frozen=True)
class Rule:
    """A pattern, its conditions in the order they are written, and the strength 0 to 9 it stands for."""

    pattern: Pattern
    strength: int
    before: tuple[Before, ...] = ()
    places: tuple[Place, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 9:
            raise ValueError(f"strength {self.strength} is not in 0..9")
        runs = any(len(item) > 1 for item in self.pattern.items)
        if runs and any(condition.within == 1 for condition in self.before):
            raise ValueError("runs of words say themselves what they come directly after")


def words(*items: str) -> Pattern:
    """`words("king", "in the")`: items as they are written, words of one item separated by a space."""
    return Pattern("words", tuple(tuple(item.split(" ")) for item in items))


def precedence(rule: Rule, item: tuple[str, ...] = ()) -> int:
    """Rank of a rule where it matches by this item of its pattern; the highest wins, see the module's docstring."""
    form, conditions = rule.pattern.form, len(rule.before) + len(rule.places)
    if form == "words":
        about_word, conditions = 100, conditions + len(item) - 1
    elif form == "tokens":
        about_word = 99
    elif form in ("ending", "starting"):
        about_word = 10 + min(len(item[0]), 80)
    else:
        about_word = 0 if form == "anything" else 1
    return about_word * 10 + min(conditions, 9)


# --- writing ---------------------------------------------------------------------------------------------------------

ESCAPES: Final = {"\n": "\\n", "\t": "\\t", "\\": "\\\\", '"': '\\"', " ": "␣"}


def _escape(word: str) -> str:
    if not word:
        return "\\0"
    return "".join(ESCAPES.get(c) or (c if c.isprintable() and c != "␣" else _code(c)) for c in word)


def _code(character: str) -> str:
    point = ord(character)
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def quote(item: Sequence[str]) -> str:
    """The words of one item in double quotes."""
    return '"' + " ".join(map(_escape, item)) + '"'


def _write_pattern(pattern: Pattern) -> str:
    return " ".join(filter(None, (PHRASES[pattern.form], ", ".join(map(quote, pattern.items)))))


def _write_rule(rule: Rule) -> str:
    parts = [_write_pattern(rule.pattern)]
    for condition in rule.before:
        lead = "after" if condition.within == 1 else f"within {condition.within} words after"
        parts.append(f"{lead} {_write_pattern(condition.pattern)}")
    parts.extend(rule.places)
    return " ".join(parts) + f" ({rule.strength})"


def write(rules: Sequence[Rule]) -> str:
    """The sentence that says these rules; no rules: the latent never fires."""
    return f"{LEAD} {'; '.join(map(_write_rule, rules))}." if rules else NEVER


# --- reading ---------------------------------------------------------------------------------------------------------

WORD: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[^\W_]+', re.DOTALL)


def count_words(sentence: str) -> int:
    """Words of an explanation: a quoted item counts its words, at least 1; outside quotes every run of letters or
    digits is one, however it is glued."""
    return sum(max(1, len(m.split(" "))) if m[0] == '"' else 1 for m in WORD.findall(sentence))
