"""Several processes of this machine, each of which loads its libraries once and then does job after job.

1. A worker is hired when a job finds none idle, up to `workers`; it is a fresh Python, so nothing is inherited but the
   environment, in which the number of threads and the worker's own GPUs stand.
2. A worker that dies (a signal, no memory) is replaced; the job that it had comes back as `died`.
3. Workers end with this process, however it ends: each watches it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from pydantic import Field

from rewrite.config import Section, UserError
from rewrite.display import progress
from rewrite.run.executors.base import Ended, Job, attempt
from rewrite.run.forking import named_threads

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Settings(Section):
    """How many workers there are, and what each of them has."""

    workers: int = Field(0, ge=0)
    """Processes at work at once [processes]; 0 is one for every `sweep.threads` cores of the machine."""
    gpus: int = Field(0, ge=0)
    """GPUs of each worker [GPUs]: the first sees the first so many of the machine, the second the next; 0 leaves all
    to all."""


def build(settings: Settings, threads: int) -> Processes:
    """See `rewrite.run.executors.base`. Raises UserError where the workers want more GPUs than are named."""
    cores = os.cpu_count() or 1
    each = threads or named_threads() or cores
    workers = settings.workers or max(1, cores // each)
    named = named_gpus()
    if named is not None and workers * settings.gpus > len(named):
        raise UserError(
            f"executors.processes.gpus = {settings.gpus}: {workers} workers want {workers * settings.gpus} GPUs, and "
            f"CUDA_VISIBLE_DEVICES names {len(named)}; set fewer workers"
        )
    return Processes(workers, threads, settings.gpus)


def named_gpus() -> list[str] | None:
    """The GPUs that the environment lets us see; None where it does not say."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if said is None else [name for name in said.split(",") if name.strip()]


@dataclass
class Worker:
    """A process, the pipe to it and the job that it has; `number` says which GPUs are its own."""

    number: int
    process: BaseProcess
    pipe: Connection
    job: Job | None = None


class Processes:
    """Workers of this machine."""

    machines = 1

    def __init__(self, slots: int, threads: int, gpus: int) -> None:
        self.slots, self._threads, self._gpus = slots, threads, gpus
        self._context = get_context("spawn")
        self._workers: list[Worker] = []

    def start(self, job: Job) -> None:
        """Give a job to a worker that has none."""
        for worker in [worker for worker in self._workers if worker.job is None and not worker.process.is_alive()]:
            self._let_go(worker)
        idle = next((worker for worker in self._workers if worker.job is None), None) or self._hire()
        idle.job = job
        with suppress(OSError):  # It has just died; `wait` will see it.
            idle.pipe.send(job)

    def wait(self) -> Ended:
        """Wait for the first that is done or dead."""
        busy = [worker for worker in self._workers if worker.job is not None]
        ready = wait([end for worker in busy for end in (worker.pipe, worker.process.sentinel)])
        worker = next(one for one in busy if one.pipe in ready or one.process.sentinel in ready)
        job, worker.job = worker.job, None
        assert job is not None
        try:
            return Ended(job, worker.pipe.recv())
        except (EOFError, OSError):
            worker.process.join()
            self._let_go(worker)
            return Ended(job, _tell_death(worker.process), died=True)

    def close(self) -> None:
        """End all workers; one that is still at work is killed."""
        for worker in list(self._workers):
            if worker.job is not None:
                worker.process.kill()
            self._let_go(worker)

    def _hire(self) -> Worker:
        number = min(set(range(len(self._workers) + 1)) - {worker.number for worker in self._workers})
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs,), daemon=True)
        with _environment(self._describe(number)):
            process.start()
        theirs.close()
        self._workers.append(Worker(number, process, ours))
        return self._workers[-1]

    def _describe(self, number: int) -> dict[str, str]:
        """What a worker's environment says beside ours."""
        said = dict.fromkeys(THREADS, str(self._threads)) if self._threads else {}
        if self._gpus:
            named, own = named_gpus(), range(number * self._gpus, (number + 1) * self._gpus)
            said["CUDA_VISIBLE_DEVICES"] = ",".join(str(i) if named is None else named[i] for i in own)
        return said

    def _let_go(self, worker: Worker) -> None:
        worker.pipe.close()
        worker.process.join()
        self._workers.remove(worker)


def _tell_death(process: BaseProcess) -> str:
    code = process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return f"its worker, process {process.pid}, {how}"


@contextmanager
def _environment(said: dict[str, str]) -> Iterator[None]:
    """The environment with some words in it, and then as it was."""
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# --- in a worker ------------------------------------------------------------------------------------------------------


def _work(pipe: Connection) -> None:
    """Do the jobs that come through the pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    progress.in_lines()
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(job))


def _end_with_parent() -> None:
    """End this process when the one that hired it has: after a kill it would work on in vain, its run folder locked."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
