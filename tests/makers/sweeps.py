"""A small sweep of the real pipeline as a process of its own, its workers, and what it leaves."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from makers.small import TINY

GRID = ("hookpoint=layers.0.mlp,layers.1.mlp", "explainers.patterns.max_words=8,40")
UNEQUAL = ("seconds", "cost")
"""Columns of points.csv that say what a run took, not what it found."""


def words(out: Path, executor: str, *more: str, grid: Sequence[str] = GRID) -> list[str]:
    """The command line of the sweep."""
    settings = [*TINY, f"executor={executor}", "executors.processes.workers=2", "sweep.threads=1", *more]
    said = [word for setting in settings for word in ("--set", setting)]
    return ["sweep", *said, *(word for own in grid for word in ("--grid", own)), "--out", str(out)]


def start(out: Path, executor: str, *more: str) -> subprocess.Popen[str]:
    """The sweep as a process whose stderr is read."""
    command = [sys.executable, "-m", "rewrite", *words(out, executor, *more)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that it hired."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def results(out: Path) -> dict[str, Any]:
    """By point and over all: what was found, to the byte, without what it took."""
    found: dict[str, Any] = {}
    for run in [out / point["name"] for point in json.loads((out / "sweep.json").read_text())["points"]]:
        artefacts = json.loads((run / "manifest.json").read_text())["artefacts"]
        # metrics.json of the coder, the report and the checks of costs tell seconds.
        kept = ("2_activations", "3_explanations.jsonl", "4_simulations", "4_scores.parquet", "5_losses.parquet")
        found[run.name] = {name: artefacts[name]["sha256"] for name in (*kept, "5_places.parquet", "6_stats.json")}
    found["curves"] = (out / "curves.csv").read_bytes()
    with (out / "points.csv").open(encoding="utf-8", newline="") as stream:
        found["points"] = [
            {key: value for key, value in row.items() if key not in UNEQUAL} for row in csv.DictReader(stream)
        ]
    return found
