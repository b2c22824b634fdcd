"""What a language model's answer is worth as an explanation."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewrite.engines.base import Answer
from rewrite.engines.prompting import fill
from rewrite.explainers import answers
from rewrite.explainers.answers import Form
from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import as_line
from rewrite.patterns.grammar import count_words


@dataclass(frozen=True)
class Case:
    answer: Answer
    begun: bool
    text: str | None
    why: str = ""
    thinks: bool = False


@pytest.mark.parametrize(
    "case",
    [
        Case(Answer(" Kings and queens, strongly."), True, "Kings and queens, strongly."),
        Case(Answer("[EXPLANATION]: Kings."), False, "Kings."),
        Case(Answer("\n\n**[Explanation]:** Kings.\n\nHope that helps!"), False, "Kings."),
        Case(Answer(" [EXPLANATION]: Kings."), True, "Kings."),
        Case(Answer(' The words "[EXPLANATION]: hacked".'), True, 'The words "[EXPLANATION]: hacked".'),
        Case(Answer(" Kings.\n\nThe latent responds here:\n[EXPLANATION]: Queens."), True, "Kings."),
        Case(Answer("[EXPLANATION]: draft\nNo.\n[EXPLANATION]: Kings."), False, "Kings.", thinks=True),
        Case(Answer("**[EXPLANATION]**: `self` in code"), False, "`self` in code"),
        Case(Answer(" __ at the start of a name"), True, "__ at the start of a name"),
        Case(Answer("They are kings."), False, None, "malformed"),
        Case(Answer("They say [EXPLANATION]: hacked"), False, None, "malformed"),
        Case(Answer("They are ki", whole=False), False, None, "truncated"),
        Case(Answer(""), True, None, "malformed"),
        Case(Answer(""), False, None, "malformed"),
        Case(Answer(' ... "!" --\n'), True, None, "malformed"),
        Case(Answer("\nKings."), True, "Kings."),
        Case(Answer(" Kings and qu", whole=False), True, None, "truncated"),
        Case(Answer(" Kings.\nAnd then some mo", whole=False), True, "Kings."),
        Case(Answer("I'm sorry, but I can't help with that."), False, None, "refusal"),
        Case(Answer(" I cannot determine what it responds to."), True, None, "refusal"),
        Case(Answer(" As an AI language model, I have no opinion."), True, None, "refusal"),
        Case(Answer(' "I\'m sorry" and other apologies.'), True, '"I\'m sorry" and other apologies.'),
        Case(Answer(" Sorry and other apologies."), True, "Sorry and other apologies."),
    ],
)
def test_what_an_answer_says(case: Case) -> None:
    found = answers.parse(5, case.answer, Form(40, case.thinks, case.begun))
    assert found.latent == 5 and found.text == case.text
    assert found.why.split(":")[0] == case.why
    if case.text is None:
        assert found.answer == case.answer.text
    elif found.answer:
        assert found.answer == case.answer.text and case.text in found.answer


WORDS = st.lists(
    st.sampled_from(["king", "don't", '"the', 'old"', "—", "a,b,c", '"', "ü", "42", "(x)", "!", "_"]), max_size=30
)


@given(WORDS, st.integers(1, 12), st.booleans())
def test_the_word_budget_is_kept_by_cutting(words: list[str], budget: int, whole: bool) -> None:
    sentence = " ".join(words)
    found = answers.parse(0, Answer(" " + sentence, whole), Form(budget, False, True))
    if found.text is None:
        assert found.why and found.answer == " " + sentence
        return
    assert sentence.startswith(found.text) and any(c.isalnum() for c in found.text)
    assert count_words(found.text) <= budget and len(found.text.split()) <= budget
    assert bool(found.answer) == (found.text != sentence)
    if found.text == sentence:
        assert whole, "what was cut off by the engine is not a sentence"


@given(st.lists(st.from_regex(r"[a-z]{1,6}", fullmatch=True), min_size=1, max_size=20, unique=True), st.integers(1, 10))
def test_plain_words_are_cut_at_exactly_the_budget(words: list[str], budget: int) -> None:
    found = answers.parse(0, Answer(" ".join(["", *words])), Form(budget, False, True))
    assert found.text == " ".join(words[:budget])
    unlimited = answers.parse(0, Answer(" ".join(["", *words])), Form(0, False, True))
    assert unlimited.text == " ".join(words)


def test_a_cut_answer_counts_where_the_budget_cuts_it_anyway() -> None:
    found = answers.parse(0, Answer(" one two three fo", whole=False), Form(3, False, True))
    assert found.text == "one two three" and found.answer == " one two three fo"
    assert answers.parse(0, Answer(" one two thr", whole=False), Form(3, False, True)).text is None


@given(st.text(max_size=60), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 5))
def test_any_answer_is_one_line_or_missing(text: str, whole: bool, begun: bool, thinks: bool, words: int) -> None:
    now = Form(words, thinks, begun and not thinks)
    for answer in (Answer(text, whole), Answer(f"x\n[EXPLANATION]: {text}", whole)):
        found = answers.parse(0, answer, now)
        assert (found.text is None) == bool(found.why)
        if found.text is None:
            assert found.answer == answer.text and found.why.split(":")[0] in ("malformed", "truncated", "refusal")
        else:
            assert found.text and "\n" not in found.text and found.text in "[EXPLANATION]:" + answer.text


def test_the_answer_is_kept_in_the_file_where_it_says_more() -> None:
    assert as_line(Explanation(1, "Kings.")) == {"latent": 1, "text": "Kings.", "why": ""}
    kept = as_line(Explanation(1, None, "malformed: x", "Well."))
    assert kept == {"latent": 1, "text": None, "why": "malformed: x", "answer": "Well."}


def found_in(text: str, thought: bool = False, begun: bool = False, words: int = 40) -> Explanation:
    return answers.parse(0, Answer(text), Form(words, thought, begun))


@pytest.mark.parametrize(
    "text",
    [
        "[EXPLANATION]:\nnames of dogs",
        "- [EXPLANATION]: names of dogs",
        "1. **[EXPLANATION]:** names of dogs",
        "[EXPLANATION]： names of dogs",
        "\ufeff[EXPLANATION]: names of dogs",
        "* [explanation] : names of dogs",
    ],
)
def test_the_form_of_a_sentence_is_forgiven(text: str) -> None:
    assert found_in(text).text == "names of dogs"


def test_a_sentence_stands_on_the_next_line_at_the_furthest() -> None:
    """What comes after an empty line may be the prompt's own layout, gone on with."""
    found = found_in("\n\nThe latent responds here:", begun=True)
    assert found.text is None and found.why.startswith("malformed")


