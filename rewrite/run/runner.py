"""Runs the stages that it is given (`rewrite.stages`), or says what they would ask.

`go` runs every stage up to the one asked for, skipping what is fresh (`rewrite.run.freshness`). A stage's module is
imported only when it runs, so that a run with nothing to do does not wait for torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from rewrite.config import Config, UserError
from rewrite.run.files import read_json
from rewrite.run.freshness import Stage, ask_again, check, stage_keys, wanted
from rewrite.run.plugins import asked_model
from rewrite.run.store import Run
from rewrite.run.tracking import check_tracker, tracking


def go(stages: Sequence[Stage], config: Config, run: Run, last: str, say: Callable[[str], None]) -> None:
    """Run the stages up to `last`, skipping those whose artefacts are fresh; `say` hears what is done and why."""
    check(stages, config)
    ahead = _up_to(stages, config, last)
    run.describe(config)
    check_tracker(config)
    keys = stage_keys(stages, config)
    with tracking(config, run, say) as track:
        for number, stage in enumerate(ahead, start=1):
            if _make(stage, config, run, keys[stage.name], say):
                track(stage, number)


def plan(stages: Sequence[Stage], config: Config, run: Run, last: str, say: Callable[[str], None]) -> dict[str, Any]:
    """What the stages up to `last` would ask of language models, by stage and as its `plan` says it; nothing is asked
    and nothing is spent.

    Stages that ask nothing are run, as far as they do not wait for an answer: what is asked about is theirs.
    """
    check(stages, config)
    keys = stage_keys(stages, config)
    planned: dict[str, Any] = {}
    for stage in _up_to(stages, config, last):
        key, role = keys[stage.name], stage.asks.role if stage.asks else None
        if role and asked_model(role, config) is not None and (planned or _stale(run, stage, key)):
            planned[stage.name] = _module(stage).plan(config, run, frozenset(planned))
        elif not planned:
            _make(stage, config, run, key, say)
    return planned


def _up_to(stages: Sequence[Stage], config: Config, last: str) -> Sequence[Stage]:
    """The stages that this run has up to `last`. Raises UserError where it has no such stage."""
    kept = wanted(stages, config)
    names = [stage.name for stage in kept]
    if last not in names:
        raise UserError(f"{last}: this run has no such stage; {next(s.unless for s in stages if s.name == last)}")
    return kept[: names.index(last) + 1]


def _make(stage: Stage, config: Config, run: Run, key: str, say: Callable[[str], None]) -> bool:
    """Run a stage unless all that it writes is fresh; whether it ran."""
    reason = _stale(run, stage, key)
    if reason:
        say(f"{stage.name}: {reason}")
        run.describe(config)
        run.begin(key, stage.reads)
        _module(stage).run(config, run)
    return bool(reason)


def _module(stage: Stage) -> Any:
    return importlib.import_module(f"rewrite.stages.{stage.name}")


def _stale(run: Run, stage: Stage, key: str) -> str | None:
    """Why a stage must run, or None where all that it writes is fresh."""
    reasons = [run.stale(artefact, key, stage.reads) for artefact in stage.writes]
    return next((reason for reason in reasons if reason), None) or ask_again(run.manifest, stage)


def verdict(run: Run) -> str:
    """The verdict of a finished run and where its report is."""
    sentence: str = read_json(run.path("6_stats.json"))["verdict"]["sentence"]
    return f"{sentence}\nreport: {run.path('7_report') / 'index.html'}"
