"""The vllm engine: against transformers and `vllm serve`, which only `make test-vllm` installs, and against a vLLM that
breaks, which is a stand-in and runs everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from makers.fake_vllm import FakeLlm

import rewrite.engines.vllm.build as engine_module
import rewrite.engines.vllm.loading as vllm_loading
from rewrite.config import UserError
from rewrite.engines.base import Answer, Branches, Engine, Fault, Question, Reading
from rewrite.engines.encoding import Encoder
from rewrite.engines.ledger import Spent
from rewrite.engines.prompting import Message
from rewrite.engines.vllm import Settings
from rewrite.engines.vllm.build import VllmEngine, build
from rewrite.engines.vllm.loading import Launch

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed here: make test-vllm has it")

SYSTEM = Message("system", "You rate how strongly a latent responds to each token. " * 20)
LINES = ("\n", "\nThe\t", "\n dog\t", "\n 9\t", "\n\\t\t")


def rating(explanation: str, lines: int = 40) -> Branches:
    """Branches within an answer, after a beginning that all explanations share."""
    pieces = ("The\t", *(LINES[1 + n % 4] for n in range(lines - 1)))
    return Branches((SYSTEM, Message("user", f"Explanation: {explanation}")), pieces)


RATINGS = [rating("dogs"), rating("dogs and cats", 7), Branches((Message("user", "A digit:"),)), rating("numbers", 3)]
LONG = Branches((Message("user", "x y " * 5000),))


def readings(engine: Engine, requests: Sequence[Branches]) -> list[Reading]:
    replies = dict(engine.read(requests))
    assert sorted(replies) == list(range(len(requests)))
    found = [replies[number] for number in range(len(requests))]
    assert all(isinstance(reply, Reading) for reply in found), found
    return [reply for reply in found if isinstance(reply, Reading)]


def assert_same(some: Sequence[Reading], others: Sequence[Reading]) -> None:
    """Within a thousandth of each probability: with random weights the digits themselves are about a thousandth."""
    for one, other in zip(some, others, strict=True):
        np.testing.assert_allclose(one.digits, other.digits, rtol=1e-3, atol=0)


def spent(some: Sequence[Reading]) -> Spent:
    return sum((reading.spent for reading in some), Spent())


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The openai engine on `vllm serve`, with the model's tokenizer."""
    from makers.vllm_server import vllm_server

    from rewrite.engines import openai
    from rewrite.engines.openai.build import build

    with vllm_server(tiny_model, tmp_path_factory.mktemp("serve")) as base_url:
        yield build("tiny", openai.Settings(base_url=base_url, tokenizer=str(tiny_model)))


@needs_vllm
@pytest.mark.timeout(300)
def test_digits_are_those_of_transformers(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    encoder = Encoder(str(tiny_model))
    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)

    def compute(request: Branches) -> Reading:
        encoded = encoder.branches(request)
        with torch.no_grad():
            logits = torch.stack([network(torch.tensor(ids)[None]).logits[0, -1] for ids in encoded.prompts()])
        return Reading(logits.double().softmax(-1)[:, encoder.digits].numpy())

    found = readings(build(str(tiny_model), Settings()), RATINGS)
    assert [len(reading.digits) for reading in found] == [40, 7, 1, 3]
    assert np.ptp(found[0].digits[:, 3]) > 1e-4, "slots differ, so that one taken for another would be seen"
    assert_same(found, [compute(request) for request in RATINGS])


@needs_vllm
@pytest.mark.timeout(400)
def test_in_process_and_served_agree(tiny_model: Path, server: Engine) -> None:
    here, there = readings(build(str(tiny_model), Settings()), RATINGS), readings(server, RATINGS)
    assert_same(here, there)
    assert spent(here).calls == spent(there).calls == 51
    assert spent(here).tokens_in == spent(there).tokens_in


@needs_vllm
@pytest.mark.timeout(400)
def test_questions_in_process_and_served_agree(tiny_model: Path, server: Engine) -> None:
    messages = (SYSTEM, Message("user", "Say something."))
    schema = {"type": "array", "items": {"enum": ["a", "\t", '"9']}, "minItems": 5, "maxItems": 5}
    questions = [
        Question(messages, 12),
        Question(messages, 12, answer="The latent"),
        Question(messages, 100, schema=json.dumps(schema)),
    ]
    here, there = dict(build(str(tiny_model), Settings()).generate(questions)), dict(server.generate(questions))
    assert here == there
    held = here[2]
    assert isinstance(held, Answer) and held.whole
    assert len(json.loads(held.text)) == 5 and set(json.loads(held.text)) <= {"a", "\t", '"9'}
    assert not here[0].whole, "12 tokens are not the whole answer"  # type: ignore[union-attr]


