"""A sweep of the real pipeline: the same bytes from one process, from several that are killed, and from one run."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from makers.browser import DESKTOP, PHONE, visit
from makers.small import TINY, tiny_config
from makers.sweeps import GRID, results, start, words, workers_of

import rewrite.__main__ as cli
from rewrite.commands.sweep.curves import read_finished
from rewrite.commands.sweep.grid import read_points
from rewrite.run.configs import change_config
from rewrite.run.files import find_holder
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.stages import STAGES

pytestmark = pytest.mark.slow

NARROW, WHOLE = "explainers.patterns.max_words=8", "explainers.patterns.max_words=40"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the sweep, made in this process."""
    out = tmp_path_factory.mktemp("sweeps") / "local"
    assert cli.main(words(out, "local")) == 0
    yield out


def test_a_point_is_the_run_that_the_same_config_gives(swept: Path, tmp_path: Path) -> None:
    point = swept / f"hookpoint=layers.1.mlp,{WHOLE}"
    with Run(tmp_path / "alone", "test") as run:
        go(STAGES, tiny_config("hookpoint=layers.1.mlp", WHOLE), run, "analyse", lambda line: None)
    for name in ("6_stats.json", "3_explanations.jsonl", "5_losses.parquet"):
        assert (point / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    assert (point / "7_report" / "index.html").is_file()


def test_what_points_share_is_made_once(swept: Path) -> None:
    made = {run.name: json.loads((run / "manifest.json").read_text())["artefacts"] for run in swept.glob("hookpoint*")}
    for layer in (0, 1):
        first, second = (made[f"hookpoint=layers.{layer}.mlp,{words}"] for words in (NARROW, WHOLE))
        taken = [name for name, entry in second.items() if "from" in entry]
        assert taken == ["1_coder", "2_activations"]
        assert all("from" not in entry for entry in first.values())
        assert first["2_activations"]["sha256"] == second["2_activations"]["sha256"]
    seconds = [made[f"hookpoint=layers.{layer}.mlp,{NARROW}"]["2_activations"]["seconds"] for layer in (0, 1)]
    assert seconds[0] == pytest.approx(seconds[1], abs=1), "one pass over the text, of which each took half"


@pytest.mark.traced
def test_a_rerun_makes_nothing_and_a_larger_grid_only_what_is_new(
    swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in swept.glob("*/manifest.json")}
    assert cli.main(words(swept, "local")) == 0
    assert capsys.readouterr().err == ""
    assert {path: path.stat().st_mtime_ns for path in swept.glob("*/manifest.json")} == before
    assert cli.main(words(swept, "local", grid=("hookpoint=layers.1.mlp", WHOLE, "calibrator=linear"))) == 0
    said = capsys.readouterr().err
    assert "simulate: the same as in" in said and "train: begins" not in said
    assert {path: path.stat().st_mtime_ns for path in before} == before, "the earlier points are as they were"
    assert cli.main(words(swept, "local")) == 0


def test_status_tells_of_every_point(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--run", str(swept), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fresh"] and [point["state"] for point in facts["points"]] == ["fresh"] * 4
    assert {point["done"] for point in facts["points"]} == {facts["points"][0]["stages"]}
    assert facts["next"] == "" and facts["page"] == str(swept / "index.html")
    (tmp_path / "sweep.json").write_text(
        json.dumps({"command": "rewrite sweep --out x", "points": [{"name": "a"}], "faults": {"a: train": "too few"}})
    )
    assert cli.main(["status", "--run", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "0 of 1 points are fresh" in said and "not there yet" in said and "a: train: too few" in said
    assert said.rstrip().endswith("rewrite sweep --out x")
    (tmp_path / "sweep.json").write_text("{}")
    assert cli.main(["status", "--run", str(tmp_path)]) == 2
    assert "does not say the points of a sweep" in capsys.readouterr().err


def test_a_point_that_cannot_be_keeps_none_from_being_made(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert cli.main(words(swept, "local", grid=("hookpoint=layers.0.mlp,layers.9.mlp", NARROW))) == 1
        said = capsys.readouterr()
        assert "1 of 2 points are finished" in said.out
        fault = "hookpoint = layers.9.mlp: .* has no such hookpoint"
        facts = json.loads((swept / "sweep.json").read_text())["faults"]
        (name,) = [name for name, why in facts.items() if not why.startswith("waits for")]
        assert name == "hookpoint=layers.9.mlp,explainers.patterns.max_words=8: train to report"
        assert re.search(fault, facts[name])
        assert "Traceback" not in said.err
    finally:
        assert cli.main(words(swept, "local")) == 0


def test_results_of_other_settings_are_not_shown_as_those_of_a_point(swept: Path) -> None:
    """What a changed sweep finds of the one before it, where an early stage fails."""
    points = read_points(None, list(TINY), list(GRID))[1]
    told, unread = read_finished(points, swept)
    assert len(told) == 4 and not unread
    changed = [replace(point, config=change_config(point.config, {"coder.seed": 7})) for point in points]
    told, unread = read_finished(changed, swept)
    assert not told and set(unread.values()) == {"not finished with these settings (train is to be made anew)"}


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


@pytest.mark.timeout(600)
def test_killed_workers_and_a_killed_sweep_change_no_byte(swept: Path, tmp_path: Path) -> None:
    out = tmp_path / "processes"
    process = start(out, "processes")
    assert process.stderr is not None
    struck, said = 0, []
    for line in process.stderr:
        said.append(line)
        if "collect: begins" in line or (struck and "simulate: begins" in line and struck < 2):
            time.sleep(0.3)
            os.kill(workers_of(process)[-1 if struck else 0], signal.SIGKILL)
            struck += 1
        if "evaluate: begins" in line:
            break
    assert struck >= 1
    hired = workers_of(process)
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while not all(map(gone, hired)):
        assert time.monotonic() < end, "a worker outlives the sweep"
        time.sleep(0.1)
    assert not any(find_holder(run.parent) for run in out.glob("*/manifest.json"))
    assert cli.main(words(out, "local")) == 0, "another executor goes on from what is finished"
    assert any("was killed by SIGKILL; tried again" in line for line in said)
    assert results(out) == results(swept)
    assert not list(out.glob("*/.writing-*")) + list(out.glob("*/.partial-*"))


def test_ctrl_c_says_so_in_one_line(tmp_path: Path) -> None:
    process = start(tmp_path / "s", "processes")
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "train: begins" in line:
            break
    hired = workers_of(process)
    process.send_signal(signal.SIGINT)
    said += process.stderr.readlines()
    assert process.wait() == 130
    told = [line for line in said if "goes on from what is finished" in line]
    assert len(told) == 1 and not any("Traceback" in line for line in said)  # A worker may still begin after it.
    end = time.monotonic() + 20
    while not all(map(gone, hired)):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_the_page_shows_it_all_and_leads_to_every_run(browser: Any, swept: Path, size: Any, scheme: Any) -> None:
    with visit(browser, swept, size, scheme) as seen:
        assert "4 of 4 points are finished" in seen.text("h1")
        drawn = seen.page.locator("figure").count()
        assert drawn == 3, "against the layer, the key that sets the words, and the words themselves"
        assert seen.run("document.documentElement.scrollWidth") <= size[0]
        links = seen.page.locator("#part-2 tbody a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
        assert len(links) == 4
        rows = seen.page.locator("#part-1 tbody tr").count()
        assert rows == 4
        seen.page.locator("#part-2 tbody a").first.click()
        seen.page.wait_for_selector(".verdict")
        assert "layers.0.mlp" in seen.text("h1")


def test_the_tables_are_csv(swept: Path) -> None:
    found = results(swept)
    assert [row["words"] != "" for row in found["points"]] == [True] * 4
    narrow, whole = (row for row in found["points"] if row["hookpoint"] == "layers.1.mlp")
    assert float(narrow["words"]) <= 8 < float(whole["words"]) <= 40
    assert float(whole["recovered_low"]) < float(whole["recovered"]) < float(whole["recovered_high"])
    assert GRID[0].partition("=")[0] in narrow
