"""The page as a file: its numbers are the report's, its policy names its scripts, its colours can be read."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.facts_made import make_facts, make_stats

from rewrite.report import page as page_package
from rewrite.report.arms import name_plainly
from rewrite.report.page import SCRIPTS, show
from rewrite.report.page.formats import FILTERS
from rewrite.report.page.templates import open_templates
from rewrite.stages.report import write_facts

HERE = Path(page_package.__file__).parent
Cells = list[list[str]]
NUMBER = re.compile(r"[\[<]?\s?-?\d[\d.,%e\]\s-]*$")
Row = dict[str, Any]


class Reader(HTMLParser):
    """Tables, identifiers and scripts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[Cells] = []
        self.identifiers: list[str] = []
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.policy = ""
        self._within: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.identifiers += [value for name, value in attrs if name == "id" and value]
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"] or ""
        self._within = tag if tag in ("th", "td", "script") else self._within
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        elif tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts[-1] += data
        elif self._within:
            self.tables[-1][-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._within = None if tag in ("th", "td", "script") else self._within


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def markdown_tables(text: str) -> list[Cells]:
    """The tables of a Markdown page, without what escapes; each begins with its head."""
    tables: list[Cells] = [[]]
    for line in text.split("\n"):
        if not line.startswith("|"):
            tables.append([])
        elif not re.fullmatch(r"[|:-]+", line):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            tables[-1].append([re.sub(r"\\(.)", r"\1", cell.strip()).strip("*") for cell in cells])
    return [table for table in tables if table]


@pytest.fixture(scope="module")
def stats(tmp_path_factory: pytest.TempPathFactory) -> Row:
    return make_stats(tmp_path_factory.mktemp("stats") / "losses.parquet", topk=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, stats: Row) -> Path:
    found = tmp_path_factory.mktemp("page")
    write_facts(make_facts(stats, faults={"timeout": 3}), found)
    return found


@pytest.fixture(scope="module")
def page(folder: Path) -> Reader:
    return read((folder / "index.html").read_text(encoding="utf-8"))


def table_of(page: Reader, *head: str) -> Cells:
    """The rows of the first table whose head begins so."""
    return next(table[1:] for table in page.tables if table[0][: len(head)] == list(head))


def test_every_table_of_the_markdown_page_stands_on_the_page_with_the_same_numbers(page: Reader, folder: Path) -> None:
    shown = [row for table in page.tables for row in table]
    tables = markdown_tables((folder / "report.md").read_text(encoding="utf-8"))
    assert len(tables) >= 12
    compared = 0
    for row in (row for table in tables for row in table[1:]):
        wanted = [cell for cell in row if NUMBER.match(cell)]
        assert any(_holds(own, wanted) for own in shown), row
        compared += len(wanted)
    assert compared > 300


def _holds(row: list[str], wanted: list[str]) -> bool:
    rest = [cell.strip() for cell in row]
    for cell in wanted:
        if cell not in rest:
            return False
        rest.remove(cell)
    return True


def test_the_first_screen_and_the_ladder_hold_the_numbers_of_the_statistics(
    page: Reader, folder: Path, stats: Row
) -> None:
    text = (folder / "index.html").read_text(encoding="utf-8")
    gap, nats = stats["gap"], FILTERS["nats"]
    assert f'<dd class="large">{nats(gap["nats"])} <small>' in text
    assert f"95% interval [{nats(gap['ci'][0])}, {nats(gap['ci'][1])}]" in text
    whole = next(row for row in stats["arms"] if (row["arm"], row["fraction"]) == ("simulated", 1.0))
    assert f'<dd class="large">{100 * whole["recovered"]:.1f}%</dd>' in text
    rows = table_of(page, "arm", "is", "loss [nats]")
    arms = {row["arm"]: row for row in stats["arms"] if row["fraction"] in (None, 1.0)}
    assert len(rows) == len(arms) == 6
    for cells in rows:
        row = arms[cells[0].split(",")[0]]
        expected = [row["loss"], row["se"], row["increase"], 100 * row["recovered"]]
        found = [float(cells[i].rstrip("%")) for i in (2, 3, 4, 6)]
        assert cells[1] == name_plainly(row)
        assert found == pytest.approx(expected, abs=0.0501)
        assert found[:3] == pytest.approx(expected[:3], abs=0.5001e-4)


def test_comparisons_places_and_calibration_hold_the_numbers_of_the_statistics(page: Reader, stats: Row) -> None:
    compared = [row for table in page.tables if table[0][:2] == ["arm", "reference"] for row in table[1:]]
    assert [float(cells[2]) for cells in compared] == pytest.approx(
        [r["delta"] for r in stats["comparisons"]], abs=5.1e-5
    )
    assert [cells[8] for cells in compared] == [row["verdict"] for row in stats["comparisons"]]
    places = [row for table in page.tables if table[0][:1] in (["position"], ["frequency"]) for row in table[1:]]
    arms = [own for row in stats["places"] for own in row["arms"] if own["arm"] != "clean"]
    assert [float(cells[4]) for cells in places] == pytest.approx([own["increase"] for own in arms], abs=5.1e-5)
    assert {cells[5] for cells in places} == {"[0.1000, 0.3000]", ""}
    rows = table_of(page, "strength", "predictions")
    assert rows[4] == ["4", "0", "–", "–"]
    assert [float(cells[3]) for cells in rows if cells[3] != "–"] == pytest.approx(
        [row["true"] for row in stats["calibration"] if row["true"] is not None], abs=5.1e-5
    )


def test_the_policy_lets_these_scripts_run_and_nothing_be_fetched(page: Reader) -> None:
    assert len(page.scripts) == len(SCRIPTS)
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts}
    assert set(re.findall(r"'sha256-([^']+)'", page.policy)) == hashes
    assert page.policy.startswith("default-src 'none';")
    assert "http" not in page.policy and "eval" not in page.policy
    assert "unsafe-inline" not in page.policy.split("script-src")[1].split(";")[0]


