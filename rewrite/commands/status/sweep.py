"""`rewrite status` of a sweep: a row for every point, as `rewrite.commands.status` tells of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewrite.commands.status import status
from rewrite.commands.status.standing import DONE
from rewrite.config import UserError
from rewrite.display import tables
from rewrite.display.tables import Page, Row, Table
from rewrite.run.files import find_holder, hash_once, read_json
from rewrite.run.finished import SWEEP

SUMMED = ("seconds", "bytes", "calls", "dollars")


def status_of_sweep(folder: Path) -> Page:
    """The page of a sweep's folder. Raises UserError where it does not say what is in it."""
    file = folder / SWEEP
    mark = read_json(file)
    try:
        names = [str(point["name"]) for point in mark["points"]]
        faults, command = dict[str, str](mark["faults"]), str(mark["command"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{file}: does not say the points of a sweep; run the sweep again") from None
    with hash_once():
        points = [_describe(folder / name) for name in names]
    holder = find_holder(folder)
    fresh = sum(point["state"] == "fresh" for point in points)
    page = folder / "index.html"
    facts: Row = {
        "schema": 1,
        "sweep": folder.resolve().name,
        "fresh": fresh == len(points),
        "holder": holder,
        "points": points,
        "total": {key: _sum([point[key] for point in points]) for key in SUMMED},
        "faults": faults,
        "page": str(page) if page.is_file() else None,
        "next": "" if holder or fresh == len(points) else command,
    }
    notes = [f"{name}: {fault}" for name, fault in faults.items()]
    notes += [f"In use by {holder}."] if holder else []
    notes += [f"Page: {page}"] if facts["page"] else []
    notes += ["Next:"] if facts["next"] else []
    title = f"Sweep {facts['sweep']}: {fresh} of {len(points)} points are fresh"
    return Page(title, (_table(facts),), tuple(notes), facts, facts["next"])


def _describe(folder: Path) -> Row:
    """How a point stands; a run that cannot be told of is what it is damaged by."""
    row: Row = {"point": folder.name, "done": 0, "stages": None, "state": "not there yet", "why": ""}
    row |= dict.fromkeys(SUMMED)
    if not (folder / "manifest.json").is_file():
        return row
    try:
        facts = status(folder).facts
    except UserError as error:
        return row | {"state": "damaged", "why": str(error).removeprefix(f"{folder}/")}
    stages: list[Row] = facts["stages"]
    waiting = next((stage for stage in stages if stage["state"] not in DONE), None)
    return row | {
        "done": sum(stage["state"] in DONE for stage in stages),
        "stages": len(stages),
        "state": "fresh" if waiting is None else waiting["state"],
        "why": "" if waiting is None else ": ".join(filter(None, (waiting["stage"], waiting["why"]))),
        **facts["total"],
    }


def _sum(values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _table(facts: Row) -> Table:
    heads = ("point", "stages", "state", "seconds", "size", "calls", "dollars")
    total = {"point": "in all", "done": 0, "stages": None, "state": "", "why": ""} | facts["total"]
    rows = tuple(
        (
            row["point"],
            "" if row["stages"] is None else f"{row['done']} of {row['stages']}",
            ": ".join(filter(None, ("not there yet" if row["state"] == "absent" else row["state"], row["why"]))),
            tables.number(row["seconds"], 1),
            tables.size(row["bytes"]),
            tables.count(row["calls"]),
            tables.dollars(row["dollars"]),
        )
        for row in (*facts["points"], total)
    )
    return Table("Points, how far each has come, and what it took", heads, rows)
