"""Jobs for the tests of executors: each writes a file, and may first do its worker harm."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from rewrite.config import UserError


def write(folder: str, name: str, needs: tuple[str, ...] = ()) -> None:
    """Write a file that says who did it, after those that it needs."""
    assert all(Path(folder, need).is_file() for need in needs), "begun too early"
    Path(folder, name).write_text(str(os.getpid()))


def die_once(folder: str, name: str) -> None:
    """Kill the own process the first time, and write the second."""
    if not Path(folder, "died").exists():
        Path(folder, "died").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    write(folder, name)


def die(folder: str) -> None:
    """Kill the own process, each time."""
    with Path(folder, "deaths").open("a") as deaths:
        deaths.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise UserError("coder.k = 0: too few; set more")


def break_down() -> None:
    raise ZeroDivisionError("a\nb")


def wait_for(folder: str, name: str, other: str) -> None:
    """Write, and wait until another has: two that wait for each other end only side by side."""
    write(folder, name)
    end = time.monotonic() + 60
    while not Path(folder, other).is_file():
        assert time.monotonic() < end, "not side by side"
        time.sleep(0.02)


def tell_environment(folder: str, name: str) -> None:
    """Write the threads and the GPUs that the environment says."""
    Path(folder, name).write_text(f"{os.environ.get('OMP_NUM_THREADS')} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
