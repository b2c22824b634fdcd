"""The page of a sweep, `index.html` in its folder, with `points.csv`, `curves.csv` and the figures beside it.

What is said of a point is its own report's, which the page links to; the page opens from disk and loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rewrite.commands.sweep.curves import find_axes, is_seed, pool_cells, read_finished
from rewrite.commands.sweep.figures import draw_curves, tell_value
from rewrite.commands.sweep.grid import Point
from rewrite.display import tables
from rewrite.display.csvs import write_csv
from rewrite.display.tables import Page, Row, Table, numeric
from rewrite.report.figures.pictures import save_picture
from rewrite.report.page import render_page
from rewrite.run.files import write_whole

SCRIPTS = ("page.js",)


@dataclass(frozen=True)
class Facts:
    """What the page's templates ask for: rows of the tables that also are CSV files."""

    tables: dict[str, list[Row]]


def write_sweep(folder: Path, points: Sequence[Point], faults: Mapping[str, str]) -> Page:
    """Write the page and its tables; what is printed. `faults` are those of jobs, by name."""
    told, unread = read_finished(points, folder)
    cells, axes = pool_cells(told), find_axes(points)
    facts = Facts({"curves": cells, "points": [one.row for one in told]})
    page = _describe(points, facts, axes, {**unread, **faults}, folder)
    pictures = {drawn.name: save_picture(drawn, folder) for drawn in draw_curves(cells, axes, told)} if cells else {}
    for name, rows in facts.tables.items():
        write_csv(rows, folder / f"{name}.csv")
    html = render_page(
        "sweep.html.jinja",
        SCRIPTS,
        page=page,
        facts=facts,
        pictures=pictures,
        numeric=[numeric(table) for table in page.tables],
        links=[_link(folder, one.point.name) for one in told],
        names=[one.point.name for one in told],
    )
    write_whole(folder / "index.html", html.encode("utf-8", errors="replace"))
    return page


def _link(folder: Path, name: str) -> str | None:
    """The address of a point's report from the page."""
    place = Path(name, "7_report", "index.html")
    return quote(place.as_posix()) if (folder / place).is_file() else None


def _describe(
    points: Sequence[Point], facts: Facts, axes: Sequence[str], faults: Mapping[str, str], folder: Path
) -> Page:
    cells, rows = facts.tables["curves"], facts.tables["points"]
    keys = [key for key in axes if not is_seed(key)]
    shown = []
    if cells:
        shown.append(_table_of_cells(cells, keys))
        shown.append(_table_of_points(rows, axes))
    if faults:
        shown.append(Table("What was not made", ("job or point", "why"), tuple(faults.items())))
    notes = []
    if cells:
        notes = [_explain_intervals(cells), f"Page: {folder / 'index.html'}"]
    given: Row = {
        "schema": 1,
        "points": rows,
        "curves": cells,
        "faults": dict(faults),
        "page": str(folder / "index.html"),
    }
    title = f"Sweep over {' and '.join(axes) or 'nothing'}: {len(rows)} of {len(points)} points are finished"
    return Page(title, tuple(shown), tuple(notes), given)


def _explain_intervals(cells: Sequence[Row]) -> str:
    most = max(cell["seeds"] for cell in cells)
    if most == 1:
        return "Intervals are over documents alone: each setting was made with one seed."
    return (
        "Intervals of a setting count its seeds and the documents: a new seed would give another coder. Those of a "
        "point are over documents alone."
    )


def _table_of_cells(cells: Sequence[Row], keys: Sequence[str]) -> Table:
    heads = (*(keys or ("setting",)), "width", "words", "seeds", "documents", "gap [nats]", "recovered [%]")
    heads = (*heads, "error over documents [%]", "error over seeds [%]")
    rows = tuple(
        (
            *([tell_value(cell[key]) for key in keys] or ["all"]),
            tables.count(cell["width"]),
            tables.number(cell["words"], 1),
            str(cell["seeds"]),
            str(cell["documents"]),
            tables.number(cell["gap"], 3),
            tables.ranged(cell["recovered"], cell["recovered_ci"], 1, 100.0),
            tables.number(_percent(cell["se_documents"]), 2),
            tables.number(_percent(cell["se_seeds"]), 2),
        )
        for cell in cells
    )
    return Table("Each setting, over its seeds", heads, rows)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _table_of_points(rows: Sequence[Row], axes: Sequence[str]) -> Table:
    heads = (*(axes or ("point",)), "words", "gap [nats]", "recovered [%]", "against zero", "cost", "seconds")
    cells = tuple(
        (
            *([tell_value(row[key]) for key in axes] or [row["point"]]),
            tables.number(row["words"], 1),
            tables.number(row["gap"], 3),
            tables.ranged(row["recovered"], row["recovered_ci"], 1, 100.0),
            row["verdict"] or "no verdict",
            tables.dollars(row["cost"]),
            tables.number(row["seconds"], 0),
        )
        for row in rows
    )
    return Table("Each point", heads, cells)
