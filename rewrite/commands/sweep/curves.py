"""What the finished points of a sweep recovered, and what that comes to over seeds.

1. A point is read as `rewrite compare` reads a run: its share of the gap with its own interval, over documents. What
   its folder has of other settings is not read.
2. Points that differ in seeds alone are one cell: the mean share, with an interval over seeds and documents
   (`rewrite.commands.sweep.replicates`); of a single seed, that of its run. A cell in which a gap is not told from 0
   has no share.
3. What a cell is drawn against is its layer, the width of its coder, the words of its explanations, or any other key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewrite.commands.compare import describe, read_side
from rewrite.commands.compare.pairing import Side
from rewrite.commands.sweep.grid import Point
from rewrite.commands.sweep.replicates import Share, pool
from rewrite.config import UserError
from rewrite.run.files import hash_once, read_json
from rewrite.run.finished import LAST, Finished, open_finished
from rewrite.run.freshness import stage_keys, wanted
from rewrite.stages import STAGES

Row = dict[str, Any]


def is_seed(key: str) -> bool:
    """Whether a key names a draw: points that differ in nothing else are the same thing made again."""
    return key.rpartition(".")[2] == "seed"


@dataclass(frozen=True)
class Told:
    """A finished point: its row, and what its share is made of where its gap is told from 0."""

    point: Point
    row: Row
    share: Share | None
    alpha: float


def read_point(point: Point, folder: Path) -> Told:
    """A point that is finished. Raises UserError where it is not, or only with other settings."""
    run = open_finished(folder / point.name, point.name)
    _check_settings(point, run)
    result: Row = read_json(run.path("6_stats.json"))
    side = read_side(run, result)
    own = describe(side, result)
    row: Row = {
        "point": point.name,
        **point.values,
        "layer": layer_of(point.config.hookpoint),
        "width": read_json(run.folder / "2_activations" / "documents.json")["latents"],
        **{
            key: own[key] for key in ("words", "gap", "recovered", "recovered_ci", "loss", "verdict", "seconds", "cost")
        },
        "documents": len(side.scored),
        "tokens": int(side.tokens.sum()),
    }
    return Told(point, row, _share(side) if own["recovered"] is not None else None, side.alpha)


def _check_settings(point: Point, run: Finished) -> None:
    """Refuse results of other settings than the point's: what was to replace them failed. That the artefacts are made
    from each other is known, and what they hold is looked at where they are read."""
    keys, entries = stage_keys(STAGES, point.config), run.manifest["artefacts"]
    for stage in wanted(STAGES, point.config):
        if any(entries.get(artefact, {}).get("key") != keys[stage.name] for artefact in stage.writes):
            raise UserError(f"{run.folder}: not finished with these settings ({stage.name} is to be made anew)")
        if LAST in stage.writes:
            return


def layer_of(hookpoint: str) -> int | None:
    """The number of a hookpoint's layer."""
    found = re.search(r"\.(\d+)(?:\.|$)", hookpoint)
    return int(found[1]) if found else None


def _share(side: Side) -> Share:
    zero = side.losses["zero"]
    names = tuple(f"{document.name} {document.sha256}" for document in side.scored)
    return Share(zero - side.losses["simulated"], zero - side.losses["coder"], names)


def pool_cells(told: Sequence[Told]) -> list[Row]:
    """A row for each combination of values that are no seeds, in the order of the points."""
    cells: dict[str, list[Told]] = {}
    for one in told:
        cells.setdefault(str([pair for pair in one.point.values.items() if not is_seed(pair[0])]), []).append(one)
    return [_pool(own) for own in cells.values()]


def _pool(own: Sequence[Told]) -> Row:
    first = own[0]
    words = [one.row["words"] for one in own if one.row["words"] is not None]
    row: Row = {
        **{key: value for key, value in first.point.values.items() if not is_seed(key)},
        "layer": first.row["layer"],
        "width": first.row["width"],
        "words": sum(words) / len(words) if words else None,
        "gap": sum(one.row["gap"] for one in own) / len(own),
        "seeds": len(own),
        "documents": min(one.row["documents"] for one in own),
        **dict.fromkeys(("recovered", "recovered_ci", "documents_ci", "se_documents", "se_seeds")),
        "points": [one.point.name for one in own],
    }
    shares = [one.share for one in own if one.share is not None]
    if len(shares) < len(own):
        return row
    if len(own) == 1:
        ends = first.row["recovered_ci"]
        return row | {"recovered": first.row["recovered"], "recovered_ci": ends, "documents_ci": ends}
    pooled = pool(shares, first.alpha)
    return row | {
        "recovered": pooled.value,
        "recovered_ci": [pooled.interval.low, pooled.interval.high],
        "documents_ci": [pooled.over_documents.low, pooled.over_documents.high],
        "se_documents": pooled.se_documents,
        "se_seeds": pooled.se_seeds,
    }


def find_axes(points: Sequence[Point]) -> list[str]:
    """The keys that vary, in the order of the grid."""
    keys = dict.fromkeys(key for point in points for key in point.values)
    return [key for key in keys if len({str(point.values.get(key)) for point in points}) > 1]


def read_finished(points: Sequence[Point], folder: Path) -> tuple[list[Told], dict[str, str]]:
    """The points that are finished, and why the others cannot be read."""
    told, faults = [], dict[str, str]()
    with hash_once():
        for point in points:
            try:
                told.append(read_point(point, folder))
            except UserError as error:
                faults[point.name] = str(error).removeprefix(f"{folder / point.name}: ")
    return told, faults
