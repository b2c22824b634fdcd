"""The openai engine against a server that fails in every way we know."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
from makers.asking import MARKER, ask, engine, prompt_of, show
from makers.faults import SINGLE, WHOLE, FaultServer, answer_of, at_random, digits_of, fault_server

from rewrite.config import UserError
from rewrite.engines.base import Answer, Branches, Engine, Fault, Question, Reading
from rewrite.engines.openai import Settings
from rewrite.engines.openai.build import build
from rewrite.engines.openai.pacing import Pace, read_retry_after
from rewrite.run import plugins

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("key")]

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


def fail_first(fault: str, times: int = 1) -> Any:
    return lambda prompt, tries: fault if tries < times else ""


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
    tomorrow = (datetime.now() + timedelta(days=1)).strftime("%Y-%m-%d")
    with pytest.raises(UserError, match=f"wants no request until {tomorrow}") as caught:
        list(engine(server, retries=3, concurrency=1).read([ask(number) for number in range(9)]))
    assert len(server.arrivals) == 1 and "\n" not in str(caught.value)


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
    with pytest.raises(UserError, match=r"engines\.openai\.base_url = http://127.*no server answers there") as caught:
        list(build("small", Settings(base_url=address, retries=1)).read([ask(0)]))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", "/nowhere/certificates.pem"),
        ("HTTPS_PROXY", "socks5://127.0.0.1:9"),
        ("HTTPS_PROXY", "http://127.0.0.1:99999"),
    ],
)
def test_an_environment_that_allows_no_connection_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for other in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^engines\.openai: no connection can be made.*HTTPS_PROXY") as caught:
        list(build("small", Settings(base_url="https://127.0.0.1:1/v1", retries=0)).generate([Question((), 5)]))
    assert "\n" not in str(caught.value)


def test_a_server_that_is_busy_is_there(server: FaultServer) -> None:
    server.busy = True
    with pytest.raises(UserError, match=r"does not serve now.*429.*try again later") as caught:
        list(engine(server, retries=1).read([ask(0)]))
    assert "no server answers" not in str(caught.value)


def test_a_429_that_names_no_time_costs_no_answer(server: FaultServer) -> None:
    server.retry_after = ""
    server.choose = lambda prompt, tries: "too many" if tries < 3 else ""
    replies = dict(engine(server, retries=4).read([ask(i) for i in range(12)]))
    assert len(replies) == 12 and all(isinstance(reply, Reading) for reply in replies.values())


def test_slots_within_an_answer_need_a_tokenizer(server: FaultServer) -> None:
    with pytest.raises(UserError, match=r"engines\.openai\.tokenizer"):
        list(engine(server).read([Branches(ask(0).messages, ("a", "b"))]))
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
