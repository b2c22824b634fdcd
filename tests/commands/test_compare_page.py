"""The page of `rewrite compare` in a real browser: from disk, offline, whatever runs and explanations are called."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.browser import DESKTOP, PHONE, Scheme, Visit, visit
from makers.finished_runs import Made, make_run

import rewrite.__main__ as cli
from rewrite.commands.compare import compare
from rewrite.commands.compare.page import COSTS, draw_axis, find_shared, link_report, set_side_by_side
from rewrite.display.escaping import visible
from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import load_explanations, save_explanations
from rewrite.run.finished import Finished, open_finished
from rewrite.run.store import Run

BASE = Made(noise=0.02)
SCORES_FILE = "4_scores.parquet"
SCORES = [[0.9 - 0.01 * i for i in range(40)], [0.9 - 0.01 * i - (0.3 if i == 12 else 0.001 * i) for i in range(40)]]
HOSTILE = (
    "</script><script>document.title='stolen'</script><img src=x onerror=alert(1)> \u202e\x00 \ud800 'q\" javascript:"
)


def make(folder: Path, made: Made, scores: list[float | None], says: str) -> Path:
    """A run with explanations and costs of its own."""
    make_run(folder, made)
    with Run(folder) as run:
        run.begin("k", ["2_activations"])
        with run.writing("3_explanations.jsonl") as path:
            save_explanations(path, [Explanation(i, f"{says} {i}" if i else None) for i in range(40)])
        run.begin("k", ["2_activations", "3_explanations.jsonl"])
        with run.writing("4_simulations") as path:
            shutil.copytree(folder / "4_simulations", path)
        for artefact, reads in (
            ("5_latents.parquet", ["4_simulations"]),
            ("5_losses.parquet", ["4_simulations"]),
            ("6_stats.json", ["5_latents.parquet", "5_losses.parquet"]),
        ):
            run.begin("k", reads)
            with run.writing(artefact) as path:
                shutil.copy(folder / artefact, path)
        write_latents(run, SCORES_FILE, simulation=scores)
        write_latents(run, COSTS, cost=[None if score is None else 1e-3 * score for score in scores])
    (folder / "7_report").mkdir()
    (folder / "7_report" / "index.html").write_text("<!doctype html><title>own</title>")
    return folder


def write_latents(run: Run, artefact: str, **columns: list[float | None]) -> None:
    run.begin("k", ["4_simulations"])
    with run.writing(artefact) as path:
        pq.write_table(pa.table({"latent": range(40)} | columns), path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("compared")
    other = replace(BASE, kept=0.5, noise_seed=2)
    return [
        make(folder / "one", BASE, [*SCORES[0]], "first says"),
        make(folder / "two <b>&[x]", other, [*SCORES[1][:-1], None], f"second says {HOSTILE}"),
    ]


@pytest.fixture(scope="module")
def file(runs: list[Path]) -> Path:
    """The page beside the runs."""
    out = runs[0].parent / "index.html"
    assert cli.main(["compare", *map(str, runs), "--out", str(out)]) == 0
    return out


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, opened; nothing may be loaded and nothing may be said on the console."""
    with visit(browser, file.parent, request.param) as visited:
        yield visited.page


@pytest.fixture
def seen(browser: Any, file: Path) -> Iterator[Visit]:
    with visit(browser, file.parent) as visited:
        yield visited


def rows_of(page: Any) -> list[list[str]]:
    drawn = page.locator("#all tbody tr[data-latent]").all()
    return [row.locator("th, td").all_inner_texts() for row in drawn]


def test_the_tables_are_those_of_the_terminal(page: Any, runs: list[Path]) -> None:
    said = compare(runs)
    assert page.title() == page.locator("h1").inner_text() == said.title
    for number, table in enumerate(said.tables, 1):
        shown = page.locator(f"#part-{number} tbody tr").all()
        for row, cells in zip(shown, table.rows, strict=True):
            texts = [text.strip() for text in row.locator("th, td").all_inner_texts()]
            if number == 1:
                assert texts.pop(3) == "" and texts.pop() == "report"
            assert texts == [cell or "–" for cell in cells]
    for note in said.notes:
        assert note in page.locator("#part-2").inner_text()


