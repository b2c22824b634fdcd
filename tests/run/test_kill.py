"""A run that is killed in every stage ends with the same statistics as one that never was."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from makers.commands import Command
from makers.small import SMALL, small_config

from rewrite.run.files import read_json
from rewrite.run.freshness import wanted
from rewrite.stages import STAGES

pytestmark = pytest.mark.slow


def words(folder: Path) -> list[str]:
    return ["run", "--run", str(folder), *(word for setting in SMALL for word in ("--set", setting))]


def kill_in(stage: str, folder: Path, delay: float) -> bool:
    """Run until `stage` says that it begins, wait, and kill; False where the stage had already been finished."""
    process = Command(*words(folder))
    for line in process.stderr:
        if line.startswith(f"{stage}:"):
            time.sleep(delay)
            process.kill()
            return True
    assert process.wait() == 0
    return False


@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_to_the_same_statistics(small_run: Path, tmp_path: Path) -> None:
    draws = random.Random(0)
    folder = tmp_path / "killed"
    stages = wanted(STAGES, small_config())
    # Some way into each stage, as long as it took elsewhere: the shortest take a tenth of a second.
    took = {name: entry["seconds"] for name, entry in read_json(small_run / "manifest.json")["artefacts"].items()}
    delays = [draws.uniform(0.0, 0.2) * max(took[name] for name in stage.writes) for stage in stages]
    killed = [kill_in(stage.name, folder, delay) for stage, delay in zip(stages, delays, strict=True)]
    assert sum(killed) >= len(stages) - 2, "too few kills struck: the stages ended before them"
    assert Command(*words(folder)).wait() == 0
    assert (folder / "6_stats.json").read_bytes() == (small_run / "6_stats.json").read_bytes()
    left = [path.name for path in folder.iterdir() if path.name.startswith((".writing", ".partial"))]
    assert left == []


@pytest.mark.parametrize("delay", [0.0, 0.7, 2.5])
def test_ctrl_c_says_so_in_one_line_and_loses_nothing(tmp_path: Path, delay: float) -> None:
    """Early ones strike while libraries are imported, some of which swallow a KeyboardInterrupt."""
    command = [sys.executable, "-m", "rewrite", *words(tmp_path / "r")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = [next(process.stderr)]
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    said += process.stderr.readlines()
    assert process.wait() == 130
    assert not any("Traceback" in line for line in said)
    assert "goes on from what is finished" in said[-1]
