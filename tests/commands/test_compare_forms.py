"""What `rewrite compare` writes: the schema, tables that nothing in a name breaks, errors of one line."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from makers.finished_runs import Made, make_run

import rewrite.__main__ as cli
from rewrite.commands.compare import compare

BASE = Made(noise=0.02)


def test_the_schema_that_others_rely_on(tmp_path: Path) -> None:
    page = compare([make_run(tmp_path / name, BASE) for name in "ab"])
    facts = json.loads(page.write("json"))
    assert facts == page.facts
    assert (facts["schema"], facts["unit"], facts["documents"]) == (1, "document", 30)
    assert facts["tokens"] == sum(BASE.windows) * 18
    keys = {"run", "loss", "se", "recovered", "recovered_ci", "fraction", "gap", "verdict", "latents", "rewritten"}
    assert all(
        set(run) == keys | {"words", "missing", "mass", "damage", "calls", "cost", "seconds"} for run in facts["runs"]
    )
    keys = {
        "a",
        "b",
        "measure",
        "why",
        "caution",
        "ci_bootstrap_t",
        "delta",
        "ci",
        "p",
        "p_holm",
        "margin",
        "p_equivalence",
        "mde",
        "verdict",
    }
    assert all(set(row) == keys for row in facts["comparisons"])
    arm = next(row for row in json.loads((tmp_path / "a" / "6_stats.json").read_text())["arms"] if row["fraction"] == 1)
    assert all(facts["runs"][0][key] == arm[key] for key in ("loss", "se", "recovered", "recovered_ci"))


HOSTILE = "r|un<b>*x*_y_\x1b[31m`$5$\u202e"


def test_hostile_names_stay_in_their_cells(tmp_path: Path) -> None:
    markdown = pytest.importorskip("markdown_it", reason="a Markdown reader to see the page as a browser does")
    folders = [make_run(tmp_path / HOSTILE, BASE), make_run(tmp_path / "plain", replace(BASE, kept=0.5))]
    page = compare(folders)
    html = markdown.MarkdownIt("commonmark").enable("table").render(page.write("markdown"))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells[0] == "r|un&lt;b&gt;*x*_y_ [31m`$5$"
    assert len(cells) == 2 * 9 + 8
    assert "<b>" not in html and "<em>" not in html
    table = page.write("table")
    assert "\x1b" not in table and "\u202e" not in table


def test_piped_the_table_is_plain_and_its_columns_stand_under_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        str(make_run(tmp_path / name, made)) for name, made in (("a", BASE), ("äé日本", replace(BASE, kept=0.5)))
    ]
    assert cli.main(["compare", *folders]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert not re.search(r"[\x00-\x09\x0b-\x1f]|[─│┃]", said.out)
    lines = said.out.splitlines()
    place = lines.index("The full simulation of each run")
    heads, first, second = lines[place + 1 : place + 4]
    assert first.index("better") == heads.index("against zero") == second.index("better") + 2, "wide letters take two"


def test_written_to_a_file_its_ending_names_the_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(make_run(tmp_path / name, BASE)) for name in "ab"]
    assert cli.main(["compare", *runs, "--out", str(tmp_path / "c.json")]) == 0
    assert json.loads((tmp_path / "c.json").read_text())["schema"] == 1
    assert cli.main(["compare", *runs, "--out", str(tmp_path / "c.md")]) == 0
    assert (tmp_path / "c.md").read_text().startswith("# 2 runs on the same 30 documents")
    assert cli.main(["compare", *runs, "--out", str(tmp_path / "c.txt")]) == 0
    assert (tmp_path / "c.txt").read_text() == compare([Path(run) for run in runs]).write("table") + "\n"
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compare", *runs, "--json", "--out", str(tmp_path / "c.md")])
    assert "not allowed with argument --json" in capsys.readouterr().err
    assert cli.main(["compare", *runs, "--out", str(tmp_path / "none" / "c.md")]) == 2
    assert re.fullmatch(r"rewrite: --out .*c.md: cannot be written \(.*\); .*\n", capsys.readouterr().err)


def test_runs_of_one_name_are_told_apart_by_what_stands_before_it_and_by_no_more(tmp_path: Path) -> None:
    places = [tmp_path / "home" / name / "q" / "run" for name in ("a", "b")]
    page = compare([make_run(place, BASE) for place in places])
    assert [run["run"] for run in page.facts["runs"]] == ["a/q/run", "b/q/run"]
    assert (page.facts["comparisons"][0]["a"], page.facts["comparisons"][0]["b"]) == ("a/q/run", "b/q/run")
    for form in ("json", "markdown", "table"):
        assert "home" not in page.write(form) and str(tmp_path) not in page.write(form)
    third = make_run(tmp_path / "other", BASE)
    names = [run["run"] for run in compare([*places, third]).facts["runs"]]
    assert names == ["a/q/run", "b/q/run", "other"]


def test_errors_take_one_line_and_runs_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = make_run(tmp_path / "a", BASE)
    shutil.copytree(one, tmp_path / "b")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    assert cli.main(["compare", str(one), str(tmp_path / "b")]) == 0
    assert cli.main(["compare", str(one), str(tmp_path / "nowhere")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before
