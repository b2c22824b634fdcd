"""The rules of `rewrite.patterns.grammar` in prose: a sentence as a person would write it, which quotes nothing that
has a name and gives no numbers. Nothing reads it back: it is for readers that know a language.

    Responds very strongly to king, queen or the after in; weakly to words that end in al or ful; faintly to the or a
    right after in or on.

What is lost is what a person leaves out: which of two neighbouring strengths it is (`ADVERBS`), and which rule wins
where several match.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from rewrite.patterns.grammar import NEVER, Before, Form, Pattern, Place, Rule, quote

LEAD: Final = "Responds"
ADVERBS: Final = (
    "hardly",
    "faintly",
    *("weakly", "weakly"),
    *("moderately", "moderately"),
    *("strongly", "strongly"),
    *("very strongly", "very strongly"),
)
"""How each strength from 0 to 9 is said."""

SIGNS: Final[dict[str, str]] = {
    ",": "a comma",
    ".": "a full stop",
    "...": "three dots",
    "!": "an exclamation mark",
    "?": "a question mark",
    ":": "a colon",
    ";": "a semicolon",
    "-": "a hyphen",
    '"': "a quotation mark",
    "'": "an apostrophe",
    "(": "an opening bracket",
    ")": "a closing bracket",
    "\n": "a line break",
    "\t": "a tab",
    " ": "a space",
}
WORDS: Final = "aAI"
"""Letters that are words."""
LONGEST: Final = 4
"""Signs in a row that are told one by one; more of them are quoted [characters]."""

KINDS: Final[dict[Form, str]] = {
    "numbers": "numbers",
    "capitalised": "capitalised words",
    "capitals": "words in capitals",
    "symbols": "signs",
    "anything": "any word",
}
FORMS: Final[dict[Form, str]] = {
    "words": "",
    "ending": "words that end in ",
    "starting": "words that begin with ",
    "tokens": "the piece ",
}
WHERE: Final[dict[Place, str]] = {
    "starting a line": "at the start of a line",
    "starting a sentence": "at the start of a sentence",
    "starting a word": "at the start of a word",
    "inside a word": "within a word",
    "inside quotes": "in quoted speech",
    "inside brackets": "in brackets",
}


def tell(rules: Sequence[Rule]) -> str:
    """The sentence that says these rules, strongest first; no rules: the latent never fires."""
    if not rules:
        return NEVER
    ordered = sorted(rules, key=lambda rule: -rule.strength)
    parts = [
        f"{adverb} to {', and to '.join(_tell_rule(rule) for rule in said)}"
        for adverb, said in groupby(ordered, key=lambda rule: ADVERBS[rule.strength])
    ]
    return f"{LEAD} {'; '.join(parts)}."


def _tell_rule(rule: Rule) -> str:
    after = [_tell_before(condition) for condition in rule.before]
    return " ".join([_tell_pattern(rule.pattern), *after, *(WHERE[place] for place in rule.places)])


def _tell_before(condition: Before) -> str:
    if condition.within == 1:
        return f"right after {_tell_pattern(condition.pattern)}"
    return f"up to {condition.within} words after {_tell_pattern(condition.pattern)}"


def _tell_pattern(pattern: Pattern) -> str:
    if pattern.form in KINDS:
        return KINDS[pattern.form]
    return FORMS[pattern.form] + _either([_tell_item(item) for item in pattern.items])


def _tell_item(item: Sequence[str]) -> str:
    """The words of an item: one by its name, several as the run that they are."""
    if len(item) == 1:
        return _name(item[0])
    return f"{_name(item[-1])} after {' '.join(map(_name, item[:-1]))}"


def _name(word: str) -> str:
    """A word bare, signs by their names, and whatever would not be seen or told apart in quotes."""
    if word == "":
        return "the start of the text"
    if word in SIGNS:
        return SIGNS[word]
    if all(c.isalnum() or c in "'’_" for c in word):
        return f"the {'word' if word in WORDS else 'letter'} {word}" if len(word) == 1 and word.isalpha() else word
    if len(word) <= LONGEST and all(c in SIGNS for c in word):
        return " and ".join(SIGNS[c] for c in word)
    return quote([word])


def _either(items: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(items[:-1]), items[-1]]))