def test_it_stands_alone_and_its_identifiers_are_unique(page: Reader, folder: Path) -> None:
    assert len(page.identifiers) == len(set(page.identifiers))
    text = (folder / "index.html").read_text(encoding="utf-8")
    addresses = set(re.findall(r"""(?:src|href)=["']([^"']+)""", text)) - {"data:,"}
    assert all(re.match(r"#|[a-z]+\.(png|svg|csv|md)$|data:image/png", address) for address in addresses)
    for address in addresses:
        if address[0] != "#" and not address.startswith("data:"):
            assert (folder / address).is_file(), address
        elif address[0] == "#" and "=" not in address:
            assert address[1:] in page.identifiers, address


def test_scripts_put_nothing_into_the_page_as_markup() -> None:
    for path in sorted(HERE.glob("*.js")):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source), (
            path
        )
        assert "</script" not in source and "http" not in source.replace("http://www.w3.org/2000/svg", ""), path


def test_its_files_can_be_read_in_one_sitting() -> None:
    files = [path for path in HERE.iterdir() if path.is_file()]
    assert len(files) > 10
    assert all(len(path.read_text(encoding="utf-8").splitlines()) < 300 for path in files)


@given(st.text())
def test_any_text_is_shown_and_escaped(text: str) -> None:
    shown = (
        open_templates(autoescape=True, finalize=show)
        .from_string("<p title='{{ text }}'>{{ text }}</p>")
        .render(text=text)
    )
    assert read(shown).tags == ["p"]
    assert not re.search(r"[\x00-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    shown.encode("utf-8")


# --- colours ----------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    colour = "".join(letter * 2 for letter in colour[1:]) if len(colour) == 4 else colour[1:]
    parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def palettes() -> list[dict[str, str]]:
    """The colours of each theme, in the order of the style sheet: light, dark twice, print."""
    blocks = re.findall(r"\{([^{}]*--paper:[^{}]*)\}", (HERE / "style.css").read_text(encoding="utf-8"))
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", block)) for block in blocks]


def test_contrast_is_known_for_black_on_white() -> None:
    assert contrast("#000000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=0.001)


def test_every_theme_can_be_read() -> None:
    light, dark, chosen, printed = palettes()
    assert dark == chosen
    for palette in (light, dark, printed):
        for paper in (palette["paper"], palette["shade"]):
            for name in ("ink", "grey", "blue", "green", "vermilion"):
                assert contrast(palette[name], paper) >= 4.5, (name, paper)
        for name in ("orange", "sky", "purple"):
            assert contrast(palette[name], palette["paper"]) >= 3, name
