"""Runs the stages of `rewrite.pipeline`, or says what they would ask.

`go` runs every stage up to the one asked for, skipping what is fresh (`rewrite.fresh`). A stage's module is imported
only when it runs, so that a run with nothing to do does not wait for torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from rewrite.calls import Planned
from rewrite.config import Config
from rewrite.fresh import Stage, asked_model, check, hash_outside, stage_key
from rewrite.pipeline import STAGES
from rewrite.store import Run, read_json


def go(config: Config, run: Run, last: str, say: Callable[[str], None]) -> None:
    """Run the stages up to `last`, skipping those whose artefacts are fresh; `say` hears what is done and why."""
    check(STAGES, config)
    run.describe(config)
    outside = hash_outside(config)
    for stage in _up_to(last):
        _make(stage, config, run, stage_key(stage, config, outside), say)


def plan(config: Config, run: Run, last: str, say: Callable[[str], None]) -> dict[str, Planned]:
    """What the stages up to `last` would ask of language models, by stage; nothing is asked and nothing is spent.

    Stages that ask nothing are run, as far as they do not wait for an answer: what is asked about is theirs.
    """
    check(STAGES, config)
    outside = hash_outside(config)
    planned: dict[str, Planned] = {}
    explained = True
    for stage in _up_to(last):
        key = stage_key(stage, config, outside)
        asks = asked_model(stage.asks, config) is not None
        if asks and (planned or _stale(run, stage, key)):
            planned[stage.name] = _module(stage).plan(config, run, explained)
            explained = explained and stage.asks != "explainer"
        elif not planned:
            _make(stage, config, run, key, say)
    return planned


def _up_to(last: str) -> tuple[Stage, ...]:
    return STAGES[: [stage.name for stage in STAGES].index(last) + 1]


def _make(stage: Stage, config: Config, run: Run, key: str, say: Callable[[str], None]) -> None:
    """Run a stage unless all that it writes is fresh."""
    reason = _stale(run, stage, key)
    if reason:
        say(f"{stage.name}: {reason}")
        run.describe(config)
        run.begin(key, stage.reads)
        _module(stage).run(config, run)


def _module(stage: Stage) -> Any:
    return importlib.import_module(f"rewrite.stages.{stage.name}")


def _stale(run: Run, stage: Stage, key: str) -> str | None:
    """Why a stage must run, or None where all that it writes is fresh."""
    reasons = [run.stale(artefact, key, stage.reads) for artefact in stage.writes]
    return next((reason for reason in reasons if reason), None)


def verdict(run: Run) -> str:
    """The verdict of a finished run and where its report is."""
    sentence: str = read_json(run.path("6_stats.json"))["verdict"]["sentence"]
    return f"{sentence}\nreport: {run.path('7_report') / 'index.html'}"