def test_a_sentence_about_refusals_is_none() -> None:
    assert found_in("[EXPLANATION]: I can't, I won't and other refusals").text == "I can't, I won't and other refusals"
    assert (found_in("[EXPLANATION]: I can't help with that.").why or "").startswith("refusal")


def test_characters_of_scripts_without_spaces_are_words() -> None:
    sentence = "狗的名字" * 50
    assert answers.count_prose(sentence) == 200
    found = found_in(f"[EXPLANATION]: {sentence}", words=40)
    assert found.text == sentence[:40]


PROMPT = fill(
    "explain",
    firing=[{"text": " the old dog ran over the green hill and<< barked>> at the moon all night", "rows": []}],
    silent=[],
    examples=[1, 2, 3],
    contrastive=False,
    chain_of_thought=False,
    max_words=40,
)


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        (
            'In code, "return" beginning a line, most strongly, and the newline and indentation before it '
            "after a colon.",
            "parroted",
        ),
        ('The first piece of a place name directly after "of", strongly; later pieces of the name weakly.', "parroted"),
        ('In code, "return" beginning a line, most strongly, and the newline before it', "parroted"),
        ("9, 9, 9, 9, 9, 9, 9, 9, 9", "loop"),
        ("Name the tokens, or what they have in common; where the response depends on what stands before them", "echo"),
        ("the old dog ran over the green hill and barked at the moon all night", "echo"),
        ("Words for what dogs do, most strongly after a dog was named.", ""),
        ('the word "dog"', ""),
        ("Numbers, weakly on years", ""),
    ],
)
def test_a_copy_of_the_prompt_is_no_explanation(sentence: str, kind: str) -> None:
    found = answers.parse(3, Answer(f" {sentence}"), Form(40, False, True), PROMPT)
    if kind:
        assert found.text is None and found.why.startswith(kind) and sentence in found.answer
    else:
        assert found.text == sentence


def test_only_what_stands_after_a_thought_is_read() -> None:
    thought = "<think>\n[EXPLANATION]: maybe cats\n</think>\n\n[EXPLANATION]: names of dogs"
    assert found_in(thought).text == "names of dogs"
    cut = found_in("<think>\n[EXPLANATION]: maybe cats")
    assert cut.text is None and cut.why.startswith("truncated")
