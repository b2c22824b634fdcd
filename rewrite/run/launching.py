"""Jobs are handed to an executor, each when those that it needs are done.

A job whose worker died is tried again; one that failed by itself is not, and neither is what needs it, but all others
go on.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rewrite.config import Config
from rewrite.run import plugins
from rewrite.run.executors.base import Executor, Job


@contextmanager
def executing(config: Config) -> Iterator[Executor]:
    """The config's executor; at the end its workers are let go."""
    settings = plugins.chosen("executor", config)
    executor: Executor = plugins.load("executors", config.executor).build(settings, config.sweep.threads)
    try:
        yield executor
    finally:
        executor.close()


def settle(threads: int) -> None:
    """In a worker, before it computes: `threads` is what it computes with, 0 for whatever the machine says."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if threads:
        import torch

        torch.set_num_threads(threads)


@contextmanager
def keeping_threads() -> Iterator[None]:
    """Afterwards this process computes with as many threads as before."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def launch(
    executor: Executor,
    jobs: Sequence[Job],
    retries: int,
    say: Callable[[str], None],
    done: Callable[[str], object] | None = None,
) -> dict[str, str]:
    """Do the jobs, in their order as far as there is room; the faults of those that were not done, by name.

    What a job needs and is not among the jobs is taken to be done. `say` hears of every end; where there is a `done`,
    that hears of the good ones.
    """
    waiting = {job.name: job for job in jobs}
    undone, faults, tries, out = set(waiting), dict[str, str](), Counter[str](), 0
    while True:
        for job in [job for job in waiting.values() if not undone.intersection(job.needs)]:
            if out < executor.slots:
                executor.start(waiting.pop(job.name))
                out += 1
        if not out:
            break
        ended = executor.wait()
        out -= 1
        name = ended.job.name
        tries[name] += 1
        if ended.died and tries[name] <= retries:
            say(f"{name}: {ended.fault}; tried again")
            waiting = {name: ended.job, **waiting}
        elif ended.fault:
            faults[name] = ended.fault
            say(f"{name}: {ended.fault}")
        else:
            undone.discard(name)
            (done or say)(f"{name}: done, {len(jobs) - len(undone)} of {len(jobs)}")
    waits = {job.name: f"waits for {next(need for need in job.needs if need in undone)}" for job in waiting.values()}
    return faults | waits
