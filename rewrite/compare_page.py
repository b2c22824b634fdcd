"""`rewrite compare --out FILE.html`: the comparison as one page that opens from disk, and each latent in all runs.

1. What is said of the runs, the pairs and the settings is the `Page` of `rewrite.comparison`, cell by cell.
2. Runs that share a coder share its latents: those of the largest such group stand side by side (`set_side_by_side`),
   with each run's score and cost of a latent and its explanation.
3. All of it is one file: style, scripts and data are in it, and nothing is loaded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq

from rewrite.explanations import load_explanations
from rewrite.finished import Finished, hash_coder, open_finished
from rewrite.gathering import read_costs
from rewrite.page import render_page
from rewrite.tables import Page, Row, numeric

COSTS = "5_costs.parquet"
DIGITS = 5
"""Significant digits of a latent's numbers."""


@dataclass(frozen=True)
class Strip:
    """A share recovered with its interval, as places on an axis that all runs have in common [share of its width]."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Axis:
    """Where 0 and 1 stand on that axis."""

    zero: float
    one: float
    strips: tuple[Strip | None, ...]


def render(folders: Sequence[Path], page: Page, out: Path) -> str:
    """The page for a place on disk, which its links start from."""
    names = [str(run["run"]) for run in page.facts["runs"]]
    runs = [open_finished(folder, name) for folder, name in zip(folders, names, strict=True)]
    reports = [link_report(run, out) for run in runs]
    shared = find_shared(runs)
    return render_page(
        "compare.html.jinja",
        ("page.js", "compare.js"),
        page=page,
        reports=reports,
        axis=draw_axis(page.facts["runs"]),
        numeric=[numeric(table) for table in page.tables],
        shared=[names[number] for number in shared],
        latents=_to_json(set_side_by_side([runs[n] for n in shared], [reports[n] for n in shared])) if shared else "",
    )


def link_report(run: Finished, out: Path) -> str | None:
    """The address of a run's own page from the place of this one; None where it has none."""
    own = run.folder / "7_report" / "index.html"
    return quote(os.path.relpath(own.resolve(), out.resolve().parent)) if own.is_file() else None


def draw_axis(runs: Sequence[Row]) -> Axis:
    """Each run's share and interval on one axis, which holds all of them and 0 and 1."""
    intervals = [run["recovered_ci"] if run["recovered"] is not None else None for run in runs]
    ends = [end for interval in intervals if interval for end in interval]
    low, high = min([0.0, *ends]), max([1.0, *ends])

    def place(value: float) -> float:
        return float(round((value - low) / (high - low), 4))

    strips = (
        Strip(place(interval[0]), place(run["recovered"]), place(interval[1])) if interval else None
        for run, interval in zip(runs, intervals, strict=True)
    )
    return Axis(place(0.0), place(1.0), tuple(strips))


# --- the latents ------------------------------------------------------------------------------------------------------


def find_shared(runs: Sequence[Finished]) -> list[int]:
    """The places of the runs that share a coder, the most that do; empty where no two do."""
    coders = [hash_coder(run) for run in runs]
    most = max(coders, key=coders.count)
    return [number for number, coder in enumerate(coders) if coder == most] if coders.count(most) > 1 else []


def set_side_by_side(runs: Sequence[Finished], reports: Sequence[str | None]) -> Row:
    """Each latent that a run rewrote: what every run says of it, and how good and how costly that is.

    The difference of two runs' scores is the first less the second; of more, the largest less the smallest.
    """
    rewritten = [pq.read_table(run.path("5_latents.parquet"), columns=["latent"]).column(0).to_pylist() for run in runs]
    latents = sorted(set[int]().union(*rewritten))
    rows = [_read_costs(run) for run in runs]
    texts = [{e.latent: e.text for e in load_explanations(run.path("3_explanations.jsonl"))} for run in runs]
    scores = [[_short(own.get(latent, {}).get("simulation")) for latent in latents] for own in rows]
    return {
        "runs": [run.name for run in runs],
        "reports": list(reports),
        "latents": latents,
        "scores": scores,
        "costs": [[_short(own.get(latent, {}).get("cost")) for latent in latents] for own in rows],
        "texts": [[own.get(latent) for latent in latents] for own in texts],
        "differences": [_differ(values) for values in zip(*scores, strict=True)],
    }


def _read_costs(run: Finished) -> dict[int, Row]:
    """Each latent's row of `5_costs.parquet`; none where the run is older than costs."""
    if COSTS not in run.manifest["artefacts"]:
        return {}
    costs = open_finished(run.folder, run.name, last=COSTS).path(COSTS)
    return {int(row["latent"]): row for row in read_costs(costs)}


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def _differ(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    return _short(known[0] - known[1] if len(values) == 2 else max(known) - min(known))


def _to_json(value: Row) -> str:
    """JSON that may stand in a script element, where `<` could end it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
