"""One thing after another, by as many processes as there are cores, with results as if it were one.

Workers are forked: what the caller has made in memory is theirs too, and is not copied. Of W workers the k-th does
every W-th item from the k-th on, and its results come through a pipe in order, so the order of all is known.

A fork has none of its parent's other threads, and a lock that one of them held stays locked. So what is given to
`in_order` may use numpy, scipy's sparse matrices and tokenizers, which are one thread each, but no products of dense
matrices, and torch only once it was told to do with one thread (`rewrite.run.launching.settle`): with more it waits for
ever. There are as many processes at work as the libraries would otherwise have threads: nothing is oversubscribed.

`rewrite.run.executors` are for jobs that take minutes, write files and start afresh, maybe on other machines.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any, NoReturn, TypeVar

from rewrite.config import UserError

Item = TypeVar("Item")
Key = TypeVar("Key")
Result = TypeVar("Result")

DIES_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def named_threads() -> int:
    """Threads that `OMP_NUM_THREADS` grants to numerical libraries; 0 where it does not say."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(said) if said.isdecimal() else 0


def count_processes() -> int:
    """How many processes may be at work for this one: as many as numerical libraries would have threads, which is what
    `OMP_NUM_THREADS` says or else the cores that this process may use. 1 where a fork is not safe (not Linux)."""
    return (named_threads() or len(os.sched_getaffinity(0))) if sys.platform == "linux" else 1


def deal(sizes: Mapping[Key, int], processes: int) -> list[Key]:
    """An order of things so large, in which each of so many processes of `in_order` has about as much to do: the
    largest first, and who had the largest of a round has the smallest of the next."""
    largest = sorted(sizes, key=lambda name: -sizes[name])
    rounds = [largest[begin : begin + processes] for begin in range(0, len(largest), max(1, processes))]
    return [name for number, dealt in enumerate(rounds) for name in (dealt[::-1] if number % 2 else dealt)]


def in_order(work: Callable[[Item], Result], items: Sequence[Item], processes: int) -> Iterator[Result]:
    """What `work` makes of each item, in their order, by so many processes; see above for what it may use.

    What `work` raises is raised here, in its turn. Raises UserError, in one line, where a worker dies.
    """
    count = min(processes, len(items))
    if count < 2:
        yield from map(work, items)
        return
    workers: list[Worker] = []
    try:
        for number in range(count):
            workers.append(_fork(work, items[number::count], workers))
        for place in range(len(items)):
            yield _receive(workers, place % count)
    finally:
        for worker in workers:
            worker.end()


@dataclass(frozen=True)
class Worker:
    """A forked process and the pipe through which its results come."""

    process: int
    results: Connection

    def end(self) -> str:
        """End it, if it has not ended, and say how it did."""
        self.results.close()
        with suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


@dataclass(frozen=True)
class Raised:
    """What `work` raised."""

    error: Exception


def _receive(workers: list[Worker], number: int) -> Any:
    """The next result of a worker."""
    try:
        result = workers[number].results.recv()
    except (EOFError, OSError):
        worker = workers.pop(number)
        raise UserError(
            f"process {worker.process}, one of {len(workers) + 1} at work, {worker.end()} (no memory left?); the same "
            "command goes on from what is finished, with OMP_NUM_THREADS=1 in one process"
        ) from None
    if isinstance(result, Raised):
        raise result.error
    return result


def _fork(work: Callable[[Any], Any], items: Sequence[Any], others: Sequence[Worker]) -> Worker:
    """Begin a worker. Ctrl-C is held back until it is its parent's alone."""
    results, sending = Pipe(duplex=False)
    before, parent = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}), os.getpid()
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of any thread of the process, be it one of a library that `work` does not use.
            warnings.simplefilter("ignore", DeprecationWarning)
            process = os.fork()
        if process == 0:
            for end in (results, *(other.results for other in others)):
                end.close()
            _serve(work, items, sending, parent)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sending.close()
    return Worker(process, results)


# --- in a worker ------------------------------------------------------------------------------------------------------


def _serve(work: Callable[[Any], Any], items: Sequence[Any], sending: Connection, parent: int) -> NoReturn:
    """Do the items and end, never to return into what the parent was doing. The kernel ends it with its parent: after a
    kill it would work on in vain, its run folder locked."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if os.getppid() == parent:
            for item in items:
                sending.send(_attempt(work, item))
        status = 0
    finally:
        os._exit(status)


def _attempt(work: Callable[[Any], Any], item: Any) -> Any:
    """The result of an item, or what was raised instead, with where in the worker that was."""
    try:
        return work(item)
    except Exception as error:
        error.add_note(f"In process {os.getpid()}, a worker:\n{traceback.format_exc()}")
        return Raised(error)
