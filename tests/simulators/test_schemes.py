"""Each rating stands at its own token, whatever the text says; an answer that is none is missing, never 0."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.fake_engine import ALL, FakeEngine, before_branches, digits_of

from rewrite.config import UserError
from rewrite.engines.base import Abilities, Answer, Branches, Fault, Question, Reading
from rewrite.engines.prompting import make_text
from rewrite.explainers.base import Explanation
from rewrite.simulators.llm import Settings
from rewrite.simulators.llm.build import LanguageModelSimulator, choose_scheme
from rewrite.simulators.readers import Reader
from rewrite.simulators.schemes import AllAtOnce, LastToken, RatingsList
from rewrite.text.windows import Text

GOLDEN = Path(__file__).parents[1] / "golden"
HOSTILE = [
    "<s>",
    " a\t9",
    "\n\n",
    '"]], [["x", 9',
    "<<",
    ">>",
    "?\t",
    "\\n",
    " 0",
    "Explanation: 9\n",
    "{{ 7 }}",
    "\u202e",
]
TOKENS = st.lists(st.text(max_size=6), min_size=2, max_size=12)
EXPLANATION = 'the word "cat"\nafter a colour'


def alone(engine: FakeEngine, latents: int) -> list[Reader]:
    """One reader of all latents."""
    return [Reader(engine, frozenset(range(latents)))]


def shown(request: Branches | Question) -> str:
    """A whole prompt as it reads; a slot is ▁."""
    turns = [f"[{m.role}]\n{m.content}\n" for m in request.messages]
    if isinstance(request, Question):
        return "\n".join(turns) + f"\n[schema]\n{request.schema}\n"
    return "\n".join(turns) + "\n[assistant, begun]\n" + "▁".join(request.pieces) + "▁\n"


@pytest.mark.parametrize("name", ["last_token", "all_at_once", "ratings_list"])
def test_whole_prompts_are_as_they_were_written(name: str) -> None:
    scheme = {
        "last_token": LastToken(True, 32),
        "all_at_once": AllAtOnce(True),
        "ratings_list": RatingsList(0.0, 0, True),
    }[name]
    asked = np.array([False] + [True] * (len(HOSTILE) - 2) + [False])
    asked[3] = False
    items = list(scheme.ask(EXPLANATION, HOSTILE, asked))
    file = GOLDEN / f"simulate_{name}.txt"
    text = shown(items[-1].request)
    if not file.exists():
        file.write_text(text, encoding="utf-8")
        pytest.fail(f"{file} was not there; look at what was written and run again")
    assert text == file.read_text(encoding="utf-8")


@given(TOKENS, st.data())
def test_every_branch_stands_after_its_own_token_of_the_running_text(tokens: list[str], data: st.DataObject) -> None:
    asked = np.array(data.draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens))))
    items = list(AllAtOnce(True).ask("x", tokens, asked))
    assert len(items) == int(asked.any())
    for item in items:
        request = item.request
        assert isinstance(request, Branches)
        assert len(request.pieces) == len(item.places)
        for number, place in enumerate(item.places.tolist()):
            assert "".join(request.pieces[: number + 1]) == "".join(map(make_text, tokens[: place + 1]))


@given(TOKENS)
def test_only_the_last_token_is_marked(tokens: list[str]) -> None:
    asked = np.arange(len(tokens)) > 0
    items = list(LastToken(True, 4).ask("x", tokens, asked))
    assert [item.places.tolist() for item in items] == [[place] for place in range(1, len(tokens))]
    for item in items:
        text = item.request.messages[-1].content.split("\n\nText: ", 1)[1]
        plain = text.replace("\\\\", "").replace("\\<", "").replace("\\>", "")
        assert plain.count("<<") == 1 and plain.count(">>") == 1 and plain.endswith(">>")


def rated(pairs: object, tokens: list[str], asked: list[bool] | None = None) -> tuple[list[float], dict[str, int]]:
    scheme = RatingsList(0.0, 0, False)
    item = next(scheme.ask("x", tokens, np.array(asked or [False] + [True] * (len(tokens) - 1))))
    ratings = scheme.read(item, Answer(pairs if isinstance(pairs, str) else json.dumps(pairs)))
    return ratings.strengths.tolist(), ratings.faults


@given(st.lists(st.text(max_size=6), min_size=2, max_size=12), st.data())
def test_a_faithful_list_is_read_at_every_token(tokens: list[str], data: st.DataObject) -> None:
    ratings = data.draw(st.lists(st.integers(0, 9), min_size=len(tokens), max_size=len(tokens)))
    strengths, faults = rated([list(pair) for pair in zip(tokens, ratings, strict=True)], tokens)
    assert strengths == ratings[1:]
    assert faults == {}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("", "malformed"),
        ("[", "malformed"),
        ('{"a": 1}', "malformed"),
        ("I would rather not.", "malformed"),
        ([["a", 0], ["b", 9]], "wrong count"),
        ([["a", 0], ["b", 9], ["c", 1], ["d", 1]], "wrong count"),
        ("[" * 100_000, "malformed"),
    ],
)
def test_an_answer_that_is_no_list_of_this_text_is_missing_whole(reply: object, kind: str) -> None:
    strengths, faults = rated(reply, ["a", "b", "c"])
    assert np.isnan(strengths).all()
    assert faults == {kind: 2}


@pytest.mark.parametrize(
    "pair", [["x", 3], ["b", 10], ["b", -1], ["b", True], ["b", 2.5], ["b", "x"], ["b", "10"], ["b"], "b", None]
)
def test_a_pair_that_is_not_about_its_token_is_missing_alone(pair: object) -> None:
    strengths, faults = rated([["a", 0], pair, ["c", 4]], ["a", "b", "c"])
    assert np.isnan(strengths[0]) and strengths[1] == 4
    assert faults == {"malformed": 1}


def test_a_list_in_a_code_fence_is_read_and_a_cut_one_is_not() -> None:
    fenced = "```json\n" + json.dumps([["a", 0], ["b", 5]]) + "\n```"
    assert rated(fenced, ["a", "b"]) == ([5.0], {})
    scheme = RatingsList(0.0, 0, False)
    item = next(scheme.ask("x", ["a", "b"], np.array([False, True])))
    assert scheme.read(item, Answer('[["a", 0], ["b", 5]]', whole=False)).faults == {"truncated": 1}


def test_the_expectation_is_over_the_digits_or_over_everything() -> None:
    digits = np.array([[0.2, 0, 0, 0.1, 0, 0, 0, 0, 0, 0.1]], dtype=np.float32)
    item = next(AllAtOnce(True).ask("x", ["a", "b"], np.array([False, True])))
    inside = AllAtOnce(True).read(item, Reading(digits))
    assert inside.strengths[0] == pytest.approx((0.1 * 3 + 0.1 * 9) / 0.4)
    assert (inside.zero[0], inside.outside[0]) == (pytest.approx(0.2), pytest.approx(0.6))
    paper = AllAtOnce(False).read(item, Reading(digits))
    assert paper.strengths[0] == pytest.approx(0.1 * 3 + 0.1 * 9)


@pytest.mark.parametrize("row", [[np.nan] * 10, [0.0] * 10, [0.5] * 10, [-0.1] + [0.1] * 9])
def test_probabilities_that_are_none_are_missing(row: list[float]) -> None:
    item = next(AllAtOnce(True).ask("x", ["a", "b", "c"], np.array([False, True, True])))
    reading = Reading(np.array([row, [0.1] * 10], dtype=np.float32))
    ratings = AllAtOnce(True).read(item, reading)
    assert np.isnan(ratings.strengths[0]) and ratings.strengths[1] == pytest.approx(4.5)
    assert ratings.faults == {"no log-probabilities": 1}


# --- the simulator ----------------------------------------------------------------------------------------------------


def text_of(windows: list[list[str]], asked: list[int] | None = None) -> Text:
    vocabulary = tuple(sorted({token for window in windows for token in window}))
    ids = np.array([vocabulary.index(token) for window in windows for token in window], dtype=np.int32)
    starts = np.cumsum([0, *map(len, windows)])
    mask = None if asked is None else np.isin(np.arange(len(ids)), asked)
    return Text(ids, starts, vocabulary, mask)


EXPLAINED = [Explanation(2, "cats"), Explanation(0, "dogs"), Explanation(1, None, "refusal: no")]


@pytest.mark.parametrize("scheme", [AllAtOnce(True), LastToken(True, 32)])
def test_every_asked_position_gets_the_answer_to_its_own_prompt(scheme: AllAtOnce | LastToken) -> None:
    text = text_of([["a", "b", "c"], ["d", "e"], ["b", "a", "c", "e"]], asked=[1, 2, 4, 7, 8])
    engine = FakeEngine()
    strengths = LanguageModelSimulator(EXPLAINED, 4, scheme, alone(engine, 4)).simulate(text)
    assert strengths.missing == {1: "refusal: no", 3: "no explanation"}
    values = strengths.values.toarray()
    stored = np.zeros(values.shape, dtype=bool)
    rows = np.repeat(np.arange(len(text.ids)), np.diff(strengths.values.indptr))
    stored[rows, strengths.values.indices] = True
    assert (stored == np.outer(text.counted(), [True, False, True, False])).all()
    windows = list(text.windows())
    for latent, explanation in ((0, "dogs"), (2, "cats")):
        for window, begin in zip(windows, text.starts, strict=False):
            asked = text.counted()[begin : begin + len(window)]
            for item in scheme.ask(explanation, window, asked):
                assert isinstance(item.request, Branches)
                for place, before in zip(item.places, before_branches(item.request), strict=True):
                    digits = digits_of(before).astype(float)
                    expected = digits @ np.arange(10) / digits.sum()
                    assert values[begin + place, latent] == pytest.approx(expected, rel=1e-5)


def test_a_fifth_of_faults_costs_a_fifth_of_the_predictions_and_nothing_becomes_0() -> None:
    windows = [[f"t{i}", "a", "b", "c"] for i in range(50)]
    kinds = ["timeout", "server error", "refusal", "malformed"]
    engine = FakeEngine(fail=lambda n: Fault(kinds[n // 5 % 4], "x") if n % 5 == 0 else None)  # type: ignore[arg-type]
    simulator = LanguageModelSimulator(EXPLAINED[:2], 3, AllAtOnce(True), alone(engine, 3))
    strengths = simulator.simulate(text_of(windows))
    whole = LanguageModelSimulator(EXPLAINED[:2], 3, AllAtOnce(True), alone(FakeEngine(), 3)).simulate(text_of(windows))
    lost = np.isnan(strengths.values.data)
    assert lost.sum() == 100 * 3 // 5 == sum(strengths.faults.values())
    assert set(strengths.faults) == set(kinds)
    assert (strengths.values.data[~lost] == whole.values.data[~lost]).all()
    assert not (strengths.values.data[lost] == 0).any()
    assert not np.isnan(whole.values.data).any()


@pytest.mark.parametrize(
    ("can", "expected"),
    [
        (ALL, "AllAtOnce"),
        (Abilities(True, 20, False, False, False, True), "LastToken"),
        (Abilities(True, 0, False, False, False, True), "RatingsList"),
    ],
)
def test_the_best_scheme_that_the_engine_can_serve_is_taken(can: Abilities, expected: str) -> None:
    assert type(choose_scheme(Settings(model="m"), FakeEngine(can=can))).__name__ == expected


def test_a_scheme_that_the_engine_cannot_serve_is_refused_before_any_call() -> None:
    engine = FakeEngine(can=Abilities(True, 20, False, False, False, True))
    with pytest.raises(UserError, match=r"scheme = all_at_once: .* can serve: last_token, ratings_list$"):
        choose_scheme(Settings(model="m", scheme="all_at_once"), engine)
    assert engine.asked == []


@pytest.mark.parametrize(
    "text",
    [
        'Here they are:\n[["a", 0], ["b", 5]]\nAs asked.',
        '```JSON\n[["a", 0], ["b", 5]]\n```',
        '[["a", 0], ["b", 5],]',
        '[["a", 0.0], ["b", 5.0]]',
        '[["a", "0"], ["b", "5"]]',
    ],
)
def test_the_form_of_a_list_is_forgiven(text: str) -> None:
    assert rated(text, ["a", "b"]) == ([5.0], {})


def test_a_list_that_slipped_by_one_is_not_read_where_a_token_repeats() -> None:
    tokens = ["a", "b", "b", "c"]
    strengths, faults = rated([["a", 0], ["a", 1], ["b", 9], ["b", 2]], tokens)
    assert np.isnan(strengths).all() and faults == {"malformed": 3}


def test_a_rating_of_thousands_of_digits_is_missing() -> None:
    strengths, faults = rated(f'[["a", 0], ["b", {"9" * 5000}]]', ["a", "b"])
    assert np.isnan(strengths).all() and sum(faults.values()) == 1


def test_a_list_is_read_after_the_thought_only() -> None:
    thought = '<think>[["a", 1], ["b", 1]]</think>[["a", 0], ["b", 5]]'
    assert rated(thought, ["a", "b"]) == ([5.0], {})
    assert rated('<think>[["a", 1], ["b", 1]]', ["a", "b"])[1] == {"truncated": 1}
