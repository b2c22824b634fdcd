"""Work that forked processes share: the same results in the same order, no more load than was granted, no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewrite.config import UserError
from rewrite.run.forking import count_processes, deal, in_order

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one process")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(), max_size=9), st.integers(1, 4))
def test_results_are_those_of_one_process_in_order(items: list[str], processes: int) -> None:
    assert list(in_order(str.upper, items, processes)) == [item.upper() for item in items]


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 1000)), st.integers(1, 5))
def test_all_are_dealt_and_none_has_a_whole_part_more(sizes: dict[str, int], processes: int) -> None:
    order = deal(sizes, processes)
    assert sorted(order) == sorted(sizes)
    loads = [sum(sizes[name] for name in order[number::processes]) for number in range(processes)]
    assert max(loads) - min(loads) <= max(sizes.values(), default=0)


def test_workers_see_what_was_made_and_are_as_many_as_asked() -> None:
    held = np.arange(1000)
    found = list(in_order(lambda item: (os.getpid(), len(os.listdir("/proc/self/task")), int(held[item])), range(9), 3))
    processes = [process for process, _, _ in found]
    assert len(set(processes)) == 3 and os.getpid() not in processes and processes[:3] == processes[3:6]
    assert all(threads == 1 for _, threads, _ in found)
    assert [value for _, _, value in found] == list(range(9))


def test_more_than_a_pipe_holds_comes_through() -> None:
    results = list(in_order(lambda item: bytes([item]) * 500_000, range(6), 2))
    assert [(result[0], len(result)) for result in results] == [(item, 500_000) for item in range(6)]


def test_what_is_raised_comes_in_its_turn_and_says_where() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise UserError("item 3: is none; leave it out")
        return 10 // (item - 5)

    found = in_order(work, [0, 1, 2, 3], 2)
    assert [next(found) for _ in range(3)] == [-2, -3, -4]
    with pytest.raises(UserError) as refused:
        next(found)
    assert str(refused.value) == "item 3: is none; leave it out"
    with pytest.raises(ZeroDivisionError) as caught:
        list(in_order(work, [4, 5], 2))
    assert "return 10 // (item - 5)" in "".join(caught.value.__notes__)


def test_a_worker_that_dies_is_told_in_one_line() -> None:
    def work(item: int) -> int:
        if item == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    found = in_order(work, range(8), 2)
    workers = {next(found) for _ in range(3)}
    with pytest.raises(UserError, match="one of 2 at work, was killed by SIGKILL") as caught:
        next(found)
    assert "\n" not in str(caught.value)
    assert_gone(workers)


def test_who_stops_listening_leaves_no_worker() -> None:
    found = in_order(lambda item: os.getpid(), range(100_000), 2)
    workers = {next(found), next(found)}
    assert isinstance(found, Iterator)
    found.close()  # type: ignore[attr-defined]
    assert_gone(workers)


def assert_gone(workers: set[int]) -> None:
    """Both processes have ended, and were waited for."""
    assert len(workers) == 2 and not any(Path(f"/proc/{worker}").exists() for worker in workers)


STARTS = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # Ignored where the tests themselves run in the background.
from rewrite.run.forking import in_order
def work(item):
    if item < 2:
        return os.getpid()
    time.sleep(600)
found = in_order(work, range(4), 2)
print(next(found), next(found), flush=True)
next(found)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_forked_them(sent: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    process.send_signal(sent)
    process.wait(60)
    end = time.monotonic() + 60
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < end, "a worker is left"
        time.sleep(0.02)
    process.communicate()


def is_running(process: int) -> bool:
    """Whether a process is there, and is more than what its parent has not waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    for said, processes in (("1", 1), ("4,2", 4), ("0", 6), ("many", 6)):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert count_processes() == processes
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert count_processes() == 6, "the cores that this process may use"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert count_processes() == 1
