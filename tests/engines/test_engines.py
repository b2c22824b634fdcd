"""One suite for every engine of the folder: same prompts → same digit probabilities, each beside a plain forward pass.

The reference is made of the tokenizer and the model alone: one forward over the whole prompt for each slot.
Probabilities are compared as shares among the digits, and in total as a ratio: with random weights a digit has about
1/512, so that a plain difference would say nothing.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float
from makers.ways import WAYS, Reference, Way, build_engine, read

from rewrite.config import UserError
from rewrite.engines.base import Answer, Branches, Engine, Fault, Question, Reading
from rewrite.engines.prompting import Message
from rewrite.run import plugins

pytestmark = pytest.mark.timeout(300)


NAMES = [
    pytest.param(name, marks=pytest.mark.slow if "openai" in name else ())
    for name in sorted({*plugins.names("engines"), *WAYS})
]


@pytest.fixture(scope="module", params=NAMES)
def way(request: pytest.FixtureRequest, terse_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    assert request.param in WAYS, f"the engine {request.param} is not tested: add a way to open it here"
    with ExitStack() as stack:
        yield stack.enter_context(WAYS[request.param](terse_model, tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def reference(terse_model: Path) -> Reference:
    return Reference(terse_model)


INSTRUCTIONS = "Rate each token from 0 to 9. " * 12
WINDOWS = (
    ("import", " os", "\\n", "1", " def", " \\t", "é"),
    (" for", " x", " in", "(", "3", " ü"),
    ("class",),
)


def prompt(explanation: str, window: tuple[str, ...]) -> Branches:
    """A prompt as the scheme all_at_once lays it out."""
    return Branches((Message("system", INSTRUCTIONS), Message("user", f"Explanation: {explanation}")), window, " => ")


PROMPTS = [prompt(explanation, window) for explanation in ("numbers", "names of\n modules") for window in WINDOWS]
# The last token of a text, as the scheme last_token asks for it; nothing but a trunk; and a turn of its own at each
# word.
PROMPTS += [
    Branches(PROMPTS[0].messages),
    Branches(PROMPTS[0].messages, ("import", " os")),
    Branches(PROMPTS[0].messages, (" text:", " an", " import", " os"), turn=True),
    Branches(PROMPTS[0].messages, (" text:", " an", " import"), "It is ", turn=True),
]


def agree(found: Float[np.ndarray, "branch 10"], expected: Float[np.ndarray, "branch 10"], tolerance: float) -> None:
    """The digits' shares among themselves, and their sum, are the same."""
    inside, wanted = found.sum(1, keepdims=True), expected.sum(1, keepdims=True)
    np.testing.assert_allclose(found / inside, expected / wanted, rtol=0, atol=tolerance)
    np.testing.assert_allclose(inside / wanted, 1, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_digits_are_those_of_a_plain_forward(way: Way, reference: Reference) -> None:
    for request, reading in zip(PROMPTS, read(way.engine, PROMPTS), strict=True):
        assert reading.digits.shape == (len(request.pieces), 10)
        agree(reading.digits.astype(float), reference.digits(request), way.tolerance)


def test_the_reference_tells_branches_apart(reference: Reference) -> None:
    """What the tolerance must be small beside: different branches, explanations and windows differ by far more.
    By how much depends on the Python: the model's vocabulary is learned from its library."""
    first, second = (reference.digits(PROMPTS[number]) for number in (0, 3))
    shares = first / first.sum(1, keepdims=True)
    assert np.median(np.abs(np.diff(shares, axis=0)).max(1)) > 0.03
    assert np.abs(shares - second / second.sum(1, keepdims=True)).max() > 0.04


def test_all_branches_at_once_are_each_by_itself(way: Way) -> None:
    """The same trunk asked up to branch i only."""
    whole = PROMPTS[0]
    each = [replace(whole, pieces=whole.pieces[: number + 1]) for number in range(len(whole.pieces))]
    tolerance = 1e-4 if way.engine.can.prompt_logprobs else way.tolerance
    (together,) = read(way.engine, [whole])
    for number, one in enumerate(read(way.engine, each)):
        agree(together.digits[number : number + 1].astype(float), one.digits[-1:].astype(float), tolerance)


def test_answers_do_not_depend_on_company_or_order(way: Way) -> None:
    some = [PROMPTS[1], PROMPTS[2], PROMPTS[6], PROMPTS[8]]
    together = read(way.engine, some)
    backwards = read(way.engine, some[::-1])[::-1]
    doubled = read(way.engine, [some[1], *some, some[1]])[1:-1]
    tolerance = 1e-4 if way.tolerance < 1e-2 else way.tolerance
    for number, request in enumerate(some):
        (alone,) = read(way.engine, [request])
        for other in (together, backwards, doubled):
            agree(other[number].digits.astype(float), alone.digits.astype(float), tolerance)


def test_a_piece_without_a_branch_changes_nothing_that_is_read(way: Way) -> None:
    whole = PROMPTS[0]
    kept = [number for number in range(len(whole.pieces)) if number % 3 == 1]
    silent = tuple(number for number in range(kept[-1] + 1) if number not in kept)
    tolerance = 1e-4 if way.tolerance < 1e-2 else way.tolerance
    (every,) = read(way.engine, [whole])
    (some,) = read(way.engine, [replace(whole, pieces=whole.pieces[: kept[-1] + 1], silent=silent)])
    agree(some.digits.astype(float), every.digits[kept].astype(float), tolerance)


def test_no_requests_no_answers(way: Way) -> None:
    assert list(way.engine.read([])) == [] and list(way.engine.generate([])) == []


def test_too_long_is_a_fault_of_that_request_only(way: Way) -> None:
    long = Branches((Message("user", "word " * 6000),))
    found = dict(way.engine.read([PROMPTS[0], long, PROMPTS[1]]))
    assert isinstance(found[0], Reading) and isinstance(found[2], Reading)
    assert isinstance(found[1], Fault) and found[1].kind == "too long"


def test_greedy_answers_are_the_greedy_continuation(way: Way, reference: Reference) -> None:
    """Prompts of several lengths together, one with its answer begun, one with an answer shorter than the others'."""
    asked = [
        Question(PROMPTS[0].messages, 12),
        Question((Message("user", "What is it?"),), 9),
        Question((Message("user", "import os"),), 12, answer="class Thing:\n"),
    ]
    found = dict(way.engine.generate(asked))
    for number, question in enumerate(asked):
        answer = found[number]
        assert isinstance(answer, Answer), answer
        assert answer.text == reference.greedy(question) and not answer.whole
        assert answer.spent.tokens_out == question.max_tokens


def test_a_stop_text_ends_an_answer(way: Way, reference: Reference) -> None:
    question = Question(PROMPTS[0].messages, 12)
    continuation = reference.greedy(question)
    within = re.search("[A-Za-z]{3}", continuation[len(continuation) // 4 :])
    assert within, "the continuation is too strange to be stopped: change the question"
    stop = within.group()
    ((_, answer),) = way.engine.generate([Question(PROMPTS[0].messages, 12, stop=(stop,))])
    assert isinstance(answer, Answer) and answer.whole
    assert answer.text == continuation[: continuation.index(stop)]


def test_sampling_is_named_by_its_seed(way: Way) -> None:
    def sampled(seed: int) -> Question:
        return Question(PROMPTS[0].messages, 8, temperature=1.0, seed=seed)

    found = dict(way.engine.generate([sampled(seed) for seed in range(4)]))
    texts = [answer.text for answer in found.values() if isinstance(answer, Answer)]
    assert len(texts) == 4 and len(set(texts)) > 1
    ((_, alone),) = way.engine.generate([sampled(3)])
    assert alone == found[3]


def test_estimates_are_what_is_billed(way: Way) -> None:
    readings = read(way.engine, PROMPTS)
    for request, reading in zip(PROMPTS, readings, strict=True):
        estimate = way.engine.estimate(request)
        assert reading.spent.tokens_in == estimate.tokens_in > 0
        assert reading.spent.calls == estimate.calls > 0
        assert 0 <= reading.spent.processed <= estimate.processed
    question = Question(PROMPTS[0].messages, 6)
    ((_, answer),) = way.engine.generate([question])
    assert answer.spent.tokens_in == way.engine.estimate(question).tokens_in
    assert answer.spent.tokens_out <= way.engine.estimate(question).tokens_out == 6


def test_what_it_says_of_itself(way: Way) -> None:
    can = way.engine.can
    assert can.chat and can.begun and can.logprobs > 0
    assert isinstance(way.engine, Engine)
    identity = dict(way.engine.identity)
    assert identity["engine"] == way.name and all(isinstance(value, str) for value in identity.values())
    assert json.loads(json.dumps(identity)) == identity


def test_digits_that_are_not_single_tokens_are_refused_by_name(terse_model: Path, tmp_path: Path) -> None:
    """Splitting a digit by the pre-tokenizer's own means: a marker is put before every 7, so that it is two tokens."""
    folder = tmp_path / "spoilt"
    shutil.copytree(terse_model, folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "7"}, "content": "#7"}
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="the digit 7 is 2 tokens") as caught:
        list(build_engine("transformers", str(folder)).read(PROMPTS[:1]))
    assert "\n" not in str(caught.value)
    # A model that cannot be read can still be asked.
    ((_, answer),) = build_engine("transformers", str(folder)).generate([Question(PROMPTS[0].messages, 3)])
    assert isinstance(answer, Answer)
