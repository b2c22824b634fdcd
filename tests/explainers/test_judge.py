"""A judge is believed exactly as far as it answers, and no text under study can pass for anything but a text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from makers.fake_engine import FakeEngine
from makers.judged import CONFIG, LATENTS, lines_of, make_judged, perfect, plant
from makers.small import small_config

from rewrite.config import Config, UserError
from rewrite.engines.base import Answer, Engine, Fault, Question
from rewrite.explainers.judge import (
    read_list,
)
from rewrite.run.store import Run
from rewrite.stages import score as stage


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    return make_judged(tmp_path / "run")


def score(folder: Path, engine: Engine, config: Config = CONFIG) -> dict[str, list[object]]:
    """The columns that the stage writes with an engine."""
    with Run(folder) as run:
        run.begin("k", ("2_activations", "3_explanations.jsonl", "4_simulations"))
        stage.score(config, run, lambda model: engine)
    columns: dict[str, list[object]] = pq.read_table(folder / "4_scores.parquet").to_pydict()
    return columns


def test_a_perfect_judge_scores_1_and_what_cannot_be_judged_says_why(judged: Path) -> None:
    engine = FakeEngine(answer=perfect)
    found = score(judged, engine)
    for scorer in ("detection", "fuzz"):
        assert found[scorer] == [1.0, None, None, None, None, 1.0]
        precision = 1.0 if scorer == "detection" else None  # Of fuzz, whose windows are all active, there is none.
        assert found[f"{scorer}_precision"] == [precision, None, None, None, None, precision]
        assert found[f"{scorer}_low"] == [None] * LATENTS, "no document changes a perfect score"
        assert found[f"{scorer}_why"] == [
            "",
            "no explanation: refused: no",
            "does not fire in 0 windows of the calibrate split",
            "fires in 0 windows of the calibrate split",
            "fires in 3 windows of the calibrate split",
            "",
        ]
    assert len(engine.asked) == 2 * (40 // 5 + 20 // 5), "two latents, 40 windows for detection and 20 for fuzz"
    assert found["latent"] == list(range(LATENTS))


def test_what_the_simulation_says_stands_beside_it(judged: Path) -> None:
    found = score(judged, FakeEngine(answer=perfect))
    truth = np.concatenate([s.activations.toarray()[s.text.counted(), 0] for s in plant()])
    expected = np.corrcoef(truth, np.rint(4 * truth))[0, 1]
    simulation, low, high = (found[f"simulation{end}"][0] for end in ("", "_low", "_high"))
    assert simulation == pytest.approx(expected)
    assert low < expected < high <= 1  # type: ignore[operator]
    assert found["r2_low"][0] < found["r2"][0] < found["r2_high"][0] <= 1  # type: ignore[operator]
    varies = "its strength or its activation does not vary on the calibrate split"
    assert found["simulation"][1:] == [None] * 5
    assert found["simulation_why"] == ["", *[varies] * 4, "not understood"]
    still = "its activation does not vary on the calibrate split, or fewer than 2 documents were simulated"
    assert found["r2_why"] == ["", "", "", still, "", "not understood"]


def test_no_engine_is_opened_for_what_costs_nothing(judged: Path) -> None:
    def refuse(model: str) -> Engine:
        raise AssertionError("nobody asked for a judge")

    with Run(judged) as run:
        run.begin("k", ())
        stage.score(Config(), run, refuse)
    names = pq.read_schema(judged / "4_scores.parquet").names
    assert names == ["latent"] + [f"{s}{end}" for s in ("simulation", "r2") for end in ("", "_low", "_high", "_why")]


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"model": ""}, r"score\.model: not set"), ({"window": 25}, r"score\.window = 25: .* corpus\.window")],
)
def test_settings_that_cannot_work_are_one_line(judged: Path, changed: dict[str, object], says: str) -> None:
    config = CONFIG.model_copy(update={"score": CONFIG.score.model_copy(update=changed)})
    with pytest.raises(UserError, match=says):
        score(judged, FakeEngine(), config)


def test_a_judge_who_guesses_is_at_one_half(judged: Path) -> None:
    draws = np.random.default_rng(0)
    found = score(judged, FakeEngine(answer=lambda q: json.dumps(draws.integers(0, 2, len(lines_of(q))).tolist())))
    for scorer in ("detection", "fuzz"):
        for latent in (0, 5):
            value, low, high = (found[f"{scorer}{end}"][latent] for end in ("", "_low", "_high"))
            assert 0.2 < value < 0.8  # type: ignore[operator]
            assert low < 0.5 < high  # type: ignore[operator]


BROKEN: list[tuple[Callable[[Question], str], str]] = [
    (lambda q: "[1, 0]", "malformed: 2 judgements of 5 windows in “[1, 0]”"),
    (lambda q: perfect(q)[:-1] + ", 1]", "malformed: 6 judgements of 5 windows in “["),
    (lambda q: "I cannot say.", "malformed: no list in “I cannot say.”"),
    (lambda q: "[1, 0, 2, 1, 0]", "malformed: something other than 0 and 1 in “[1, 0, 2, 1, 0]”"),
    (lambda q: "[]", "malformed: something other than 0 and 1 in “[]”"),
]


@pytest.mark.parametrize(("answer", "why"), BROKEN)
def test_answers_that_cannot_be_read_are_missing_and_named(
    judged: Path, answer: Callable[[Question], str], why: str
) -> None:
    found = score(judged, FakeEngine(answer=answer))
    assert found["detection"] == [None] * LATENTS and found["fuzz_precision"] == [None] * LATENTS
    assert str(found["detection_why"][0]).startswith(why)
    assert str(found["detection_why"][0]).endswith("(40 of 40 windows have no judgement)")
    assert found["fuzz_faults"] == ['{"malformed": 20}', *["{}"] * 4, '{"malformed": 20}']


def test_a_few_failures_are_counted_and_the_rest_is_scored(judged: Path) -> None:
    def fail(number: int) -> Fault | None:
        return Fault("timeout", "after 60 s") if number % 4 == 0 else None

    found = score(judged, FakeEngine(answer=perfect, fail=fail))
    assert found["detection"][0] == 1.0 and found["fuzz"][5] == 1.0
    assert found["detection_faults"][0] == '{"timeout": 10}'
    found = score(judged, FakeEngine(answer=perfect, fail=lambda n: None if n % 4 == 0 else fail(4)))
    assert found["detection"][0] is None
    assert found["detection_why"][0] == "timeout: after 60 s (30 of 40 windows have no judgement)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, 0, 1]", [True, False, True]),
        ("Here it is:\n```json\n[1,0,1]\n```", [True, False, True]),
        ("[1, 0, 1", [True, False, True]),  # a stop text took the end
        ('{"judgements": [1, 0, 1]}', [True, False, True]),
        ("[true, false, true]", None),
        ('["1", "0", "1"]', None),
        ("[[1, 0, 1]]", None),
        ("[1, 0, 1,]", None),
        ("[1 0 1]", None),
        ("1, 0, 1", None),
        ("", None),
        ("[" + "{" * 100_000, None),
    ],
)
def test_only_a_list_of_0_and_1_is_read(text: str, expected: list[bool] | None) -> None:
    found = read_list(Answer(text), 3)
    if expected is None:
        assert isinstance(found, Fault) and found.kind == "malformed" and len(found.detail) < 150
    else:
        assert found == expected


def test_a_list_that_was_cut_is_no_answer() -> None:
    cut = read_list(Answer("[1, 0, 1", whole=False), 3)
    assert isinstance(cut, Fault) and cut.kind == "truncated"
    assert read_list(Answer("[1, 0, 1] because", whole=False), 3) == [True, False, True]


def test_the_real_small_model_is_judged_by_what_it_says(small_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Random weights judge at random or not at all: whatever they say, nothing is taken for a score of 0."""
    folder = tmp_path / "runs" / "copy"
    shutil.copytree(small_run, folder)
    scoring = ['score.scorers=["detection", "fuzz"]', "score.windows=6", "score.window=16", "score.max_tokens=16"]
    config = small_config(*scoring, f"score.model={tiny_model}", "sample.latents=5", "engine=transformers")
    with Run(folder) as run:
        run.begin("k", ())
        planned = stage.plan(config, run, frozenset())
        supposed = stage.plan(config, run, frozenset({"explain"}))
        stage.run(config, run)
        ledger = run.manifest["calls"]["score"]
    found = pq.read_table(folder / "4_scores.parquet").to_pydict()
    judged = [i for i, why in enumerate(found["detection_why"]) if not why.startswith("not rewritten")]
    assert len(judged) == 5
    asked = 0
    for scorer in ("detection", "fuzz"):
        for i in judged:
            counted = sum(json.loads(found[f"{scorer}_faults"][i]).values())
            assert (found[scorer][i] is None) == bool(found[f"{scorer}_why"][i])
            assert found[scorer][i] is not None or found[f"{scorer}_precision"][i] is None
            assert counted == 0 or found[f"{scorer}_why"][i].split(":")[0] in ("malformed", "truncated")
            asked += counted
    assert asked > 0, "random weights write no lists"
    assert 0 < ledger["calls"] <= planned.planned.calls <= supposed.planned.calls
    assert ledger["cost_per_latent"] == 0
    with Run(folder) as run:
        run.begin("k", ())
        stage.run(config, run)
        assert run.manifest["calls"]["score"]["calls"] == ledger["calls"], "a rerun asks nothing"