@needs_vllm
@pytest.mark.timeout(400)
def test_reused_prefixes_change_no_digit(tiny_model: Path) -> None:
    requests = [rating(f"words like number {n}") for n in range(6)]
    reused = readings(build(str(tiny_model), Settings(batch=100)), requests)
    fresh = readings(build(str(tiny_model), Settings(prefix_reuse=False)), requests)
    assert_same(reused, fresh)
    assert spent(fresh).processed == spent(fresh).tokens_in == spent(reused).tokens_in
    assert spent(reused).processed < spent(fresh).processed / 8


@needs_vllm
@pytest.mark.timeout(300)
def test_only_what_fails_is_lost(tiny_model: Path) -> None:
    engine = build(str(tiny_model), Settings())
    replies = dict(engine.read([rating("dogs"), LONG, rating("cats")]))
    assert [type(replies[n]) for n in range(3)] == [Reading, Fault, Reading]
    assert replies[1].kind == "too long"  # type: ignore[union-attr]
    hello = (Message("user", "Hello"),)
    broken = Question(hello, 5, schema='{"type": ')
    answers = dict(engine.generate([Question(hello, 5), broken, Question(hello, 5000), Question(hello, 5, seed=1)]))
    assert [type(answers[n]) for n in range(4)] == [Answer, Fault, Fault, Answer]
    assert [answers[n].kind for n in (1, 2)] == ["server error", "too long"]  # type: ignore[union-attr]


@needs_vllm
@pytest.mark.timeout(300)
def test_a_prompt_may_fill_the_model(tiny_model: Path) -> None:
    engine = build(
        str(tiny_model), Settings(max_model_len=len(Encoder(str(tiny_model)).branches(RATINGS[2]).trunk) + 1)
    )
    assert isinstance(dict(engine.read(RATINGS[2:3]))[0], Reading)
    assert isinstance(dict(engine.read([Branches((Message("user", "A digit or two of them:"),))]))[0], Fault)


@needs_vllm
@pytest.mark.timeout(300)
def test_nothing_is_printed(tiny_model: Path) -> None:
    code = (
        "import sys; from rewrite.engines.vllm import Settings, build; from rewrite.engines.base import Branches;"
        "from rewrite.engines.prompting import Message;"
        "print(len(list(build.build(sys.argv[1], Settings()).read([Branches((Message('user', 'Hi'),))]))))"
    )
    root = Path(engine_module.__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code, str(tiny_model)], capture_output=True, text=True, cwd=root)
    assert (done.stdout, done.stderr) == ("1\n", "")


@needs_vllm
@pytest.mark.timeout(300)
def test_a_model_that_cannot_run_is_one_line(tiny_model: Path) -> None:
    with pytest.raises(UserError, match=r"^engine = vllm: cannot run .*max_model_len \(100000\) is greater.*$"):
        list(build(str(tiny_model), Settings(max_model_len=100_000)).read(RATINGS))


# What the real one cannot be made to do


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLlm:
    llm = FakeLlm()
    module: Any = ModuleType("vllm")
    module.SamplingParams = SimpleNamespace
    parameters: Any = ModuleType("vllm.sampling_params")
    parameters.StructuredOutputsParams = SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", parameters)
    monkeypatch.setattr(engine_module, "load", lambda launch: llm)
    return llm


@pytest.fixture
def engine(fake: FakeLlm, tiny_model: Path) -> VllmEngine:
    return VllmEngine(str(tiny_model), Settings(batch=50))


def test_branches_become_prompts_from_last_to_first_and_come_back_in_order(engine: VllmEngine, fake: FakeLlm) -> None:
    found = readings(engine, RATINGS)
    assert [reading.digits.shape for reading in found] == [(40, 10), (7, 10), (1, 10), (3, 10)]
    np.testing.assert_allclose(found[0].digits, 0.05)
    assert sum(map(len, fake.lists)) == 51 and max(map(len, fake.lists)) <= 50, "lists of up to `batch` prompts"
    for request in RATINGS:
        whole = Encoder(engine.model).branches(request)
        wanted = [ids.tolist() for ids in whole.prompts()][::-1]
        begins = [(prompts, prompts.index(wanted[0])) for prompts in fake.lists if wanted[0] in prompts]
        assert [prompts[first : first + len(wanted)] for prompts, first in begins] == [wanted], "together, last first"
    estimate = engine.estimate(RATINGS[3])
    assert found[3].spent == estimate == Spent(3, int(whole.lengths.sum()), 3, int(whole.lengths.sum()))


