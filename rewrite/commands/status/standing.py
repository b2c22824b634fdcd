"""How the stages of a run stand: fresh or not and why, how far a stage has come, what it took and what it spent.

1. A stage is fresh where `rewrite` would skip it: the same keys and hashes decide (`rewrite.run.freshness`,
   `rewrite.run.store`). Where the keys are not known, one whose artefacts are made from each other is `there`.
2. A stage after one that is to run again is stale: it is made from what will be made anew.
3. Where a process works on the run, it is at the first stage that is not done.

Everything is read and nothing is written, so a run may be looked at while it is going on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from rewrite.config import CallsConfig, Config, UserError
from rewrite.display.tables import Row
from rewrite.engines.ledger import cost, cost_of, peek_spent
from rewrite.run.files import read_json
from rewrite.run.finished import Finished
from rewrite.run.freshness import Stage, ask_again, check, stage_keys
from rewrite.run.store import ABSENT, partial_folder, why_stale

State = Literal["fresh", "there", "stale", "absent", "damaged", "running", "interrupted"]
DONE = ("fresh", "there")


@dataclass(frozen=True)
class Standing:
    """How a stage stands; what is not known is None."""

    stage: str
    artefacts: tuple[str, ...]
    state: State
    why: str = ""
    shards: tuple[int, int] | None = None
    """Finished and all, where some of a stage is done."""
    seconds: float | None = None
    bytes: int | None = None
    calls: int | None = None
    dollars: float | None = None


def find_keys(stages: Sequence[Stage], config: Config) -> dict[str, str]:
    """The key of each stage. Raises UserError where something that the config names is not there."""
    check(stages, config)
    for key, source in (("subject", config.subject), ("corpus.source", config.corpus.source)):
        if Path(source).is_absolute() and not Path(source).exists():
            raise UserError(f"{key} = {source}: not there; name a file or folder that is")
    return stage_keys(stages, config)


@dataclass(frozen=True)
class Looked:
    """A run that is looked at, with the prices by which a session that has not ended is counted."""

    run: Finished
    prices: CallsConfig

    @property
    def entries(self) -> dict[str, Row]:
        entries: dict[str, Row] = self.run.manifest["artefacts"]
        return entries

    def stand(self, stage: Stage, key: str | None, undone: frozenset[str]) -> Standing:
        """How a stage stands, where some artefacts before it are not what they are to become."""
        state, why = self._judge(stage, key, undone)
        waits = undone.intersection(stage.reads)
        begun = None if key is None or state in DONE or waits else self._find_begun(stage, key)
        shards = self._count_shards(begun) if begun and stage.name == "simulate" else None
        if begun and state != "damaged":
            state, why = "interrupted", "goes on from its last shard" if shards else "goes on from where it was"
        return Standing(stage.name, stage.writes, state, why, shards, *self._took(stage), *self._spent(stage.name))

    def _judge(self, stage: Stage, key: str | None, undone: frozenset[str]) -> tuple[State, str]:
        there = [name for name in stage.writes if name in self.entries]
        if not there:
            return "absent", ""
        if undone.intersection(stage.reads):
            return "stale", "what it is made from is to be made anew"
        for name in stage.writes:
            try:
                own = self.entries.get(name, {}).get("key") if key is None else key
                reason = why_stale(self.run.folder, self.entries, name, str(own), stage.reads)
            except (UserError, OSError) as error:
                return "damaged", str(error).removeprefix(f"{self.run.folder}/")
            if reason:
                return "stale", f"{name} is not there" if reason == ABSENT else reason
        again = ask_again(self.run.manifest, stage)
        if again and key is not None:
            return "stale", again
        return ("there", "made from what is there") if key is None else ("fresh", "")

    def _find_begun(self, stage: Stage, key: str) -> Path | None:
        """What a resumable stage has done so far; None where none was begun."""
        if any(name not in self.entries for name in stage.reads):
            return None
        inputs = {name: str(self.entries[name]["sha256"]) for name in stage.reads}
        parts = [partial_folder(self.run.folder, name, key, inputs) for name in stage.writes]
        return next((part for part in parts if part.is_dir()), None)

    def _count_shards(self, begun: Path) -> tuple[int, int]:
        """Shards that are simulated, and all."""
        splits = read_json(self.run.folder / "2_activations" / "documents.json")["splits"]
        finished = [file for file in begun.glob("*.json") if file.name != "simulator.json"]
        return len(finished), sum(len(splits[split]) for split in ("calibrate", "test"))

    def _took(self, stage: Stage) -> tuple[float | None, int | None]:
        """Seconds and bytes of what a stage has written."""
        seconds = [self.run.seconds[name] for name in stage.writes if name in self.entries]
        taken = round(sum(seconds), 2) if seconds else None
        return taken, _measure(self.run.folder / name for name in stage.writes)

    def _spent(self, stage: str) -> tuple[int | None, float | None]:
        """Calls and dollars of a stage."""
        spent = self.ledger.get(stage)
        return (None, None) if spent is None else (int(spent["calls"]), cost_of({stage: spent}))

    @cached_property
    def ledger(self) -> dict[str, Row]:
        """What each stage has spent: as the manifest says, or, in a session that has not ended, the cache."""
        kept = {stage: {"calls": spent["calls"], "cost": spent["cost"]} for stage, spent in self.run.ledger.items()}
        own = self.run.manifest.get("ledger", {}).get("id", "")
        beside = self.run.folder.parent / "calls.sqlite"
        spent = peek_spent(Path(self.run.setting("calls.cache") or beside), own)
        return kept | {stage: {"calls": s.calls, "cost": cost(s, self.prices)} for stage, s in spent.items()}


def _measure(paths: Iterable[Path]) -> int | None:
    """Bytes of files and folders; None where there is nothing, or it goes while it is looked at."""
    try:
        files = [file for path in paths if path.exists() for file in (path, *path.rglob("*"))]
        return sum(file.stat().st_size for file in files if file.is_file()) if files else None
    except OSError:
        return None


def find_standings(looked: Looked, stages: Sequence[Stage], keys: Mapping[str, str], at_work: bool) -> list[Standing]:
    """Every stage in order; a stage that `keys` lacks is not held against any config."""
    found: list[Standing] = []
    undone: frozenset[str] = frozenset()
    for stage in stages:
        standing = looked.stand(stage, keys.get(stage.name), undone)
        if standing.state not in DONE:
            if at_work and not undone and standing.state != "damaged":
                standing = replace(standing, state="running", why="")
            undone |= frozenset(stage.writes)
        found.append(standing)
    return found
