"""Calls are money: nothing is asked twice, nothing beyond the budget, and every call stands in the ledger."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.fake_engine import FakeEngine, before_branches, digits_of

from rewrite.config import Config, UserError
from rewrite.engines.base import Answer, Branches, Engine, Fault, Question, Reading
from rewrite.engines.calls import Calls, _key
from rewrite.engines.prompting import Message
from rewrite.run import plugins
from rewrite.run.configs import load_config
from rewrite.run.freshness import ask_again, check
from rewrite.run.store import Run
from rewrite.stages import STAGES


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that every run of a test opens."""
    engine = FakeEngine()

    class Module:
        Settings = plugins.load("engines", "transformers").Settings

        @staticmethod
        def build(model: str, settings: object) -> Engine:
            return engine

    real = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, name: Module if kind == "engines" else real(kind, name))
    return engine


def slots(number: int) -> Branches:
    return Branches((Message("user", f"prompt {number}"),), ("a\t", "\nb\t"))


def settings(*overrides: str) -> Config:
    return load_config(None, list(overrides))


def read(run: Run, numbers: list[int], config: Config | None = None) -> dict[int, Reading | Fault]:
    with Calls(config or settings(), run, "simulate") as calls:
        return dict(calls.open("m").read([slots(n) for n in numbers]))


def test_each_answer_comes_with_its_own_request(fake: FakeEngine, tmp_path: Path) -> None:
    with Run(tmp_path / "r") as run:
        replies = read(run, [3, 1, 2, 1])
    for place, number in enumerate([3, 1, 2, 1]):
        expected = np.stack([digits_of(text) for text in before_branches(slots(number))])
        reply = replies[place]
        assert isinstance(reply, Reading)
        assert (reply.digits == expected).all()
    assert len(fake.asked) == 3, "equal requests are asked once"


def test_a_rerun_asks_nothing_and_gives_the_same_bits(fake: FakeEngine, tmp_path: Path) -> None:
    with Run(tmp_path / "r") as run:
        fresh = read(run, list(range(5)))
    with Run(tmp_path / "another") as run:
        kept = read(run, list(range(5)))
        assert run.manifest["calls"]["simulate"]["cached"] == 5
        assert run.manifest["calls"]["simulate"]["calls"] == 0
    assert len(fake.asked) == 5
    for number, reply in fresh.items():
        assert isinstance(reply, Reading)
        again = kept[number]
        assert isinstance(again, Reading)
        assert reply.digits.tobytes() == again.digits.tobytes()


def test_the_ledger_counts_and_prices_every_call(fake: FakeEngine, tmp_path: Path) -> None:
    config = settings("calls.price_in=2.0", "calls.price_out=10.0")
    fake.fail = lambda number: Fault("timeout", "after 3 s") if number == 2 else None
    with Run(tmp_path / "r") as run:
        with Calls(config, run, "explain") as calls:
            calls.latents = 4
            list(calls.open("m").generate([Question((Message("user", str(i)),), 10) for i in range(5)]))
        ledger = run.manifest["calls"]["explain"]
    assert (ledger["calls"], ledger["tokens_in"], ledger["tokens_out"]) == (4, 400, 40)
    assert ledger["failed"] == {"timeout": {"requests": 1, "example": "after 3 s"}}
    assert ledger["cost"] == pytest.approx(400 * 2e-6 + 40 * 10e-6)
    assert ledger["cost_per_latent"] == pytest.approx(ledger["cost"] / 4)


def test_a_copy_of_a_run_folder_has_spent_nothing_yet(fake: FakeEngine, tmp_path: Path) -> None:
    with Run(tmp_path / "r") as run:
        read(run, [0, 1, 2])
    shutil.copytree(tmp_path / "r", tmp_path / "copy")
    with Run(tmp_path / "copy") as run:
        read(run, [2, 3])
        assert run.manifest["calls"]["simulate"]["calls"] == 1
    with Run(tmp_path / "r") as run:
        read(run, [4])
        assert run.manifest["calls"]["simulate"]["calls"] == 4