def test_a_vllm_that_breaks_is_started_anew(engine: VllmEngine, fake: FakeLlm, monkeypatch: pytest.MonkeyPatch) -> None:
    unloaded: list[bool] = []
    monkeypatch.setattr(engine_module, "unload", lambda: unloaded.append(True))
    fake.breaks = True
    replies = dict(engine.read(RATINGS[1:]))
    assert {reply.why for reply in replies.values()} == {"server error: out of memory"}  # type: ignore[union-attr]
    assert unloaded == [True], "what it had begun would be taken for answers to the next list"


def test_a_refused_prompt_fails_alone(engine: VllmEngine, fake: FakeLlm) -> None:
    questions = [Question((Message("user", text),), 9) for text in ("one", "two", "three")]
    fake.refused = Encoder(engine.model).question(questions[1]).tolist()
    replies = dict(engine.generate(questions))
    assert [replies[n] for n in (0, 2)] == [Answer("yes"), Answer("yes")]
    assert replies[1] == Fault("server error", "refused")


@pytest.mark.parametrize(("known", "logprob"), [(9, -3.0), (10, float("nan"))])
def test_missing_probabilities_are_never_zero(engine: VllmEngine, fake: FakeLlm, known: int, logprob: float) -> None:
    fake.known, fake.logprob = known, logprob
    (reply,) = dict(engine.read(RATINGS[:1])).values()
    assert isinstance(reply, Fault) and reply.kind == "no log-probabilities" and reply.spent.calls == 40


def test_what_it_says_of_itself(engine: VllmEngine, tiny_model: Path) -> None:
    assert engine.can.begun and engine.can.prefix_reuse and engine.can.chat and not engine.can.prompt_logprobs
    faster = VllmEngine(str(tiny_model), Settings(batch=7, memory=0.5, cpu_cache=3, prefix_reuse=False))
    assert faster.identity == engine.identity and not faster.can.prefix_reuse
    assert VllmEngine(str(tiny_model), Settings(dtype="bfloat16")).identity != engine.identity
    assert dict(engine.read([])) == {} and dict(engine.generate([])) == {}
    assert engine.estimate(Question((Message("user", "one"),), 9)).tokens_out == 9


def test_without_vllm_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^engine = vllm: needs vllm; install it: pip install 'rewrite-in-words\[vllm\]'$"
    ):
        build("anything", Settings())


def test_one_model_is_loaded_at_a_time(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    started: list[dict[str, Any]] = []

    def start(model: str, **options: Any) -> object:
        print("INFO", file=sys.stderr)
        if options["max_model_len"] == 1:
            raise ValueError("too short\nfor anything")
        started.append({"alive": len(vllm_loading._loaded), **options})
        return object()

    module: Any = ModuleType("vllm")
    module.LLM = start
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(os, "environ", {**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "0-1"})
    monkeypatch.setattr(vllm_loading, "_loaded", {})
    launch = Launch(str(tiny_model), "main", "auto", 0, 0.9, 2, True)
    assert vllm_loading.load(launch) is vllm_loading.load(launch)
    assert vllm_loading.load(Launch(str(tiny_model), "main", "bfloat16", 64, 0.9, 2, False)) is not None
    assert [options["alive"] for options in started] == [0, 0], "the first is freed before the second starts"
    assert [options["dtype"] for options in started] == ["float32", "bfloat16"], "vLLM's own auto would be bfloat16"
    assert [options["max_model_len"] for options in started] == [None, 64]
    assert started[0]["block_size"] == 32 and started[0]["kv_cache_memory_bytes"] == 2 << 30
    assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "0-1", "the user's own setting comes first"
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    with pytest.raises(UserError, match=r"^engine = vllm: cannot run .*tiny: too short$"):
        vllm_loading.load(Launch(str(tiny_model), "main", "float32", 1, 0.9, 2, True))
    assert not vllm_loading._loaded
