"""Points become jobs: what several of them share is made once, by the first of them, before the others go on.

1. By their stages' keys (`rewrite.run.freshness`) points form a tree: as long as two have the same keys they are one
   branch, which the first makes; where they part, the other takes over what was made (`rewrite.run.runner`). The last
   stage is each point's own.
2. Every stage of a branch is a step, but where a stage can serve several points in one pass over the text
   (`Stage.across`): that is one step of up to `sweep.together` points.
3. Steps that only follow each other are one job. What is fresh already is none.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewrite.commands.sweep.grid import Point
from rewrite.config import Config, UserError
from rewrite.run.executors.base import Job
from rewrite.run.files import full_disk_told, hash_value, read_json
from rewrite.run.freshness import Stage, ask_again, hash_together, stage_keys, wanted
from rewrite.run.launching import settle
from rewrite.run.runner import go_together
from rewrite.run.store import Run, why_stale
from rewrite.stages import STAGES


@dataclass(eq=False)
class Branch:
    """A point's place in the tree."""

    point: Point
    stages: tuple[Stage, ...]
    paths: list[str]
    """By stage: a hash over the keys up to it, equal in all points that are one branch so far."""
    fresh: int
    """How many of its stages, from the first, need not be made."""
    begins: int = 0
    """The first stage that it makes itself."""
    parent: Branch | None = None
    """Who makes those before it."""
    steps: dict[int, str] = field(default_factory=dict)
    """The names of its own steps, by the number of their stage."""

    def step_of(self, number: int) -> str:
        """The step that makes a stage, its own or its parent's."""
        if self.parent is not None and number < self.begins:
            return self.parent.step_of(number)
        return self.steps[number]


@dataclass(eq=False)
class Step:
    """A stage that is made for some branches at once, and the steps that it needs, in the order of the branches."""

    number: int
    branches: list[Branch] = field(default_factory=list)
    needs: dict[str, None] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        return self.branches[0].stages[self.number].name


@dataclass(eq=False)
class Chain:
    """Steps of the same branches, one after the other: a job."""

    steps: list[Step]
    needs: list[Chain]

    @property
    def name(self) -> str:
        """What it makes: `coder.seed=1: explain to report`, `collect for 3 points, coder.seed=1 and others`."""
        first, last, branches = self.steps[0].stage, self.steps[-1].stage, self.steps[0].branches
        name = branches[0].point.name
        if len(branches) > 1:
            return f"{first} for {len(branches)} points, {name} and others"
        return f"{name}: {first}" + (f" to {last}" if last != first else "")


def plan_jobs(points: Sequence[Point], folder: Path, together: int, threads: int) -> list[Job]:
    """The jobs that make what is not fresh, each after those that it needs."""
    chains: dict[str, Chain] = {}
    steps = _find_steps([_read(point, folder) for point in points], together)
    follow = Counter(need for step in steps.values() for need in step.needs)
    for name, step in sorted(steps.items(), key=lambda pair: pair[1].number):
        needs = [need for need in step.needs if need in chains]
        before = chains[needs[0]] if len(needs) == 1 and follow[needs[0]] == 1 else None
        if before and before.steps[0].branches == step.branches:
            before.steps.append(step)
            chains[name] = before
        else:
            chains[name] = Chain([step], list(dict.fromkeys(chains[need] for need in needs)))
    return [_job(chain, folder, threads) for chain in dict.fromkeys(chains.values())]


def _job(chain: Chain, folder: Path, threads: int) -> Job:
    points = [(branch.point.name, branch.point.config.model_dump(mode="json")) for branch in chain.steps[0].branches]
    arguments = {"folder": str(folder), "points": points, "last": chain.steps[-1].stage, "threads": threads}
    return Job(chain.name, make, arguments, tuple(need.name for need in chain.needs))


def _read(point: Point, folder: Path) -> Branch:
    """A point by itself: the hashes of its stages, and how many of them are fresh in its folder."""
    stages, keys = wanted(STAGES, point.config), stage_keys(STAGES, point.config)
    chain = [keys[stage.name] for stage in stages]
    paths = [hash_value(chain[: number + 1]) for number in range(len(chain) - 1)]
    return Branch(point, stages, [*paths, point.name], _count_fresh(folder / point.name, stages, chain))


def _count_fresh(folder: Path, stages: Sequence[Stage], keys: Sequence[str]) -> int:
    """Stages from the first on that need not be made."""
    file = folder / "manifest.json"
    if not file.is_file():
        return 0
    try:
        manifest = read_json(file)
        for number, (stage, key) in enumerate(zip(stages, keys, strict=True)):
            entries = manifest["artefacts"]
            reasons = [why_stale(folder, entries, name, key, stage.reads) for name in stage.writes]
            if any(reasons) or ask_again(manifest, stage):
                return number
    except UserError:  # Damaged: the run itself will say so.
        return 0
    return len(stages)


def _find_steps(branches: Sequence[Branch], together: int) -> dict[str, Step]:
    """What is to be made, by name."""
    first: dict[str, Branch] = {}
    for branch in branches:
        branch.begins = next(number for number, path in enumerate(branch.paths) if path not in first)
        branch.parent = first[branch.paths[branch.begins - 1]] if branch.begins else None
        first |= dict.fromkeys(branch.paths[branch.begins :], branch)
    passes = _find_passes(branches, together)
    steps: dict[str, Step] = {}
    for branch in branches:
        for number in range(branch.begins, len(branch.stages)):
            name = branch.steps[number] = passes.get((branch, number), branch.paths[number])
            step = steps.setdefault(name, Step(number))
            step.branches.append(branch)
            step.needs |= {branch.step_of(number - 1): None} if number else {}
    return {name: step for name, step in steps.items() if any(step.number >= one.fresh for one in step.branches)}


def _find_passes(branches: Sequence[Branch], together: int) -> dict[tuple[Branch, int], str]:
    """The names of the steps that serve several points at once."""
    groups: dict[str, list[tuple[Branch, int]]] = {}
    for branch in branches:
        for number in range(max(branch.begins, branch.fresh), len(branch.stages)):
            stage = branch.stages[number]
            if stage.across:
                groups.setdefault(hash_together(stage, branch.point.config), []).append((branch, number))
    passes: dict[tuple[Branch, int], str] = {}
    for key, group in groups.items():
        for begin in range(0, len(group), together):
            passes |= dict.fromkeys(group[begin : begin + together], f"{key} {begin}")
    return passes


# --- where a job is done ----------------------------------------------------------------------------------------------


def make(folder: str, points: Sequence[tuple[str, dict[str, Any]]], last: str, threads: int) -> None:
    """Make some points of the sweep in a folder up to a stage, with what other points have made already."""
    settle(threads)
    home, name = Path(folder), points[0][0]
    others = sorted(file.parent for file in home.glob("*/manifest.json"))
    with full_disk_told(home), ExitStack() as stack:
        # A worker hires no workers of its own.
        here = {"executor": "local", "sweep": {"threads": threads}}
        runs = [
            (Config.model_validate(config | here), stack.enter_context(Run(home / own, "sweep")))
            for own, config in points
        ]
        go_together(STAGES, runs, last, lambda line: print(f"{name}: {line}", file=sys.stderr, flush=True), others)
