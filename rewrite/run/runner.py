"""Runs the stages that it is given (`rewrite.stages`), or says what they would ask.

`go` runs every stage up to the one asked for, skipping what is fresh (`rewrite.run.freshness`). `go_together` does so
for several runs: what one of them, or a run in another folder, has made of the same things is taken over, and a stage
that can make several at once does. A stage's module is imported only when it runs, so that a run with nothing to do
does not wait for torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewrite.config import Config, UserError
from rewrite.run.files import hash_value, read_json
from rewrite.run.freshness import Stage, ask_again, check, hash_together, stage_keys, wanted
from rewrite.run.plugins import asked_model
from rewrite.run.store import ABSENT, Run
from rewrite.run.tracking import Track, check_tracker, tracking

Say = Callable[[str], None]


def go(stages: Sequence[Stage], config: Config, run: Run, last: str, say: Say) -> None:
    """Run the stages up to `last`, skipping those whose artefacts are fresh; `say` hears what is done and why."""
    go_together(stages, [(config, run)], last, say)


def go_together(
    stages: Sequence[Stage], points: Sequence[tuple[Config, Run]], last: str, say: Say, others: Sequence[Path] = ()
) -> None:
    """`go` for several runs, stage by stage; `others` are folders of runs that may have made the same already."""
    members = []
    with ExitStack() as trackers:
        for config, run in points:
            check(stages, config)
            ahead = {stage.name: stage for stage in _up_to(stages, config, last)}
            check_tracker(config)
            track = trackers.enter_context(tracking(config, run, say))
            members.append(Member(config, run, ahead, stage_keys(stages, config), track))
        folders = [*(member.run.folder for member in members), *others]
        for stage in stages:
            stale = [member for member in members if stage.name in member.ahead and member.why_stale(stage.name)]
            for group in _group(stage, stale):
                _make(stage.name, group, folders, say)
                for member in group:
                    member.track(stage, 1 + list(member.ahead).index(stage.name))


def _group(stage: Stage, stale: Sequence[Member]) -> list[list[Member]]:
    """Which of some runs a stage makes at once."""
    groups: dict[str, list[Member]] = {}
    for number, member in enumerate(stale):
        key = hash_together(stage, member.config) if stage.across and len(stale) > 1 else str(number)
        groups.setdefault(key, []).append(member)
    return list(groups.values())


def _make(name: str, group: Sequence[Member], folders: Sequence[Path], say: Say) -> None:
    """Make a stage of some runs at once; what one of them, or another run, made of the same things is taken over. A
    run's config is recorded here and not before: what makes nothing leaves it as it was."""
    first: dict[str, Member] = {}
    for member in group:
        member.run.describe(member.config)
        if not member.take_over(name, folders, say):
            first.setdefault(member.depends_on(name), member)
    if not first:
        return
    leaders = list(first.values())
    why = leaders[0].why_stale(name)
    begins = "begins" if why == ABSENT else why
    say(f"{name}: {begins}" + (f"; for {len(leaders)} runs at once" if len(leaders) > 1 else ""))
    for member in leaders:
        member.run.begin(member.keys[name], member.ahead[name].reads, len(leaders))
    module = _module(name)
    if len(leaders) > 1:
        module.run_together([(member.config, member.run) for member in leaders])
    else:
        module.run(leaders[0].config, leaders[0].run)
    for member in group:
        if member not in leaders and not member.take_over(name, folders, say):
            _make(name, [member], (), say)


@dataclass(frozen=True, eq=False)
class Member:
    """A run that is made, maybe with others: its stages up to the one asked for, and their keys."""

    config: Config
    run: Run
    ahead: dict[str, Stage]
    keys: dict[str, str]
    track: Track = lambda stage, number: None
    """Told of each stage that was made, with its number."""

    def why_stale(self, name: str) -> str | None:
        """Why a stage must run, or None where all that it writes is fresh."""
        return _stale(self.run, self.ahead[name], self.keys[name])

    def depends_on(self, name: str) -> str:
        """The same for all runs in which a stage gives the same."""
        return hash_value([self.keys[name], self.run.inputs(self.ahead[name].reads)])

    def take_over(self, name: str, folders: Sequence[Path], say: Say) -> bool:
        """Take what a stage writes from the first of some runs that has made it of the same things; whether one had."""
        stage, inputs = self.ahead[name], self.run.inputs(self.ahead[name].reads)
        for folder in folders:
            file = folder / "manifest.json"
            if folder == self.run.folder or not file.is_file():
                continue
            try:
                manifest = read_json(file)
                entries = [manifest["artefacts"].get(artefact, {}) for artefact in stage.writes]
                same = all(entry.get("key") == self.keys[name] and entry["inputs"] == inputs for entry in entries)
            except (UserError, KeyError, TypeError):  # No run, or a damaged one: it has nothing to give.
                continue
            if not same or ask_again(manifest, stage):
                continue
            pairs = zip(stage.writes, entries, strict=True)
            if all(self.run.take(artefact, folder, entry) for artefact, entry in pairs):
                say(f"{name}: the same as in {folder.name}")
                for note in set(stage.notes) & manifest.keys():
                    self.run.note(note, manifest[note])
                return True
        return False


def plan(stages: Sequence[Stage], config: Config, run: Run, last: str, say: Say) -> dict[str, Any]:
    """What the stages up to `last` would ask of language models, by stage and as its `plan` says it; nothing is asked
    and nothing is spent.

    Stages that ask nothing are run before one that asks, as far as they do not wait for an answer: what is asked about
    is theirs. Where none asks nothing is run.
    """
    check(stages, config)
    keys = stage_keys(stages, config)
    planned: dict[str, Any] = {}
    ahead = {stage.name: stage for stage in _up_to(stages, config, last)}
    asking = [name for name, one in ahead.items() if one.asks and asked_model(one.asks.role, config) is not None]
    for name, stage in ahead.items():
        stale = planned or (asking and _stale(run, stage, keys[name]))
        if name in asking:
            asking.remove(name)
            if stale:
                planned[name] = _module(name).plan(config, run, frozenset(planned))
        elif asking and stale and not planned:
            _make(name, [Member(config, run, ahead, keys)], (), say)
    return planned


def _up_to(stages: Sequence[Stage], config: Config, last: str) -> Sequence[Stage]:
    """The stages that this run has up to `last`. Raises UserError where it has no such stage."""
    kept = wanted(stages, config)
    names = [stage.name for stage in kept]
    if last not in names:
        raise UserError(f"{last}: this run has no such stage; {next(s.unless for s in stages if s.name == last)}")
    return kept[: names.index(last) + 1]


def _module(name: str) -> Any:
    return importlib.import_module(f"rewrite.stages.{name}")


def _stale(run: Run, stage: Stage, key: str) -> str | None:
    """Why a stage must run, or None where all that it writes is fresh."""
    reasons = [run.stale(artefact, key, stage.reads) for artefact in stage.writes]
    return next((reason for reason in reasons if reason), None) or ask_again(run.manifest, stage)


def verdict(run: Run) -> str:
    """The verdict of a finished run and where its report is."""
    sentence: str = read_json(run.path("6_stats.json"))["verdict"]["sentence"]
    return f"{sentence}\nreport: {run.path('7_report') / 'index.html'}"
