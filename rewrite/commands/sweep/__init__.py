"""`rewrite sweep`: a run folder for every point of a grid, and one page over all of them.

1. The points are read and checked before anything is made (`rewrite.commands.sweep.grid`).
2. What is not fresh becomes jobs (`rewrite.commands.sweep.jobs`), which the config's executor does; a point that fails
   keeps none from going on that does not need it. A rerun makes what is missing.
3. The points that are finished are read and pooled (`rewrite.commands.sweep.curves`) and become a page with its tables
   beside it (`rewrite.commands.sweep.page`).

`sweep.json` in the folder says the command, the points and the faults of the last session. Runs in it that are no
points of the present grid stay, and what they have made is used.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rewrite.commands.sweep.grid import Point, read_points
from rewrite.commands.sweep.jobs import plan_jobs
from rewrite.config import Config, UserError
from rewrite.display.tables import Page
from rewrite.run import plugins
from rewrite.run.files import full_disk_told, hash_once, take_lock, write_json
from rewrite.run.finished import SWEEP
from rewrite.run.freshness import check
from rewrite.run.launching import executing, launch
from rewrite.stages import STAGES

ROLES: tuple[plugins.Role, ...] = ("explainer", "simulator", "score")


def sweep(file: Path | None, overrides: Sequence[str], grids: Sequence[str], out: Path, preset: str = "") -> Page:
    """Make all points of a grid in a folder; what they came to. Raises UserError where the grid, the config or the
    folder does not fit; what fails in a point is told on the page that is returned."""
    base, points = read_points(file, overrides, grids, preset)
    plugins.chosen("executor", base)  # Refused before anything is made.
    for point in points:
        check(STAGES, point.config)
    _open(out)
    lock = take_lock(out, "sweep")
    try:
        command = _command(file, overrides, grids, out, preset)
        _note(out, command, points, {})
        with full_disk_told(out):
            faults = _make(base, points, out)
        _note(out, command, points, faults)
        from rewrite.commands.sweep.page import write_sweep

        page: Page = write_sweep(out, points, faults)
        return page
    finally:
        os.close(lock)


def _make(base: Config, points: Sequence[Point], out: Path) -> dict[str, str]:
    """Make what is not fresh; the faults of what was not made, by job."""
    with hash_once():
        jobs = plan_jobs(points, out, base.sweep.together, base.sweep.threads)
    if not jobs:
        return {}
    _say(f"{len(points)} points, {len(jobs)} jobs, executor {base.executor}")
    with executing(base) as executor:
        check_cache(executor.machines, points)
        return launch(executor, jobs, base.sweep.retries, _say)


def check_cache(machines: int, points: Sequence[Point]) -> None:
    """Refuse a cache of calls that several machines would write to: SQLite's write-ahead log is for processes of one
    (https://www.sqlite.org/wal.html)."""
    asking = [point for point in points if any(plugins.asked_model(role, point.config) for role in ROLES)]
    if machines > 1 and any(point.config.calls.cache is None for point in asking):
        raise UserError(
            f"calls.cache: not set, and {machines} machines cannot share the one in the sweep's folder; name "
            "a file on a disk of each machine's own, as in --set calls.cache=/tmp/calls.sqlite"
        )


def _open(out: Path) -> None:
    """Make the folder. Raises UserError where it is something else."""
    if (out / "manifest.json").is_file():
        raise UserError(f"--out {out}: is the folder of a run; name another, in which each point gets a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be the folder of a sweep ({error.strerror}); name another") from None


def _note(out: Path, command: str, points: Sequence[Point], faults: dict[str, str]) -> None:
    named = [{"name": point.name, "values": point.values} for point in points]
    write_json(out / SWEEP, {"schema": 1, "command": command, "points": named, "faults": faults})


def _command(file: Path | None, overrides: Sequence[str], grids: Sequence[str], out: Path, preset: str) -> str:
    """What makes this sweep, and goes on with it."""
    named = [*(["--config", str(file)] if file else []), *(["--preset", preset] if preset else [])]
    words = [word for pair in overrides for word in ("--set", pair)]
    words += [word for grid in grids for word in ("--grid", grid)]
    return shlex.join(["rewrite", "sweep", *named, *words, "--out", str(out)])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
