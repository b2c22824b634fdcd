"""Rules in prose: everything that a rule names is told, strongest first, in a sentence that no parser reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patterns.test_grammar import QUICK, RULES

from rewrite.patterns.grammar import Before, GrammarError, Pattern, Rule, words
from rewrite.patterns.parsing import parse
from rewrite.patterns.prose import ADVERBS, tell


def test_a_sentence_as_a_person_writes_it() -> None:
    rules = (
        Rule(words("the"), 1, before=(Before(words("in", "on")),), places=("inside quotes",)),
        Rule(words("king", "in the", "a"), 9),
        Rule(Pattern("words", ((",",), ('!"',), ("\n", "So"), ("x",), ("(){",))), 8),
        Rule(Pattern("ending", (("al",), ("ful",))), 5, before=(Before(Pattern("numbers"), 5),)),
        Rule(Pattern("anything"), 4, places=("starting a line",)),
    )
    assert tell(rules) == (
        "Responds very strongly to king, the after in or the word a, and to a comma, an exclamation mark and a "
        'quotation mark, So after a line break, the letter x or "(){"; moderately to words that end in al or ful '
        "up to 5 words after numbers, and to any word at the start of a line; faintly to the right after in or on "
        "in quoted speech."
    )
    assert tell(()) == "Never fires."


@QUICK
@given(st.lists(RULES, min_size=1, max_size=4).map(tuple))
def test_the_strongest_comes_first_and_every_plain_word_is_told(rules: tuple[Rule, ...]) -> None:
    text = tell(rules)
    assert text.isprintable()
    strongest = max(rule.strength for rule in rules)
    assert text.startswith(f"Responds {ADVERBS[strongest]} to ")
    assert all(f"{ADVERBS[rule.strength]} to " in text for rule in rules)
    items = [item for rule in rules for of in (rule.pattern, *(b.pattern for b in rule.before)) for item in of.items]
    assert all(word in text for item in items for word in item if word.isalnum())


def test_the_language_of_rules_does_not_read_it() -> None:
    with pytest.raises(GrammarError):
        parse(tell((Rule(words("king"), 9),)))
