"""The openai engine: against a real llama.cpp server, and against a server that fails in every way we know."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import SINGLE, WHOLE, FaultServer, answer_of, at_random, digits_of, fault_server, prompts_of
from servers import counting_proxy, llama_server

from rewrite import plugins
from rewrite.config import UserError
from rewrite.encoding import Encoder
from rewrite.engines.base import VOCABULARY, Answer, Engine, Fault, Question, Reading, Slots, Spent
from rewrite.engines.openai import OpenAI, Settings, build, pacing
from rewrite.engines.openai.pacing import Pace, read_retry_after
from rewrite.prompting import Message

pytestmark = pytest.mark.timeout(120)

MARKER = "sk-5f1c9e-never-shown"
KINDS = {
    "too many": "server error",
    "broken": "server error",
    "hang": "timeout",
    "cut": "server error",
    "truncated": "malformed",
    "html": "malformed",
    "fewer": "malformed",
    "no logprobs": "no log-probabilities",
    "nan": "no log-probabilities",
    "refusal": "refusal",
    "too long": "too long",
}
TRANSIENT = WHOLE


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", MARKER)
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as state:
        yield state


def ask(number: int) -> Slots:
    return Slots((Message("system", "Rate it."), Message("user", f"text {number}")))


def prompt_of(request: Slots) -> str:
    return json.dumps([{"role": m.role, "content": m.content} for m in request.messages])


def engine(server: FaultServer, **settings: Any) -> OpenAI:
    return build("small", Settings.model_validate({"base_url": server.base_url, "timeout": 5, "retries": 0} | settings))


def fail_first(fault: str, times: int = 1) -> Any:
    return lambda prompt, tries: fault if tries < times else ""


def show(*things: object) -> str:
    return " ".join(f"{thing!r} {thing}" for thing in things)


def test_good_answers_by_text(server: FaultServer) -> None:
    requests = [ask(i) for i in range(20)]
    mine = engine(server)
    found = dict(mine.read(requests))
    assert isinstance(mine, Engine)
    for index, request in enumerate(requests):
        reading = found[index]
        assert isinstance(reading, Reading)
        np.testing.assert_allclose(reading.digits, digits_of(prompt_of(request))[None], rtol=1e-12)
        assert reading.spent.calls == 1 and reading.spent.tokens_in > 0 and reading.spent.retried == 0
    body = server.arrivals[0].body
    assert (body["model"], body["max_tokens"], body["logprobs"], body["top_logprobs"]) == ("small", 1, True, 20)


@pytest.mark.parametrize("fault", sorted(KINDS))
def test_each_fault_has_its_kind(server: FaultServer, fault: str) -> None:
    server.choose = lambda prompt, tries: fault
    ((index, outcome),) = engine(server, timeout=0.3).read([ask(0)])
    assert index == 0
    assert isinstance(outcome, Fault) and outcome.kind == KINDS[fault]
    assert outcome.detail and outcome.spent.calls == 1
    assert len(server.arrivals) == 1


@pytest.mark.parametrize("fault", TRANSIENT)
def test_transient_faults_are_survived(server: FaultServer, fault: str) -> None:
    server.choose = fail_first(fault, 2)
    ((_, outcome),) = engine(server, timeout=0.3, retries=2).read([ask(0)])
    assert isinstance(outcome, Reading) and outcome.spent.retried == 2
    assert len(server.arrivals) == 3


@pytest.mark.parametrize("fault", [*SINGLE, "too long"])
def test_what_stays_wrong_is_not_tried_again(server: FaultServer, fault: str) -> None:
    server.choose = lambda prompt, tries: fault
    ((_, outcome),) = engine(server, retries=5).read([ask(0)])
    assert isinstance(outcome, Fault) and outcome.kind == KINDS[fault]
    assert len(server.arrivals) == 1


@pytest.mark.parametrize("fault", ["broken", "hang", "cut", "truncated", "html", "fewer", "refusal", "too long"])
def test_faults_of_questions(server: FaultServer, fault: str) -> None:
    server.choose = lambda prompt, tries: fault
    ((_, outcome),) = engine(server, timeout=0.3).generate([Question(ask(0).messages, 50)])
    assert isinstance(outcome, Fault) and outcome.kind == KINDS[fault]


def test_a_fifth_of_faults_loses_no_good_answer(server: FaultServer) -> None:
    server.choose = at_random(0.2)
    requests = [ask(i) for i in range(150)]
    found = dict(engine(server, timeout=1).read(requests))
    assert sorted(found) == list(range(150))
    faults = {i: outcome for i, outcome in found.items() if isinstance(outcome, Fault)}
    assert 15 <= len(faults) <= 45
    for index, request in enumerate(requests):
        fault = server.choose(prompt_of(request), 0)
        outcome = found[index]
        if fault:
            assert isinstance(outcome, Fault) and outcome.kind == KINDS[fault], (fault, outcome)
        else:
            assert isinstance(outcome, Reading)
            np.testing.assert_allclose(outcome.digits[0], digits_of(prompt_of(request)), rtol=1e-12)


def test_a_fifth_of_faults_is_outlasted_where_they_pass(server: FaultServer) -> None:
    server.choose = at_random(0.2, [f for f in TRANSIENT if f != "hang"])
    requests = [ask(i) for i in range(100)]
    found = dict(engine(server, retries=8).read(requests))
    assert all(isinstance(outcome, Reading) for outcome in found.values())
    retried = sum(outcome.spent.retried for outcome in found.values())
    assert retried == len(server.arrivals) - 100 > 0


def test_concurrency_changes_nothing_but_the_time(server: FaultServer) -> None:
    server.choose = at_random(0.2, ["broken", "nan", "html"])
    requests = [ask(i) for i in range(60)]
    alone = dict(engine(server, concurrency=1, retries=0).read(requests))
    assert server.at_once == 1
    server.tries.clear()
    many = dict(engine(server, concurrency=16, retries=0).read(requests))
    assert alone.keys() == many.keys()
    for index, outcome in alone.items():
        other = many[index]
        if isinstance(outcome, Fault):
            assert outcome == other
        else:
            assert isinstance(other, Reading)
            np.testing.assert_array_equal(outcome.digits, other.digits)
    assert 1 < server.at_once <= 16


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(server: FaultServer, form: str) -> None:
    def choose(prompt: str, tries: int) -> str:
        asked = datetime.now(UTC) + timedelta(seconds=2)  # HTTP dates have whole seconds: at least 1 s is left.
        server.retry_after = "1" if form == "seconds" else format_datetime(asked, usegmt=True)
        return "" if tries else "too many"

    server.choose = choose
    ((_, outcome),) = engine(server, retries=1).read([ask(0)])
    assert isinstance(outcome, Reading) and outcome.spent.retried == 1
    first, second = (arrival.at for arrival in server.arrivals)
    assert second - first >= 0.95


def test_one_that_must_wait_holds_all(server: FaultServer) -> None:
    struck = prompt_of(ask(0))
    server.choose = lambda prompt, tries: "too many" if prompt == struck and not tries else ""
    server.retry_after = "1"
    found = dict(engine(server, retries=1, concurrency=2).read([ask(i) for i in range(60)]))
    assert all(isinstance(outcome, Reading) for outcome in found.values())
    gaps = np.diff([arrival.at for arrival in server.arrivals])
    assert gaps.max() >= 0.9 and gaps.argmax() < 40  # Else the other worker would have asked all the rest meanwhile.


def test_a_server_that_asks_for_hours_is_not_waited_for(server: FaultServer) -> None:
    server.choose = fail_first("too many")
    server.retry_after = "86400"
    ((_, outcome),) = engine(server, retries=3).read([ask(0)])
    assert isinstance(outcome, Fault) and outcome.kind == "server error" and len(server.arrivals) == 1


def test_retry_after_headers() -> None:
    assert read_retry_after("7") == 7
    assert read_retry_after(None) is None
    assert read_retry_after("soon") is None and read_retry_after("-1") is None and read_retry_after("nan") is None
    assert read_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_pace_keeps_both_limits() -> None:
    now = [0.0]
    pace = Pace(60, 6000, clock=lambda: now[0])
    assert pace.reserve(10) == 0
    assert pace.reserve(1000) == pytest.approx(1)  # One request a second,
    assert pace.reserve(10) == pytest.approx(11)  # and 1000 tokens take ten.
    now[0] = 100.0
    assert pace.reserve(10) == 0
    pace.hold(30.0)
    assert pace.reserve(10) == pytest.approx(30)
    free = Pace(0, 0, clock=lambda: now[0])
    assert [free.reserve(10**9) for _ in range(3)] == [0, 0, 0]


def test_requests_a_minute_are_seen_by_the_server(server: FaultServer) -> None:
    list(engine(server, requests_per_minute=600).read([ask(i) for i in range(11)]))
    times = sorted(arrival.at for arrival in server.arrivals)
    assert times[-1] - times[0] >= 0.6  # 10 gaps of 0.1 s, less what the first request took to get there.


def test_the_key_is_shown_to_the_server_only(server: FaultServer) -> None:
    mine = engine(server)
    server.choose = at_random(1.0, ["broken", "html", "cut", "too long"])
    outcomes = list(mine.read([ask(i) for i in range(12)])) + list(mine.generate([Question(ask(0).messages, 5)]))
    assert {arrival.key for arrival in server.arrivals} == {f"Bearer {MARKER}"}
    assert any("[key]" in show(outcome) for outcome in outcomes)
    assert MARKER not in show(mine, mine.can, mine.identity, mine.settings, vars(mine), *outcomes)


@pytest.mark.parametrize(
    ("fault", "said"), [("wrong key", "OPENAI_API_KEY"), ("unknown model", "small"), ("no money", "nothing left")]
)
def test_what_the_user_can_mend_is_said_in_one_line(server: FaultServer, fault: str, said: str) -> None:
    server.choose = lambda prompt, tries: fault
    with pytest.raises(UserError, match=said) as caught:
        list(engine(server, retries=3).read([ask(0)]))
    assert MARKER not in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.arrivals) == 1


def test_keys_that_are_not_there(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert isinstance(dict(engine(server).read([ask(0)]))[0], Reading)
    with pytest.raises(UserError, match="OTHER_KEY"):
        list(build("small", Settings(key_variable="OTHER_KEY")).read([ask(0)]))
    with pytest.raises(UserError, match="NAME of an environment variable") as caught:
        plugins.settings("engines", "openai", {"key_variable": MARKER})
    assert MARKER not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", f"{MARKER}\nand more")
    with pytest.raises(UserError, match="cannot be a key") as caught:
        list(engine(server).read([ask(0)]))
    assert MARKER not in str(caught.value)


def test_a_server_that_is_not_there() -> None:
    with fault_server() as gone:
        address = gone.base_url.replace("http://", "http://me:secret@")
    with pytest.raises(UserError, match=r"engines\.openai\.base_url = http://127") as caught:
        list(build("small", Settings(base_url=address, retries=1)).read([ask(0)]))
    assert "secret" not in str(caught.value)


def test_slots_within_an_answer_need_a_tokenizer(server: FaultServer) -> None:
    with pytest.raises(UserError, match=r"engines\.openai\.tokenizer"):
        list(engine(server).read([Slots(ask(0).messages, ("a", "b"))]))
    assert not server.arrivals


def test_closing_early_cancels_what_is_in_flight(server: FaultServer) -> None:
    first = prompt_of(ask(0))
    server.choose = lambda prompt, tries: "" if prompt == first else "hang"
    before = threading.active_count()
    answers = engine(server, timeout=60, concurrency=4).read([ask(i) for i in range(50)])
    assert next(answers)[0] == 0
    answers.close()
    assert not [t for t in threading.enumerate() if t.name == "requests"]
    assert len(server.arrivals) <= 5
    assert threading.active_count() <= before + 5  # The server's own, which hang.


def test_answers_of_questions(server: FaultServer) -> None:
    schema = '{"type": "object"}'
    question = Question(ask(1).messages, 30, seed=4, stop=("END",), schema=schema, temperature=0.5)
    ((_, answer),) = engine(server, model="served").generate([question])
    assert answer == Answer(answer_of(prompt_of(ask(1))))
    body = server.arrivals[0].body
    assert (body["model"], body["max_tokens"], body["seed"], body["stop"]) == ("served", 30, 4, ["END"])
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    list(engine(server, json_schema=False).generate([question]))
    assert "response_format" not in server.arrivals[1].body


# Prompts as token ids


def many_slots(number: int, slots: int = 5) -> Slots:
    pieces = tuple(f"word{number}{i}\t" for i in range(slots))
    return Slots((Message("system", "Rate it."), Message("user", f"text {number}")), pieces)


def expected(encoder: Encoder, request: Slots) -> np.ndarray:
    encoded = encoder.slots(request)
    return np.array([digits_of(json.dumps(encoded.ids[:end].tolist())) for end in encoded.ends])


@pytest.mark.parametrize("size", [1, 3, 64])
def test_lists_of_prompts(server: FaultServer, tiny_model: Path, size: int) -> None:
    requests = [many_slots(i, 1 + i % 4) for i in range(9)]
    encoder = Encoder(str(tiny_model))
    mine = engine(server, tokenizer=str(tiny_model), list_size=size)
    found = dict(mine.read(requests))
    for index, request in enumerate(requests):
        reading = found[index]
        assert isinstance(reading, Reading)
        np.testing.assert_allclose(reading.digits, expected(encoder, request), rtol=1e-12)
        assert replace_processed(reading.spent) == replace_processed(mine.estimate(request))
    assert max(len(arrival.prompts) for arrival in server.arrivals) == min(size, 21)
    assert sum(len(arrival.prompts) for arrival in server.arrivals) == 21
    assert server.arrivals[0].body["logprobs"] == 20


def replace_processed(spent: Spent) -> tuple[int, int, int]:
    return spent.calls, spent.tokens_in, spent.tokens_out


def test_one_prompt_that_is_too_long_does_not_cost_its_list(server: FaultServer, tiny_model: Path) -> None:
    requests = [many_slots(i, 1) for i in range(8)]
    encoder = Encoder(str(tiny_model))
    ids = json.dumps(encoder.slots(requests[5]).ids.tolist())
    server.choose = lambda prompt, tries: "too long" if prompt == ids else ""
    found = dict(engine(server, tokenizer=str(tiny_model)).read(requests))
    assert [i for i, outcome in found.items() if isinstance(outcome, Fault)] == [5]
    assert isinstance(found[5], Fault) and found[5].kind == "too long"


def test_a_fault_at_one_slot_is_a_fault_of_its_request_alone(server: FaultServer, tiny_model: Path) -> None:
    requests = [many_slots(i) for i in range(6)]
    encoded = Encoder(str(tiny_model)).slots(requests[2])
    ids = json.dumps(encoded.ids[: encoded.ends[3]].tolist())
    server.choose = lambda prompt, tries: "nan" if prompt == ids else ""
    found = dict(engine(server, tokenizer=str(tiny_model)).read(requests))
    assert {i: outcome.kind for i, outcome in found.items() if isinstance(outcome, Fault)} == {
        2: "no log-probabilities"
    }
    assert found[2].spent.calls == 5


def test_a_tokenizer_of_another_model_is_found_out(server: FaultServer, tiny_model: Path) -> None:
    from rewrite.engines.openai.replies import find_digits

    ids = Encoder(str(tiny_model)).digits.tolist()
    entries = [{"token": "x", "id": ids[3], "logprob": -1.0}]
    with pytest.raises(UserError, match=r"engines\.openai\.tokenizer"):
        find_digits({"logprobs": {"content": [{"top_logprobs": entries}]}}, ids)
    with pytest.raises(UserError, match="by their token ids"):
        find_digits({"logprobs": {"top_logprobs": [{"3": -1.0}]}}, ids, exact=True)


def test_digits_that_are_not_among_the_top_count_zero() -> None:
    from rewrite.engines.openai.replies import find_digits

    found = find_digits({"logprobs": {"top_logprobs": [{"3": np.log(0.5), " 4": -1.0, "12": -3.0}]}}, None)
    np.testing.assert_allclose(found, [0, 0, 0, 0.5, 0, 0, 0, 0, 0, 0])
    none = find_digits({"logprobs": {"top_logprobs": [{" 4": -1.0}]}}, None)
    assert isinstance(none, Fault) and none.kind == "no log-probabilities"
    much = find_digits({"logprobs": {"top_logprobs": [{"3": -0.1, "4": -0.1}]}}, None)
    assert isinstance(much, Fault) and "sum" in much.detail


def test_a_server_like_vllm_is_asked_by_ids(server: FaultServer, tiny_model: Path) -> None:
    server.owner = "vllm"
    mine = engine(server, tokenizer=str(tiny_model))
    assert isinstance(dict(mine.read([many_slots(0)]))[0], Reading)
    body = server.arrivals[0].body
    assert body["logprob_token_ids"] == Encoder(str(tiny_model)).digits.tolist() and body["logprobs"] == 10


def test_what_it_says_of_itself(server: FaultServer, tiny_model: Path) -> None:
    plain, exact = engine(server), engine(server, tokenizer=str(tiny_model), digits="all")
    assert (plain.can.begun, plain.can.logprobs, plain.can.chat) == (False, 20, True)
    assert (exact.can.begun, exact.can.logprobs, exact.can.prompt_logprobs) == (True, VOCABULARY, False)
    assert server.base_url not in show(exact.identity)
    assert {"base_url", "key_variable", "retries", "list_size"} <= Settings.operational <= set(Settings.model_fields)
    assert engine(server, revision="b").identity != engine(server, revision="a").identity
    assert plain.estimate(Question(ask(0).messages, 9)) == Spent(1, 2 + 4 + 2 + 4, 9, 12)
    assert not server.arrivals


# A real server


@pytest.fixture(scope="module")
def llama(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with llama_server(tiny_model, tmp_path_factory.mktemp("llama")) as url:
        yield url


def real(url: str, **settings: Any) -> OpenAI:
    return build("tiny", Settings.model_validate({"base_url": url, "retries": 0, "timeout": 60} | settings))


def digits_by_transformers(folder: Path, requests: Sequence[Slots]) -> list[np.ndarray]:
    import torch
    from transformers import AutoModelForCausalLM

    model, encoder = AutoModelForCausalLM.from_pretrained(folder).float().eval(), Encoder(str(folder))
    rows = []
    for request in requests:
        encoded = encoder.slots(request)
        with torch.no_grad():
            logits = model(torch.from_numpy(encoded.ids)[None]).logits[0, encoded.ends - 1]
        rows.append(torch.softmax(logits, -1)[:, encoder.digits].numpy())
    return rows


def test_llama_cpp_agrees_with_transformers(llama: str, tiny_model: Path) -> None:
    requests = [many_slots(i, 6) for i in range(4)]
    found = dict(real(llama, tokenizer=str(tiny_model)).read(requests))
    alone = dict(real(llama, tokenizer=str(tiny_model), concurrency=1, list_size=1).read(requests))
    for index, theirs in enumerate(digits_by_transformers(tiny_model, requests)):
        ours, again = found[index], alone[index]
        assert isinstance(ours, Reading) and isinstance(again, Reading)
        assert ours.digits.min() > 0
        shares = ours.digits / ours.digits.sum(1, keepdims=True)
        np.testing.assert_allclose(shares, theirs / theirs.sum(1, keepdims=True), atol=1e-3)  # 1e-6 was seen.
        np.testing.assert_allclose(ours.digits, theirs, rtol=1e-2)
        np.testing.assert_allclose(again.digits, ours.digits, rtol=1e-2)


def test_llama_cpp_chats(llama: str, tiny_model: Path) -> None:
    question = Question(ask(0).messages, 12)
    by_text = dict(real(llama).generate([question, question]))
    assert by_text[0] == by_text[1]
    assert isinstance(by_text[0], Answer) and by_text[0].text and not by_text[0].whole
    assert by_text[0].spent.tokens_out == 12
    by_ids = dict(real(llama, tokenizer=str(tiny_model)).generate([question, Question(ask(0).messages, 12, "an ")]))
    assert isinstance(by_ids[0], Answer) and isinstance(by_ids[1], Answer)
    assert by_ids[0].text and by_ids[1].text and by_ids[0].text != by_ids[1].text


@pytest.mark.parametrize("by_ids", [False, True])
def test_llama_cpp_holds_to_a_schema(llama: str, tiny_model: Path, by_ids: bool) -> None:
    schema = json.dumps({"type": "array", "items": {"enum": [1, 2]}, "minItems": 3, "maxItems": 3})
    mine = real(llama, **({"tokenizer": str(tiny_model)} if by_ids else {}))
    ((_, answer),) = mine.generate([Question(ask(0).messages, 400, schema=schema, temperature=1.0, seed=1)])
    assert isinstance(answer, Answer) and answer.whole
    assert len(json.loads(answer.text)) == 3 and set(json.loads(answer.text)) <= {1, 2}


def test_llama_cpp_reads_text_at_the_beginning_of_an_answer(llama: str) -> None:
    ((_, few),) = real(llama).read([ask(0)])
    assert isinstance(few, Fault) and few.kind == "no log-probabilities"  # A model of random weights: no digit on top.
    ((_, whole),) = real(llama, logprobs=4096).read([ask(0)])
    assert isinstance(whole, Reading) and whole.digits.min() > 0 and whole.digits.sum() < 1


def test_prompts_too_long_for_llama_cpp(llama: str, tiny_model: Path) -> None:
    long = Slots((Message("user", "word " * 6000),))
    found = dict(real(llama, tokenizer=str(tiny_model)).read([ask(0), long, ask(1)]))
    assert isinstance(found[1], Fault) and found[1].kind == "too long"
    assert isinstance(found[0], Reading) and isinstance(found[2], Reading)


def test_the_proxy_counts_every_prompt_once(llama: str, tiny_model: Path) -> None:
    requests = [many_slots(i, 3) for i in range(4)]
    with counting_proxy(llama) as counts:
        found = dict(real(counts.base_url, tokenizer=str(tiny_model), list_size=5).read(requests))
        list(real(counts.base_url).generate([Question(ask(0).messages, 2)]))
    assert all(isinstance(outcome, Reading) for outcome in found.values())
    assert counts.total == len(counts.prompts) == 13
    assert counts.requests == 4 and counts.flying == 0
    assert prompts_of({"prompt": [1, 2]}) == ["[1, 2]"]
