"""Faults of the science are planted in the code, one at a time, and the tests that should catch them are run.

python -m benchmarks.mutants [part of a name]

1. `mutants.toml` lists the faults: where, what is written there instead, and which tests must then fail.
2. All the tests that are named pass where nothing is planted, or no failure would mean anything.
3. Each fault is planted in a copy of what git tracks, where its tests run until the first failure.
4. A fault that lives, one that no longer fits the code, or tests that cannot be run are said, and end in an error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".toml")
FAILED, RAN = 1, 0
"""What pytest ends with where a test fails, and where all pass."""


@dataclass(frozen=True)
class Mutant:
    """A fault, and the tests that must catch it."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]

    def plant(self, folder: Path) -> None:
        """Write it into a copy of the checkout. Raises ValueError where the code is not what it was made for."""
        for file, old, new in self.edits:
            text = (folder / file).read_text(encoding="utf-8")
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {file} has {text.count(old)} times {old!r}, not once")
            (folder / file).write_text(text.replace(old, new), encoding="utf-8")


def read_mutants() -> list[Mutant]:
    """All faults of the list."""
    rows = tomllib.loads(LIST.read_text(encoding="utf-8"))["mutant"]
    return [Mutant(row["name"], tuple(tuple(edit) for edit in row["edits"]), tuple(row["tests"])) for row in rows]


def copy_checkout(folder: Path) -> None:
    """What git tracks, as it stands in the working tree; what stands beside the checkout is seen from the copy too."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in listed.decode().split("\0")[:-1]:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    beside = ROOT.parent / "shared"
    if beside.is_dir() and not (folder.parent / "shared").exists():
        (folder.parent / "shared").symlink_to(beside)


def try_tests(tests: Sequence[str], folder: Path) -> tuple[int, str]:
    """How tests end in a copy of the checkout, and the first that fails."""
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", ran.stdout, re.MULTILINE)
    return ran.returncode, found[1].rpartition("::")[2] if found else ran.stdout[-300:].replace("\n", " ")


def plant_and_try(mutant: Mutant) -> tuple[int, str]:
    """How a fault's tests end, and the first that fails."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "checkout"
        copy_checkout(folder)
        mutant.plant(folder)
        return try_tests(mutant.tests, folder)


def plant_timed(mutant: Mutant) -> tuple[int, str, float]:
    """The same, and how long it took [s]."""
    begin = time.perf_counter()
    ended, test = plant_and_try(mutant)
    return ended, test, time.perf_counter() - begin


def main(wanted: str = "") -> int:
    """Plant all faults whose name has `wanted`, as many at a time as there are cores; how many of them lived."""
    chosen = [mutant for mutant in read_mutants() if wanted in mutant.name]
    if not chosen:
        print(f"no fault has {wanted!r} in its name; all of them stand in {LIST.name}")
        return 1
    every = tuple(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
    alive = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        whole = pool.submit(plant_and_try, Mutant("none", (), every))
        tried = [pool.submit(plant_timed, mutant) for mutant in chosen]
        ended, test = whole.result()
        if ended != RAN:
            pool.shutdown(cancel_futures=True)
            print(f"without any fault {test or 'a test'} fails: nothing can be told")
            return len(chosen)
        for mutant, one in zip(chosen, tried, strict=True):
            ended, test, seconds = one.result()
            alive += ended != FAILED
            word = {FAILED: "dies", RAN: "LIVES"}.get(ended, f"COULD NOT BE TRIED ({ended})")
            print(f"{mutant.name:<72} {word:<6} {test if ended else '':<80} {seconds:4.0f} s", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} die")
    return alive


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:2]) else 0)
