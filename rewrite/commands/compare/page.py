"""`rewrite compare --out FILE.html`: the comparison as one page that opens from disk, and each latent in all runs.

1. What is said of the runs, the pairs and the settings is the `Page` of `rewrite.commands.compare`, cell by cell.
2. Runs that share a coder share its latents: those of the largest such group stand side by side (`set_side_by_side`),
   with each run's score and cost of a latent and its explanation.
3. All of it is one file: style, scripts and data are in it, and nothing is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq

from rewrite.commands.compare.pairing import hash_coder
from rewrite.display.tables import Page, Row, numeric
from rewrite.explainers.explanations import load_explanations
from rewrite.report.gathering import read_rows
from rewrite.report.page import render_page
from rewrite.report.scripts import Number, encode, round_number
from rewrite.run.finished import Finished, open_finished

SCORES, COSTS = "4_scores.parquet", "5_costs.parquet"
SCRIPTS = ("page.js", "listing.js", "compare.js")
HOMES = ("", "home", "Users")
"""What folders are called in which homes are, the root too: what stands in them says whose page it is."""


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
        SCRIPTS,
        page=page,
        reports=reports,
        axis=draw_axis(page.facts["runs"]),
        numeric=[numeric(table) for table in page.tables],
        shared=[names[number] for number in shared],
        latents=encode(set_side_by_side([runs[n] for n in shared], [reports[n] for n in shared])) if shared else "",
    )


def link_report(run: Finished, out: Path) -> str | None:
    """The address of a run's own page from the place of this one; None where it has none, or is too far away.

    Near is below this page's folder or that one's parent, without a folder of homes between: the address of anything
    else would say of a home, and lead nowhere once the page is moved.
    """
    own, here = (run.folder / "7_report" / "index.html").resolve(), out.resolve().parent
    top = next((folder for folder in (here, here.parent) if own.is_relative_to(folder)), None)
    if top is None or not own.is_file():
        return None
    between = [folder for folder in own.parents if folder.is_relative_to(top)]
    return None if any(folder.name in HOMES for folder in between) else quote(os.path.relpath(own, here))


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
    texts = [{e.latent: e.text for e in load_explanations(run.path("3_explanations.jsonl"))} for run in runs]
    scores = [_read_column(run, SCORES, "simulation", latents) for run in runs]
    return {
        "runs": [run.name for run in runs],
        "reports": list(reports),
        "latents": latents,
        "scores": scores,
        "costs": [_read_column(run, COSTS, "cost", latents) for run in runs],
        "texts": [[own.get(latent) for latent in latents] for own in texts],
        "differences": [_differ(values) for values in zip(*scores, strict=True)],
    }


def _read_column(run: Finished, artefact: str, column: str, latents: Sequence[int]) -> list[Number]:
    """A number of each latent; unknown where the run is older than the file, or did not measure it."""
    if artefact not in run.manifest["artefacts"]:
        return [None] * len(latents)
    rows = read_rows(open_finished(run.folder, run.name, last=artefact).path(artefact))
    known = {row["latent"]: row.get(column) for row in rows}
    return [round_number(known.get(latent)) for latent in latents]


def _differ(values: Sequence[Number]) -> Number:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    return round_number(known[0] - known[1] if len(values) == 2 else max(known) - min(known))
