"""`rewrite status` in every state a run can be in; it changes nothing, and its next command is the one that goes on."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from makers.commands import Command
from makers.finished_runs import snapshot
from makers.small import SMALL, TINY, small_config

import rewrite.__main__ as cli
from rewrite.commands.status import status
from rewrite.run.configs import choose_config
from rewrite.run.freshness import wanted
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.stages import STAGES

SETTINGS = [word for setting in (*TINY, "coder.tokens=40000") for word in ("--set", setting)]


def states_of(folder: Path, *overrides: str) -> dict[str, str]:
    return {stage["stage"]: stage["state"] for stage in status(folder, None, overrides).facts["stages"]}


# --- the states -------------------------------------------------------------------------------------------------------


def test_where_there_is_no_run_one_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--run", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == (
        f"rewrite: {tmp_path / 'none'}: no run there (no manifest.json); name a run folder with --run\n"
    )
    assert not (tmp_path / "none").exists()


def test_a_run_that_has_just_begun_has_nothing_yet(tmp_path: Path) -> None:
    with Run(tmp_path / "r") as run:
        run.describe(small_config())
    page = status(tmp_path / "r")
    assert {stage["state"] for stage in page.facts["stages"]} == {"absent"}
    assert (page.facts["verdict"], page.facts["report"], page.facts["total"]["calls"]) == (None, None, 0)
    assert all(stage["bytes"] is stage["seconds"] is None for stage in page.facts["stages"])
    assert "not there yet" in page.write("table")


def test_without_its_report_a_run_has_a_verdict_and_a_next_command(analysed: Path) -> None:
    page = status(analysed)
    states = states_of(analysed)
    assert states.pop("report") == "absent"
    assert set(states.values()) == {"fresh"}
    verdict = json.loads((analysed / "6_stats.json").read_text())["verdict"]["sentence"]
    assert page.facts["verdict"] == verdict and verdict in page.notes
    options = cli.build_parser().parse_args(shlex.split(page.command)[1:])
    assert (options.command, options.run) == ("run", analysed)
    assert not options.set and choose_config(analysed, None, [], print) == small_config(), "the folder has its config"
    sizes = {stage["stage"]: stage["bytes"] for stage in page.facts["stages"]}
    assert sizes["analyse"] == (analysed / "6_stats.json").stat().st_size
    folder = analysed / "2_activations"
    assert sizes["collect"] == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    manifest = json.loads((analysed / "manifest.json").read_text())
    took = sum(entry["seconds"] for entry in manifest["artefacts"].values())
    assert page.facts["total"]["seconds"] == pytest.approx(took, abs=0.05)


def test_a_finished_run_is_fresh_and_its_next_command_shows_the_report(
    small_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: shown.append(address) or True)
    page = status(small_run)
    assert page.facts["fresh"] is True
    assert page.facts["report"] == str(small_run / "7_report" / "index.html")
    assert cli.main(shlex.split(page.command)[1:]) == 0
    assert capsys.readouterr().err == "", "nothing was to be done"
    assert shown == [(small_run / "7_report" / "index.html").as_uri()]


def test_a_report_of_other_settings_is_not_offered(small_run: Path) -> None:
    page = status(small_run, overrides=("calibrator=linear",))
    assert page.facts["report"] is None
    assert "The report that is there is not of this run as it is now." in page.notes
    assert shlex.split(page.command)[-2:] == ["--set", "calibrator=linear"]


def test_an_interrupted_simulation_says_how_far_it_came(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config("simulator=constant")
    from rewrite.stages import simulate

    kept, save = [], simulate.save_strengths

    def save_two(*arguments: Any) -> None:
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(save(*arguments))

    monkeypatch.setattr(simulate, "save_strengths", save_two)
    with Run(copy) as run, pytest.raises(KeyboardInterrupt):
        go(STAGES, config, run, "simulate", lambda line: None)
    stage = next(stage for stage in status(copy).facts["stages"] if stage["stage"] == "simulate")
    shards = json.loads((copy / "2_activations" / "documents.json").read_text())["splits"]
    whole = len(shards["calibrate"]) + len(shards["test"])
    assert (stage["state"], stage["shards"]) == ("interrupted", (2, whole))
    assert f"interrupted: 2 of {whole} shards" in status(copy).write("table")
    # The parts wait for their own config only, and the next command takes them up.
    assert states_of(copy, *SMALL, "simulator=oracle")["simulate"] == "stale"
    monkeypatch.setattr(simulate, "save_strengths", save)
    assert cli.main(["simulate", *shlex.split(status(copy).command)[2:]]) == 0
    assert states_of(copy)["simulate"] == "fresh"


@pytest.mark.parametrize(
    ("override", "first"),
    [("coder.k=4", "train"), ("simulator=constant", "simulate"), ("analyse.resamples=1999", "analyse")],
)
def test_what_a_config_makes_stale_is_what_a_run_would_do(copy: Path, override: str, first: str) -> None:
    states = states_of(copy, *SMALL, override)
    names = [stage.name for stage in wanted(STAGES, small_config(override))]
    assert [states[name] for name in names[: names.index(first)]] == ["fresh"] * names.index(first)
    stale = next(stage for stage in status(copy, None, [*SMALL, override]).facts["stages"] if stage["stage"] == first)
    assert (stale["state"], stale["why"]) == ("stale", "its settings or its code changed")
    said: list[str] = []
    if first != "train":
        with Run(copy) as run:
            go(STAGES, small_config(override), run, "analyse", said.append)
        done = [line.split(":")[0] for line in said]
        assert done[0] == first
        assert all(states[name] == "stale" for name in done)


def test_statistics_that_are_not_fresh_are_told_as_such(copy: Path) -> None:
    page = status(copy, None, [*SMALL, "analyse.resamples=1999"])
    assert any(note.startswith("From statistics that are not fresh: Simulating all") for note in page.notes)
    options = cli.build_parser().parse_args(shlex.split(page.command)[1:])
    assert options.set == [*SMALL, "analyse.resamples=1999"], "what was given goes on"


def test_a_damaged_artefact_is_named_and_not_an_error(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = copy / "5_losses.parquet"
    losses.write_bytes(losses.read_bytes()[:-20])
    assert cli.main(["status", "--run", str(copy)]) == 0
    said = capsys.readouterr().out
    assert "damaged: 5_losses.parquet: not what was written (damaged or edited); delete it to compute it again" in said
    assert states_of(copy)["analyse"] == "stale"
    losses.unlink()
    assert "stale: 5_losses.parquet is not there" in status(copy).write("table")


def test_a_live_process_is_named_and_its_stage_is_running(copy: Path) -> None:
    shutil.rmtree(copy / "4_simulations")
    code = "import sys, pathlib\nfrom rewrite.run.store import Run\nRun(pathlib.Path(sys.argv[1]), 'run')\n"
    code += "print('in', flush=True)\n"
    with subprocess.Popen(
        [sys.executable, "-c", code + "input()", str(copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        page = status(copy)
        assert f"In use by process {other.pid} (rewrite run)." in page.notes
        assert states_of(copy)["simulate"] == "running"
        assert states_of(copy)["score"] == "stale"
        assert page.command == "", "whoever works on it goes on by itself"
        # Under another config than the one that is being run, nothing is said to run.
        assert "running" not in states_of(copy, *SMALL, "analyse.resamples=1999").values()
        other.kill()
    assert status(copy).facts["holder"] == ""
    with Run(copy):
        assert states_of(copy)["simulate"] == "running", "asking leaves no lock, and works under one"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_may_be_asked_at_any_moment_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    other = Command("analyse", "--run", str(folder), *SETTINGS)
    asked: list[dict[str, str]] = []
    while other.poll() is None:
        if (folder / "manifest.json").exists():
            asked.append(states_of(folder))
        time.sleep(0.02)
    assert other.wait() == 0, "being asked disturbs nothing"
    assert len(asked) > 3
    assert not any("damaged" in states.values() for states in asked)
    assert any(states["train"] == "running" for states in asked)
    done = [sum(state == "fresh" for state in states.values()) for states in asked]
    assert done == sorted(done)
    assert set(states_of(folder).values()) == {"fresh", "absent"}


def test_asking_changes_nothing(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(copy.parent)
    for more in ([], ["--json"], ["--markdown"], ["--set", "coder.k=4"]):
        assert cli.main(["status", "--run", str(copy), *more]) == 0
    assert snapshot(copy.parent) == before