def test_failures_are_asked_again_and_refusals_are_answers(fake: FakeEngine, tmp_path: Path) -> None:
    faults: dict[int, Fault] = {1: Fault("server error", "500"), 2: Fault("refusal", "no")}
    fake.fail = faults.get
    with Run(tmp_path / "r") as run:
        first = read(run, [0, 1, 2])
        assert [r.kind for r in first.values() if isinstance(r, Fault)] == ["server error", "refusal"]
        second = read(run, [0, 1, 2])
    assert len(fake.asked) == 4
    assert [r.kind for r in second.values() if isinstance(r, Fault)] == ["refusal"]


def test_what_failed_stands_with_what_was_made_until_that_is_made_anew(fake: FakeEngine, tmp_path: Path) -> None:
    """Neither a session that is stopped nor a question in a notebook takes the mark away; no engine, no mark."""
    stage = next(stage for stage in STAGES if stage.name == "simulate")
    fake.fail = lambda number: Fault("server error", "500", passing=True) if number == 1 else None

    def make(run: Run, numbers: list[int]) -> None:
        run.begin("k", ())
        with run.writing("4_simulations") as path:
            path.write_text(str(read(run, numbers) if numbers else ""))

    with Run(tmp_path / "r") as run:
        make(run, [0, 1, 2])
        run.begin("k", ())
        with pytest.raises(UserError, match=r"^calls\.max_calls"):
            read(run, [1, 3, 4], settings("calls.max_calls=3"))
    with Run(tmp_path / "r") as run:
        read(run, [7])
        assert ask_again(run.manifest, stage) == "1 requests failed for a reason that may have passed"
        make(run, [])
        assert ask_again(run.manifest, stage) is None


@pytest.mark.parametrize(
    ("limit", "answered"), [("max_calls=3", 3), ("max_tokens=250", 2), ("max_cost=0.00045", 4), ("max_calls=0", 6)]
)
def test_a_limit_stops_the_run_before_it_is_passed(fake: FakeEngine, tmp_path: Path, limit: str, answered: int) -> None:
    config = settings(f"calls.{limit}", "calls.price_in=1.0", "calls.price_out=1.0")
    with Run(tmp_path / "r") as run:
        if answered < 6:
            with pytest.raises(UserError, match=rf"^calls\.{limit.split('=')[0]} = .*nothing answered is lost"):
                read(run, list(range(6)), config)
        else:
            read(run, list(range(6)), config)
        assert len(fake.asked) == answered
        assert len(read(run, list(range(6)))) == 6
    assert len(fake.asked) == 6, "going on asks for the rest alone"


def test_answers_that_cost_less_than_feared_leave_room_for_more(fake: FakeEngine, tmp_path: Path) -> None:
    """A question is taken at its longest answer, 1,000 tokens; it then costs 110 in all."""
    config = settings("calls.max_tokens=1600")
    questions = [Question((Message("user", str(i)),), 1000) for i in range(9)]
    refused = pytest.raises(UserError, match=r"^calls\.max_tokens = 1,600: .* after 5 calls and 550 tokens")
    with Run(tmp_path / "r") as run, Calls(config, run, "explain") as calls, refused:
        list(calls.open("m").generate(questions))
    assert len(fake.asked) == 5  # 5 x 110 + 1,100 passes 1,600; 4 x 110 + 1,100 does not.


def test_a_limit_in_dollars_needs_prices() -> None:
    with pytest.raises(UserError, match=r"^calls\.max_cost: no price is set"):
        check(STAGES, settings("calls.max_cost=5"))
    check(STAGES, settings("calls.max_cost=5", "calls.price_out=1"))


def test_a_cache_that_breaks_is_one_line_and_can_be_used_again(fake: FakeEngine, tmp_path: Path) -> None:
    with Run(tmp_path / "r") as run, Calls(settings(), run, "simulate") as calls:
        engine = calls.open("m")
        assert calls.cache is not None
        calls.cache._data.execute("PRAGMA query_only = ON")
        with pytest.raises(UserError, match=r"calls\.sqlite: the cache of calls cannot be used"):
            list(engine.read([slots(0)]))
        calls.cache._data.execute("PRAGMA query_only = OFF")
        assert len(dict(engine.read([slots(0)]))) == 1


