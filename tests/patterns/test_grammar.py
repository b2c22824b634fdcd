"""The language of rules: what is written is read back, whatever the tokens hold."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rewrite.patterns.grammar import (
    LISTED,
    PHRASES,
    PLACES,
    Before,
    GrammarError,
    Pattern,
    Place,
    Rule,
    count_words,
    words,
    write,
)
from rewrite.patterns.parsing import parse

HOSTILE = ['"', "\n", "\t", "\\", "\\n", "🙂", "\ufffd", "␣", "\\0", "", " ", "  ", "(9)", ";", ".", "after", "words",
           "ending", "Fires", "on", "or", ",", "\u200b", "\x00", "\r\n", "\u2028", "\xa0", "\\x41",
           "\U0010ffff",
           "é"]  # fmt: skip
WORDS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=6))


def patterns(longest: int, forms: list[str]) -> st.SearchStrategy[Pattern]:
    def of(form: str) -> st.SearchStrategy[Pattern]:
        if form not in LISTED:
            return st.just(Pattern(form))
        length = longest if form == "words" else 1
        items = st.lists(st.lists(WORDS, min_size=1, max_size=length).map(tuple), min_size=1, max_size=4).map(tuple)
        return items.map(lambda i: Pattern(form, i))

    return st.sampled_from(forms).flatmap(of)


QUICK = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def rule_of(pattern: Pattern, strength: int, before: tuple[Before, ...], places: tuple[Place, ...]) -> Rule:
    runs = any(len(item) > 1 for item in pattern.items)
    return Rule(pattern, strength, tuple(b for b in before if b.within > 1 or not runs), places)


RULES = st.builds(
    rule_of,
    pattern=patterns(3, list(PHRASES)),
    strength=st.integers(0, 9),
    before=st.lists(
        st.builds(Before, pattern=patterns(1, [f for f in PHRASES if f != "tokens"]), within=st.integers(1, 9)),
        max_size=2,
    ).map(tuple),
    places=st.lists(st.sampled_from(PLACES), max_size=2).map(tuple),
)


@QUICK
@given(st.lists(RULES, max_size=4).map(tuple))
def test_what_is_written_is_read_back(rules: tuple[Rule, ...]) -> None:
    assert parse(write(rules)) == rules


@QUICK
@given(st.lists(RULES, min_size=1, max_size=3).map(tuple))
def test_a_sentence_is_one_printable_line(rules: tuple[Rule, ...]) -> None:
    assert write(rules).isprintable()


def test_a_sentence_as_a_person_reads_it() -> None:
    rules = (
        Rule(words("king", "in the"), 9),
        Rule(Pattern("ending", (("al",), ("ful",))), 5),
        Rule(words("the"), 3, before=(Before(words("in", "on")),), places=("inside quotes",)),
    )
    text = 'Fires on "king", "in the" (9); words ending "al", "ful" (5); "the" after "in", "on" inside quotes (3).'
    assert write(rules) == text
    assert write(()) == "Never fires."
    # 2 Fires on, 3 king / in the, 1 for (9); 4 and 1; 1 the, 1 after, 2 in / on, 2 inside quotes, 1 for (3)
    assert count_words(text) == (2 + 3 + 1) + (4 + 1) + (1 + 1 + 2 + 2 + 1)


@pytest.mark.parametrize(
    "edited",
    [
        ' fires  ON "a" ,"b"(9) ;words ending "x"\n(2)',
        'Fires on "a" or "b" (strength 9); words ending "x" (2);',
        'Fires on "a", or "b" (9) ; words ending "x" ( 2 ) .',
    ],
)
def test_a_hand_edited_sentence_is_read(edited: str) -> None:
    assert parse(edited) == (Rule(words("a", "b"), 9), Rule(Pattern("ending", (("x",),)), 2))


@pytest.mark.parametrize(
    "broken",
    ["", "This latent likes kings.", 'Fires on "a"', 'Fires on "a (9).', 'Fires on "a" (12).', 'Fires on (3).',
     'Fires on "a" (9) "b" (3).', 'Fires on words ending "a b" (3).', 'Fires on "a" after (3).', 'Fires on "\\q" (3).',
     'Fires on "a" within 0 words after "b" (3).', "Never fires. Mostly.",
     'Fires on "a b c d" (3).', 'Fires on "a b" after "c" (3).', 'Fires on "a" after "b c" (3).',
     'Fires on "a" after tokens "b" (3).',
     'Fires on "a" within 2 words of "b" (3).', 'Fires on "a" (9); é† (2).'],
)  # fmt: skip
def test_a_sentence_outside_the_language_is_quoted(broken: str) -> None:
    with pytest.raises(GrammarError) as error:
        parse(broken)
    assert broken in str(error.value)


def test_words_cannot_be_glued_to_save_any() -> None:
    assert count_words('words-ending/in_"a"') == 4
    assert count_words('"once upon a", "\\0", ""') == 5


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Pattern("words"),
        lambda: Pattern("numbers", (("a",),)),
        lambda: Rule(words("a"), 10),
        lambda: Rule(words("a b"), 1, (Before(words("c")),)),
        lambda: Before(words("a"), 0),
    ],
)
def test_rules_that_cannot_be_said_are_refused(bad: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        bad()
