"""The page, report.md and the CSV files say the numbers of 6_stats.json, and the same ones: read back from all four."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from makers.big_run import SMALL, big_config, make_big_run

from rewrite.report.arms import select_ladder
from rewrite.run.store import Run
from rewrite.stages import report

Row = dict[str, Any]
Cells = list[str]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_big_run(tmp_path_factory.mktemp("same") / "run", SMALL)
    with Run(folder) as run:
        report.run(big_config(), run)
    return folder


@pytest.fixture(scope="module")
def stats(run_folder: Path) -> Row:
    found: Row = json.loads((run_folder / "6_stats.json").read_text())
    return found


class Tables(HTMLParser):
    """The rows of all tables of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Cells] = []
        self.cell: str | None = None

    def handle_starttag(self, tag: str, attributes: object) -> None:
        if tag == "tr":
            self.rows.append([])
        self.cell = "" if tag in ("td", "th") else self.cell

    def handle_data(self, data: str) -> None:
        self.cell = None if self.cell is None else self.cell + data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self.cell is not None:
            self.rows[-1].append(self.cell.strip())
            self.cell = None


@pytest.fixture(scope="module")
def shown(run_folder: Path) -> dict[str, list[Cells]]:
    """The cells of every table row: of the page, and of report.md."""
    page = Tables()
    page.feed((run_folder / "7_report" / "index.html").read_text(encoding="utf-8"))
    lines = (run_folder / "7_report" / "report.md").read_text(encoding="utf-8").splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    markdown = [[re.sub(r"\\(.)", r"\1", cell).replace("**", "").strip() for cell in row] for row in cells]
    return {"index.html": page.rows, "report.md": markdown}


def stands(row: Cells, rows: list[Cells]) -> bool:
    """Whether some row has these cells, in this order and next to each other."""
    return any(row == other[i : i + len(row)] for other in rows for i in range(len(other) - len(row) + 1))


def plain(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def ends(interval: list[float] | None, scale: float = 1.0, digits: int = 4) -> str:
    return "" if interval is None else "[" + ", ".join(plain(scale * end, digits) for end in interval) + "]"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def chance(p: float) -> str:
    return "< 1e-15" if p < 1e-15 else f"{p:.2g}"


def reach(row: Row) -> Cells:
    """What an arm adds to the clean model's loss, and what it recovers."""
    recovered = [percent(row["recovered"]), ends(row["recovered_ci"], 100, 1)]
    return [plain(row["increase"]), ends(row["increase_ci"]), *recovered]


def list_rows(stats: Row) -> Iterator[Cells]:
    """What 6_stats.json says, as every report must say it."""
    for row in select_ladder(stats):
        yield [plain(row["loss"]), plain(row["se"]), *reach(row)]
    for row in [*stats["averages"], *(row for row in stats["arms"] if row["order"] == "best")]:
        if row["arm"] == "simulated":
            yield [f"{100 * row['fraction']:.3g}%", plain(row["loss"]), plain(row["increase"])]
    for row in stats["comparisons"]:
        numbers = [plain(row["delta"]), ends(row["ci"]), *(chance(row[p]) for p in ("p_holm", "p_sign_flip"))]
        yield [row["reference"], *numbers, chance(row["p_equivalence"]), plain(row["mde"]), row["verdict"]]
    for row in stats["split"]:
        yield [plain(row["nats"]), ends(row["ci"]), percent(row["share"])]
    for row in stats["calibration"]:
        yield [str(row["strength"]), f"{row['predictions']:,}", plain(row["predicted"]), plain(row["true"])]
    for row in stats["places"]:
        for own in row["arms"][1:]:
            yield [f"{row['tokens']:,}", own["arm"], *reach(own)]


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_every_number_of_the_statistics_is_shown(name: str, stats: Row, shown: dict[str, list[Cells]]) -> None:
    rows = list(list_rows(stats))
    assert len(rows) > 60
    assert [row for row in rows if not stands(row, shown[name])] == []


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_the_gap_and_the_verdict_are_the_statistics(name: str, stats: Row, run_folder: Path) -> None:
    text = (run_folder / "7_report" / name).read_text(encoding="utf-8")
    assert stats["verdict"]["sentence"] in text.replace("&lt;", "<")
    assert plain(stats["gap"]["nats"]) in text
    assert ends(stats["gap"]["ci"]) in text


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def same(cell: str, value: object) -> bool:
    return cell == "" if value is None else float(cell) == value if isinstance(value, float) else cell == str(value)


@pytest.mark.parametrize("name", ["comparisons", "split", "calibration", "ladder"])
def test_csv_files_hold_the_numbers_in_full(name: str, stats: Row, run_folder: Path) -> None:
    rows = select_ladder(stats) if name == "ladder" else stats[name]
    found = read_csv(run_folder / "7_report" / f"{name}.csv")
    assert len(found) == len(rows) > 0
    for cells, row in zip(found, rows, strict=True):
        for key, value in row.items():
            if isinstance(value, list):
                stem = key.removesuffix("ci")
                assert same(cells[f"{stem}low"], value[0]) and same(cells[f"{stem}high"], value[1])
            elif not key.endswith("ci"):
                assert same(cells[key], value), key


def test_the_csv_file_of_places_has_every_arm_of_every_bin(stats: Row, run_folder: Path) -> None:
    found = read_csv(run_folder / "7_report" / "places.csv")
    arms = [own for row in stats["places"] for own in row["arms"]]
    assert [(cells["arm"], float(cells["loss"])) for cells in found] == [(own["arm"], own["loss"]) for own in arms]


def test_every_image_is_there_and_is_one(run_folder: Path) -> None:
    folder = run_folder / "7_report"
    images = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (folder / "report.md").read_text(encoding="utf-8"))
    names = ["ladder", "split", "position", "frequency", "calibration", "fractions", "costs", "damage"]
    assert images == [f"{name}.png" for name in names]
    for name in names:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")


def test_the_same_run_gives_the_same_bytes(run_folder: Path) -> None:
    before = {p.name: p.read_bytes() for p in (run_folder / "7_report").rglob("*") if p.is_file()}
    with Run(run_folder) as run:
        report.run(big_config(), run)
    after = {p.name: p.read_bytes() for p in (run_folder / "7_report").rglob("*") if p.is_file()}
    assert [name for name in before if before[name] != after.get(name)] == []