def test_the_largest_difference_stands_first_and_every_column_sorts(page: Any) -> None:
    first = rows_of(page)[0]
    assert first[:4] == ["12", "0.300", "0.780", "0.480"]
    assert first[4:6] == ["0.00078", "0.00048"]
    assert page.locator("#count").inner_text() == "1 to 40 of 40 latents"
    for column in range(6):
        for _ in range(2):
            page.locator("#all thead button").nth(column).click()
            head = page.locator("#all thead th").nth(column)
            cells = [row[column] for row in rows_of(page)]
            values = [float(cell) for cell in cells if cell != "–"]
            assert cells[len(values) :] == ["–"] * (40 - len(values)), "what is not known stands last"
            assert values == sorted(values, reverse=head.get_attribute("aria-sort") == "descending")


def test_it_searches_in_all_explanations(page: Any) -> None:
    page.get_by_label("Search in explanations").fill("FIRST SAYS 7")
    page.get_by_text("1 to 1 of 1 found, of 40 latents").wait_for()
    assert [row[0] for row in rows_of(page)] == ["7"]
    page.get_by_label("Search in explanations").fill("nobody says this")
    page.get_by_text("None of 40 latents").wait_for()


def test_a_row_opens_both_explanations_in_full_and_closes(page: Any, runs: list[Path]) -> None:
    page.get_by_role("link", name="12", exact=True).press("Enter")
    opened = page.locator(".opened")
    assert opened.locator("h3").all_inner_texts() == ["one", "two <b>&[x]"]
    assert opened.locator(".explanation").all_inner_texts()[0] == "first says 12"
    assert opened.locator(".about span").all_inner_texts()[0] == "score 0.780, cost 0.00078 nats"
    assert page.url.endswith("#latent=12")
    link = page.get_by_role("link", name="12", exact=True)
    assert link.get_attribute("aria-expanded") == "true"
    link.click()
    assert opened.count() == 0 and link.get_attribute("aria-expanded") == "false"


def test_a_deep_link_opens_a_latent(seen: Visit) -> None:
    seen.go("#latent=0")
    page = seen.page
    assert page.locator(".opened .explanation").all_inner_texts() == ["No explanation.", "No explanation."]
    assert seen.run("document.activeElement.textContent") == "0"
    page.get_by_label("Search in explanations").fill("first says 7")
    page.get_by_text("1 found").wait_for()
    seen.run("location.hash = '#latent=39'")
    page.locator(".opened").wait_for()
    assert page.locator(".about span").all_inner_texts()[1] == "score –, cost – nats"
    seen.run("location.hash = '#latent=4000'")
    page.get_by_text("There is no latent 4000 here.").wait_for()


@pytest.mark.parametrize("number", [0, 1])
def test_links_lead_to_each_runs_own_page(seen: Visit, runs: list[Path], number: int) -> None:
    seen.go("#latent=12")
    seen.page.locator(".opened a").nth(number).click()
    seen.page.wait_for_url("**/7_report/index.html#latent=12")
    assert seen.page.title() == "own"
    assert seen.page.url == (runs[number] / "7_report" / "index.html").as_uri() + "#latent=12"


