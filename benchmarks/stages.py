"""What each stage of a run takes: a command a stage, its seconds and the peak resident memory of all its processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

STAGES = ("train", "collect", "explain", "simulate", "score", "evaluate", "cost", "analyse", "report")
"""The stages of a run that tunes no reader and takes nothing apart."""

WATCH = """
import os, re, subprocess, sys, time
from glob import glob
from threading import Thread

def tree(pid):
    found = [pid]
    for file in glob(f"/proc/{pid}/task/*/children"):
        for child in open(file).read().split():
            found += tree(child)
    return found

def held(pid):
    try:
        return int(re.search(r"^Pss: *(\\d+)", open(f"/proc/{pid}/smaps_rollup").read(), re.M)[1])
    except (OSError, TypeError):
        return 0

def watch():
    global together
    while True:
        try:
            together = max(together, sum(map(held, tree(process.pid))))
        except OSError:
            pass
        time.sleep(1)

process, together = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL), 0
Thread(target=watch, daemon=True).start()
_, status, usage = os.wait4(process.pid, 0)
print(status, usage.ru_utime + usage.ru_stime, max(usage.ru_maxrss, together))
"""
"""A small process starts the command: the kernel counts as a command's peak also what the one that started it holds. It
counts no fork's, so that what all hold together, pages that they share once, is looked at once a second."""


@dataclass(frozen=True)
class Taken:
    """What a stage took, its libraries included."""

    seconds: float
    cpu: float
    """Seconds of all its threads, which other work on the machine changes little [s]."""
    peak: int
    """Peak resident memory, of forks too [KiB]."""


def measure_stages(folder: Path, settings: Sequence[str], stages: Sequence[str] = ()) -> Iterator[tuple[str, Taken]]:
    """Run stage after stage, all of `STAGES` where none is named, each as a command of its own."""
    for stage in stages or STAGES:
        words = [word for setting in settings for word in ("--set", setting)]
        yield stage, measure([sys.executable, "-m", "rewrite", stage, "--run", str(folder), *words])


def measure(command: Sequence[str]) -> Taken:
    """Run a command. Raises SystemExit where it fails."""
    began = time.perf_counter()
    told = subprocess.run([sys.executable, "-S", "-c", WATCH, *command], stdout=subprocess.PIPE, text=True, check=True)
    status, cpu, peak = told.stdout.split()
    if int(status):
        raise SystemExit(f"failed: {' '.join(command)}")
    return Taken(time.perf_counter() - began, float(cpu), int(peak))
