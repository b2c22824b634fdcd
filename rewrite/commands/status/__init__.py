"""`rewrite status`: a run's stages, what is fresh, how far it has come, what it cost, and what to do next.

1. Nothing is locked for longer than a look, and nothing is written, so it may be asked while the run is going on. Where
   the manifest changed while it was read, all is read again.
2. The config is the one that is given, else the run's own from its manifest.
3. How the stages stand is `rewrite.commands.status.standing`'s to say; a run that was moved away from its subject or
   corpus is told as far as that is known.
4. Beside that stands what each stage took and asked, the verdict, the report, and the command that goes on from here.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rewrite.commands.status.standing import DONE, Looked, Standing, find_keys, find_standings
from rewrite.config import Config, UserError
from rewrite.display import tables
from rewrite.display.tables import Page, Row, Table
from rewrite.engines.ledger import cost_of
from rewrite.run.configs import load_config, read_recorded
from rewrite.run.files import find_holder, read_json
from rewrite.run.finished import LAST, Finished
from rewrite.run.freshness import Stage, wanted
from rewrite.run.store import ABSENT
from rewrite.stages import STAGES

SHOWN = {"absent": ABSENT}
"""States that are told in other words."""
REPORT = "7_report"

TRIES = 3
"""How often a manifest that changes while it is read is read again."""


@dataclass(frozen=True)
class Asked:
    """The config that a run is held against, and how it was named; `options` go into the next command."""

    config: Config
    own: bool
    """It is the one in the run's manifest."""
    options: tuple[str, ...]
    """What names this config on the command line, beside the run folder, which records its own."""
    notes: tuple[str, ...] = ()


def status(folder: Path, file: Path | None = None, overrides: Iterable[str] = (), preset: str = "") -> Page:
    """The page of a run. Raises UserError where there is none, or where the config that is given does not fit."""
    for _ in range(TRIES):
        manifest = _read_manifest(folder)
        asked = _ask(folder, manifest, file, tuple(overrides), preset)
        page = _describe(folder, manifest, asked)
        if _read_manifest(folder) == manifest:
            break
    return page


def _read_manifest(folder: Path) -> Row:
    path = folder / "manifest.json"
    if not path.is_file():
        raise UserError(f"{folder}: no run there (no manifest.json); name a run folder with --run")
    manifest = read_json(path)
    try:
        for entry in manifest["artefacts"].values():
            _ = str(entry["sha256"] + entry["key"]), dict(entry["inputs"]), float(entry["seconds"])
        for spent in manifest.get("calls", {}).values():
            _ = int(spent["calls"]), float(spent["cost"]), float(spent["seconds"])
        _ = str(manifest.get("ledger", {}).get("id", ""))
    except (TypeError, KeyError, ValueError, AttributeError):
        raise UserError(f"{path}: not the manifest of a run; restore it, or name another folder with --run") from None
    return dict(manifest)


# --- the config -------------------------------------------------------------------------------------------------------


def _ask(folder: Path, manifest: Row, file: Path | None, overrides: tuple[str, ...], preset: str) -> Asked:
    over = tuple(word for pair in overrides for word in ("--set", pair))
    laid = ("--preset", preset) if preset else ()
    if file is None:
        recorded = read_recorded(folder / "manifest.json", manifest, overrides, preset)
        unknown = recorded.describe_unknown()
        return Asked(recorded.config, not (laid or over), (*laid, *over), (unknown,) if unknown else ())
    return Asked(load_config(file, list(overrides), preset), False, ("--config", str(file), *laid, *over))


# --- what is shown ----------------------------------------------------------------------------------------------------