def test_hostile_words_are_text(page: Any, runs: list[Path]) -> None:
    page.get_by_role("link", name="12", exact=True).click()
    kept = load_explanations(runs[1] / "3_explanations.jsonl")[12].text
    assert kept is not None and "</script>" in kept and "\u202e" in kept
    assert page.locator(".opened .explanation").nth(1).text_content() == visible(kept)
    assert "stolen" not in page.title()
    assert page.locator("#latents img, #latents b").count() == 0


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_a_readers_way(browser: Any, file: Path, scheme: Scheme, size: tuple[int, int]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    with visit(browser, file.parent, size, scheme) as seen:
        seen.go("#latent=12")
        assert [fault["id"] for fault in axe.Axe().run(seen.page).response["violations"]] == []
        assert seen.run("document.documentElement.scrollWidth <= innerWidth"), "tables scroll, the page does not"


def test_numbers_are_those_of_the_runs(runs: list[Path]) -> None:
    opened = [open_finished(run) for run in runs]
    found: dict[str, Any] = set_side_by_side(opened, [None, None])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["scores"][0] == pytest.approx(SCORES[0])
    assert found["costs"][1][:-1] == pytest.approx([1e-3 * score for score in SCORES[1][:-1]])
    assert found["differences"][12] == pytest.approx(0.3)
    assert found["differences"][39] is found["scores"][1][39] is None, "missing is not 0"


def test_of_more_runs_the_spread_is_shown_and_strangers_are_left_out(
    browser: Any, tmp_path: Path, runs: list[Path]
) -> None:
    third = make(tmp_path / "three", replace(BASE, kept=0.55, noise_seed=3), [0.5] * 40, "third says")
    stranger = make(tmp_path / "stranger", replace(BASE, coder=b"others"), [0.5] * 40, "stranger says")
    opened = [open_finished(run) for run in (runs[0], stranger, runs[1], third)]
    assert find_shared(opened) == [0, 2, 3]
    assert find_shared([opened[0], opened[1]]) == []
    found = set_side_by_side([opened[0], opened[2], opened[3]], [None] * 3)
    assert found["differences"][12] == pytest.approx(0.3)
    assert found["differences"][0] == pytest.approx(0.4)
    assert cli.main(["compare", str(runs[0]), str(stranger), "--out", str(tmp_path / "index.html")]) == 0
    with visit(browser, tmp_path) as seen:
        assert "no latent of one is a latent of another" in seen.text("#latents")
        assert seen.page.locator("#all").count() == 0


def test_scores_need_no_costs_and_a_run_without_either_is_shown_all_the_same(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, BASE) for name in "abc"]
    for folder, scores in zip(folders[:2], SCORES, strict=True):
        with Run(folder) as run:
            write_latents(run, SCORES_FILE, simulation=[*scores[:-1], float("nan")])
    found = set_side_by_side([open_finished(folder) for folder in folders], [None] * 3)
    assert found["scores"][0][:-1] == pytest.approx(SCORES[0][:-1]) and found["scores"][0][-1] is None
    assert found["differences"][12] == pytest.approx(0.3) and found["differences"][39] is None
    assert {*found["scores"][2], *found["costs"][0]} == {None}
    assert found["texts"][2][3] == BASE.text


def test_a_run_that_has_judged_scores_only_has_no_correlation(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", BASE)
    with Run(folder) as run:
        write_latents(run, SCORES_FILE, detection=[0.5] * 40)
    assert set(set_side_by_side([open_finished(folder)], [None])["scores"][0]) == {None}


@pytest.mark.parametrize(
    ("place", "run", "link"),
    [
        ("page.html", "runs/a", "runs/a/7_report/index.html"),
        ("runs/page.html", "runs/a", "a/7_report/index.html"),
        ("pages/page.html", "runs/a b", "../runs/a%20b/7_report/index.html"),
        ("far/pages/page.html", "runs/a", None),
        ("page.html", "home/alice/a", None),
        ("home/page.html", "home/alice/a", None),
        ("home/bob/page.html", "home/alice/a", None),
        ("home/bob/page.html", "home/bob/runs/a", "runs/a/7_report/index.html"),
        ("Users/bob/pages/page.html", "Users/bob/runs/a", "../runs/a/7_report/index.html"),
    ],
)
def test_a_link_leads_to_near_places_only_and_names_no_home(
    tmp_path: Path, place: str, run: str, link: str | None
) -> None:
    report = tmp_path / run / "7_report"
    report.mkdir(parents=True)
    (report / "index.html").touch()
    assert link_report(Finished(tmp_path / run, "a", {}), tmp_path / place) == link


def test_a_page_just_below_the_root_links_to_nothing_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "7_report").mkdir()
    (tmp_path / "7_report" / "index.html").touch()
    assert link_report(Finished(tmp_path, "a", {}), Path(tmp_path.anchor) / "pages" / "page.html") is None


def test_places_on_the_common_axis() -> None:
    shares = [(0.5, [0.25, 0.75]), (1.5, [1.0, 2.0]), (None, None)]
    axis = draw_axis([{"recovered": share, "recovered_ci": ends} for share, ends in shares])
    assert (axis.zero, axis.one) == (0.0, 0.5)
    one, two, none = axis.strips
    assert one is not None and (one.low, one.middle, one.high) == (0.125, 0.25, 0.375)
    assert two is not None and (two.low, two.middle, two.high) == (0.5, 0.75, 1.0)
    assert none is None
