"""Several addresses of the openai engine: who is asked, who is left alone, and nothing asked twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.asking import ask, engine, many_slots
from makers.faults import FaultServer, fault_server
from makers.servers import Counts, Served, counting_proxy, llama_process

from rewrite.config import UserError
from rewrite.engines.base import Fault, Reading
from rewrite.engines.openai import Settings, pacing
from rewrite.engines.openai.build import OpenAI, build
from rewrite.engines.openai.pacing import Trouble
from rewrite.engines.openai.replicas import Replicas
from rewrite.run import plugins
from rewrite.run.configs import parse_value

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("key")]


@pytest.fixture
def other() -> Iterator[FaultServer]:
    with fault_server() as state:
        yield state


def both(*servers: FaultServer | Counts | Served, **settings: Any) -> OpenAI:
    urls = ",".join(server.base_url for server in servers)
    return build("small", Settings.model_validate({"base_url": urls, "timeout": 5, "retries": 0} | settings))


def trouble(wait: float | None = None) -> Trouble:
    return Trouble(Fault("server error", "out of order"), again=True, wait=wait, status=500)


def test_addresses_are_a_list_or_have_commas_between_them() -> None:
    assert Settings().addresses == ()
    assert Settings(base_url="http://a/v1").addresses == ("http://a/v1",)
    for said in (
        "http://a/v1, http://b/v1",
        ["http://a/v1", "http://b/v1"],
        parse_value('["http://a/v1","http://b/v1"]'),
    ):
        assert Settings.model_validate({"base_url": said}).addresses == ("http://a/v1", "http://b/v1")
    for wrong in ("http://a/v1,,http://b/v1", "http://a/v1,http://a/v1", ["http://a/v1", ""]):
        with pytest.raises(UserError, match=r"^engines\.openai\.base_url: write each address once"):
            plugins.settings("engines", "openai", {"base_url": wrong})


def test_the_cache_is_one_whatever_the_addresses(server: FaultServer, other: FaultServer) -> None:
    assert both(server).identity == both(other).identity == both(server, other).identity == engine(server).identity


def test_the_least_busy_is_asked_first() -> None:
    replicas = Replicas(["a", "b"], clock=lambda: 0.0)
    first, second = replicas.servers
    assert next(replicas.in_turn()) is first
    with first.at_work(10):
        assert next(replicas.in_turn()) is second
        with second.at_work(100):
            assert [server.url for server in replicas.in_turn()] == ["a", "b"]
    assert first.busy == second.busy == 0
    with second.at_work(1):
        pass
    assert next(replicas.in_turn()) is first  # Equally busy: the one that was sent less.


def test_one_that_fails_is_left_and_tried_again_one_request_at_a_time() -> None:
    now = 0.0
    replicas = Replicas(["a", "b"], clock=lambda: now)
    first, second = replicas.servers
    replicas.leave(first, trouble(wait=5))
    replicas.leave(first, trouble(wait=900))  # It was under way when the first one failed.
    assert [server.url for server in replicas.in_turn()] == ["b"]
    now = 5.0
    with second.at_work(10):
        assert next(replicas.in_turn()) is first
        with first.at_work(1):
            assert next(replicas.in_turn()) is second
    for failures in (2, 3, 4):  # Without a word of when to come again, twice as long each time.
        now = first.left_until
        replicas.leave(first, trouble())
        assert first.failed == failures
        assert 0.5 <= (first.left_until - now) / (pacing.FIRST_WAIT * 2 ** (failures - 1)) <= 1
    replicas.leave(second, trouble(wait=1e6))
    assert [server.url for server in replicas.in_turn()] == ["a"]  # All are left: the first that comes back.
    first.answered()
    assert first.failed == 0 and not first.trouble


def test_a_server_that_is_out_of_order_costs_no_answer(server: FaultServer, other: FaultServer) -> None:
    server.choose = lambda prompt, tries: "broken"
    requests = [ask(i) for i in range(40)]
    mine = both(server, other)  # No tries again: going on to the other address is none.
    found = dict(mine.read(requests))
    assert all(isinstance(outcome, Reading) for outcome in found.values())
    assert len(other.arrivals) == 40 and 0 < len(server.arrivals) < 40
    assert sum(outcome.spent.retried for outcome in found.values()) == len(server.arrivals)
    server.choose = lambda prompt, tries: ""
    time.sleep(max(0.0, mine._remote.replicas.servers[0].left_until - time.monotonic()))
    before = len(server.arrivals)
    again = dict(mine.read([ask(i) for i in range(40, 80)]))
    assert all(isinstance(outcome, Reading) for outcome in again.values())
    assert len(server.arrivals) > before, "it was mended, and is asked again"


def test_a_busy_server_holds_only_itself(server: FaultServer, other: FaultServer) -> None:
    server.choose, server.retry_after = lambda prompt, tries: "too many", "600"
    found = dict(both(server, other, concurrency=1).read([ask(i) for i in range(10)]))
    assert all(isinstance(outcome, Reading) for outcome in found.values())
    assert len(server.arrivals) == 1 and len(other.arrivals) == 10


def test_where_none_serves_one_line_names_them_all(server: FaultServer) -> None:
    with fault_server() as gone:
        pass
    server.busy = True
    with pytest.raises(UserError, match="none of the 2 addresses serves now") as caught:
        list(both(gone, server, retries=1).read([ask(0)]))
    said = str(caught.value)
    assert "\n" not in said and gone.base_url in said and f"{server.base_url}: server error: 429" in said


def test_one_that_is_not_there_yet_is_met_when_it_comes(server: FaultServer) -> None:
    with fault_server() as gone:
        pass
    found = dict(both(gone, server).read([ask(i) for i in range(5)]))
    assert len(server.arrivals) == 5 and all(isinstance(outcome, Reading) for outcome in found.values())


def test_servers_of_two_kinds_are_refused(server: FaultServer, other: FaultServer) -> None:
    server.owner = "vllm"
    with pytest.raises(UserError, match=r"kind .*name replicas of one server"):
        list(both(server, other).read([ask(0)]))


@pytest.mark.slow
def test_a_killed_llama_cpp_costs_no_answer_and_nothing_is_asked_twice(terse_model: Path, tmp_path: Path) -> None:
    requests = [many_slots(i, 4) for i in range(16)]
    by_ids = {"tokenizer": str(terse_model), "list_size": 2, "concurrency": 3, "timeout": 60}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with (
        llama_process(terse_model, tmp_path / "a") as doomed,
        llama_process(terse_model, tmp_path / "b") as stays,
        counting_proxy(doomed.base_url) as first,
        counting_proxy(stays.base_url) as second,
    ):
        found: dict[int, Reading | Fault] = {}
        for index, outcome in both(first, second, **by_ids).read(requests):
            found[index] = outcome
            if len(found) == 6:
                os.kill(doomed.process.pid, signal.SIGKILL)
        answered = first.answered + second.answered
        assert first.answered and second.answered
        alone = both(doomed, stays, **by_ids).read(requests)  # One address of which nobody listens any more.
        again = dict(next(alone) for _ in range(4))
        os.kill(stays.process.pid, signal.SIGKILL)
        with pytest.raises(UserError, match=r"none of the 2 addresses serves now .*nothing answered is lost"):
            list(alone)
    assert len(found) == 16 and all(isinstance(outcome, Reading) for outcome in found.values())
    assert len(answered) == 64 and max(answered.values()) == 1, "nothing that was answered was asked again"
    for index, outcome in again.items():
        there = found[index]
        assert isinstance(outcome, Reading) and isinstance(there, Reading)
        np.testing.assert_allclose(there.digits, outcome.digits, rtol=1e-2)