def _describe(folder: Path, manifest: Row, asked: Asked) -> Page:
    unknown, keys = "", dict[str, str]()
    try:
        keys = find_keys(STAGES, asked.config)
    except UserError as error:
        if not asked.own:
            raise
        unknown = str(error)
    holder = find_holder(folder)
    looked = Looked(Finished(folder, folder.resolve().name, manifest), asked.config.calls)
    had = _list_stages(asked, looked)
    stages = find_standings(looked, had, keys, bool(holder) and asked.own)
    page = folder / REPORT / "index.html"
    facts: Row = {
        "schema": 1,
        "run": looked.run.name,
        "fresh": all(standing.state == "fresh" for standing in stages),
        "holder": holder,
        "unknown": unknown,
        "stages": [asdict(standing) for standing in stages],
        "total": {
            "seconds": round(sum(standing.seconds or 0.0 for standing in stages), 2),
            "bytes": sum(standing.bytes or 0 for standing in stages),
            "calls": sum(int(spent["calls"]) for spent in looked.ledger.values()),
            "dollars": cost_of(looked.ledger),
        },
        "verdict": _read_stats(looked.run, "verdict", "sentence"),
        "mass": _read_stats(looked.run, "mass", "median"),
        "report": str(page) if page.is_file() and _told(stages, bool(unknown)) else None,
        "next": "" if holder else _next(folder, stages, asked),
    }
    return Page(_title(facts), (_table(facts),), (*asked.notes, *_notes(facts)), facts, facts["next"])


def _list_stages(asked: Asked, looked: Looked) -> tuple[Stage, ...]:
    """The stages that a run has; where its backends are not here to say, those of which something is there."""
    try:
        return wanted(STAGES, asked.config)
    except UserError:
        there = [stage for stage in STAGES if stage.only is None or looked.entries.keys() & set(stage.writes)]
        return wanted([replace(stage, only=None) for stage in there], asked.config)


def _read_stats(run: Finished, part: str, key: str) -> Any:
    """What the statistics that are there say, be they fresh or not; None where they say nothing."""
    if LAST not in run.manifest["artefacts"]:
        return None
    try:
        return read_json(run.folder / LAST)[part][key]
    except (UserError, KeyError, TypeError):
        return None


def _told(stages: list[Standing], unknown: bool) -> bool:
    """Whether the report that is there tells of the run as it is, as far as can be known."""
    return unknown or all(standing.state in DONE for standing in stages if REPORT in standing.artefacts)


def _next(folder: Path, stages: list[Standing], asked: Asked) -> str:
    """The command that goes on from here."""
    done = all(standing.state in DONE for standing in stages)
    command = ("report", "--open") if done else ("run",)
    return shlex.join(["rewrite", *command, "--run", str(folder), *asked.options])


def _title(facts: Row) -> str:
    stages = facts["stages"]
    done = sum(stage["state"] in DONE for stage in stages)
    return f"Run {facts['run']}: {done} of {len(stages)} stages are {'there' if facts['unknown'] else 'fresh'}"


def _table(facts: Row) -> Table:
    heads = ("stage", "writes", "state", "seconds", "size", "calls", "dollars")
    total = {"stage": "in all", "artefacts": (), "state": "", "why": "", "shards": None} | facts["total"]
    rows = tuple(_cells(row) for row in (*facts["stages"], total))
    return Table("Stages, what each has written, and what it took", heads, rows)


def _cells(row: Row) -> tuple[str, ...]:
    shards = "" if row["shards"] is None else f"{row['shards'][0]:,} of {row['shards'][1]:,} shards"
    return (
        row["stage"],
        ", ".join(row["artefacts"]),
        ": ".join(word for word in (SHOWN.get(row["state"], row["state"]), shards, row["why"]) if word),
        tables.number(row["seconds"], 1),
        tables.size(row["bytes"]),
        tables.count(row["calls"]),
        tables.dollars(row["dollars"]),
    )


def _notes(facts: Row) -> list[str]:
    notes = []
    if facts["unknown"]:
        notes.append(f"Whether settings changed is not known: {facts['unknown']}.")
    if facts["holder"]:
        notes.append(f"In use by {facts['holder']}.")
    if facts["verdict"]:
        analysed = next(stage["state"] for stage in facts["stages"] if LAST in stage["artefacts"])
        notes.append(
            facts["verdict"] if analysed in DONE else f"From statistics that are not fresh: {facts['verdict']}"
        )
    if facts["mass"] is not None:
        notes.append(f"Mass on digits where ratings are read: {100 * facts['mass']:.3g}% in the median.")
    if facts["total"]["calls"] and facts["total"]["dollars"] is None:
        notes.append("No price: set calls.price_in and calls.price_out.")
    if facts["report"]:
        notes.append(f"Report: {facts['report']}")
    elif any(stage["state"] == "stale" and REPORT in stage["artefacts"] for stage in facts["stages"]):
        notes.append("The report that is there is not of this run as it is now.")
    if facts["next"]:
        notes.append("Next:")
    return notes