def test_neither_a_password_in_an_address_nor_a_key_in_the_wrong_place_is_kept(tmp_path: Path) -> None:
    config = settings("engines.openai.base_url=http://other/v1,http://me:hunter2@localhost/v1")
    with Run(tmp_path / "r") as run:
        run.describe(config)
    manifest = (tmp_path / "r" / "manifest.json").read_text()
    assert "hunter2" not in manifest and "http://localhost/v1" in manifest
    with pytest.raises(UserError, match=r"^engines\.openai\.key_variable") as caught:
        check(STAGES, settings("engine=openai", "engines.openai.key_variable=sk-proj-abc123"))
    assert "abc123" not in str(caught.value)


def test_a_dry_run_asks_nothing_and_says_what_it_would_cost(fake: FakeEngine, tmp_path: Path) -> None:
    with Run(tmp_path / "r") as run:
        read(run, [0, 1])
        before = dict(run.manifest["calls"])
        with Calls(settings(), run, "simulate", dry=True) as calls:
            replies = dict(calls.open("m").read([slots(n) for n in range(5)]))
            met = calls.met
        assert run.manifest["calls"] == before
    assert len(fake.asked) == 2
    assert (met.cached, met.planned.calls, met.planned.tokens_in) == (2, 3, 300)
    assert sum(isinstance(reply, Fault) for reply in replies.values()) == 3


def test_an_answer_is_kept_the_moment_it_arrives(fake: FakeEngine, tmp_path: Path) -> None:
    """Another process sees it, so a kill loses nothing but what was in flight."""
    with Run(tmp_path / "r") as run, Calls(settings(), run, "simulate") as calls:
        arriving = calls.open("m").read([slots(n) for n in range(4)])
        for seen in range(1, 4):
            next(arriving)
            other = sqlite3.connect(tmp_path / "calls.sqlite")
            # The one that was yielded is committed; the generator waits behind it.
            assert other.execute("SELECT COUNT(*) FROM answers").fetchone() == (seen,)
            other.close()
        arriving.close()  # type: ignore[attr-defined]
        assert len(dict(calls.open("m").read([slots(n) for n in range(4)]))) == 4
    assert len(fake.asked) == 4


def test_the_key_holds_all_that_an_answer_depends_on(fake: FakeEngine, tmp_path: Path) -> None:
    base = Question((Message("user", "hi"),), 10)
    others = [
        Question((Message("system", "hi"),), 10),
        Question((Message("user", "hi"), Message("user", "")), 10),
        Question((Message("user", "hi"),), 11),
        Question((Message("user", "hi"),), 10, temperature=0.5),
        Question((Message("user", "hi"),), 10, seed=1),
        Question((Message("user", "hi"),), 10, stop=("\n",)),
        Question((Message("user", "hi"),), 10, schema="{}"),
        Question((Message("user", "hi"),), 10, answer="x"),
    ]
    with Run(tmp_path / "r") as run, Calls(settings(), run, "explain") as calls:
        replies = dict(calls.open("m").generate([base, *others]))
    assert len(fake.asked) == 1 + len(others)
    assert all(isinstance(reply, Answer) for reply in replies.values())


def test_a_file_that_is_no_cache_is_named(fake: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to look at " * 20)
    config = settings(f"calls.cache={tmp_path / 'notes.txt'}")
    with Run(tmp_path / "r") as run, pytest.raises(UserError, match=r"notes\.txt: cannot be used as the cache") as told:
        read(run, [0], config)
    held = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert told.tb is not None and tmp_path / "notes.txt" not in held, "closed, though the traceback still knows it"


def test_answers_kept_before_there_were_silent_pieces_are_found_again() -> None:
    request = slots(0)
    turns = [(message.role, message.content) for message in request.messages]
    fields = {"pieces": request.pieces, "branch": request.branch, "turn": False}
    before = hashlib.sha256(json.dumps(["me", turns, fields], sort_keys=True).encode()).digest()
    assert _key("me", request) == before != _key("me", replace(request, silent=(0,)))
