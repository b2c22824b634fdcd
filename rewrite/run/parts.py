"""A stage's work in parts that do not depend on each other, shared out among workers.

1. What all parts need, the tools, is made once, in this process. What a part gives is a file of arrays in a folder that
   is there until the stage's artefact is (`Run.parts`): what was killed goes on from what is finished.
2. With `executor = local` forks of this process, which have the tools already, make the parts, a thread each; or this
   process itself, where parts are few, or a GPU does the work, of which a fork could make no use. Any other executor's
   workers read the tools from a file, once each.
3. Whoever makes a part with as many threads makes the same bytes.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from tqdm import tqdm

from rewrite.config import Config, UserError
from rewrite.display.progress import bar
from rewrite.run.arrays import load_arrays, save_arrays
from rewrite.run.executors.base import Job
from rewrite.run.forking import count_processes, deal, in_order
from rewrite.run.launching import executing, keeping_threads, launch, settle

Arrays = dict[str, np.ndarray]
Tools = TypeVar("Tools")
Work = Callable[[Tools, str], Arrays]
"""Makes the part of this name. A function of a module, so that it can be pickled, as the tools can."""
Sizes = Mapping[str, int]
"""How much there is to do of each part, by its name."""
Done = Callable[[str], object]
"""Hears of each part that is made."""


@runtime_checkable
class Maker(Protocol):
    """Has parts made, and gives them in the order of their names."""

    def __call__(self, work: Work[Tools], tools: Tools, sizes: Sizes, what: str) -> Iterator[Arrays]:
        """The parts of these names; `what` says what is done."""


def one_by_one(work: Work[Tools], tools: Tools, sizes: Sizes, what: str) -> Iterator[Arrays]:
    """Parts made in this process and kept nowhere; a `Maker`."""
    with bar(what=what, unit="windows", total=sum(sizes.values())) as progress:
        for name, size in sizes.items():
            yield work(tools, name)
            progress.update(size)


def allow(machines: int) -> None:
    """Parts may be made on any number of machines."""


@dataclass(frozen=True)
class Share:
    """Parts made by whom the config says, and kept in a folder; a `Maker`."""

    config: Config
    folder: Path
    unit: str = "windows"
    """What sizes count."""
    forks: bool = True
    """Whether forks of this process can do the work: it needs no GPU but the subject's, and no thread but its own."""
    check: Callable[[int], None] = allow
    """Told on how many machines parts would be made; raises UserError where these cannot be."""

    def __call__(self, work: Work[Tools], tools: Tools, sizes: Sizes, what: str) -> Iterator[Arrays]:
        """Raises UserError for a part that was not made; those that were are there, by workers all others."""
        waiting = {name: size for name, size in sizes.items() if not _place(self.folder, work, name).exists()}
        forked = self._is_forked(len(sizes))  # Of all parts: one that is made after a kill has as many threads.
        with bar(what=what, unit=self.unit, total=sum(sizes.values())) as progress:
            progress.update(sum(sizes.values()) - sum(waiting.values()))

            def done(name: str) -> None:
                progress.update(sizes[name])

            if self.config.executor == "local" or not waiting:
                faults = self._make_here(work, tools, waiting, forked, done)
            else:
                faults = self._make_elsewhere(work, tools, waiting, what, done)
        for name, fault in faults.items():
            raise UserError(f"{what}: {len(faults):,} of {len(sizes):,} {self.unit} not made; {name}: {fault}")
        for name in sizes:
            yield load_arrays(_place(self.folder, work, name))

    def _make_here(self, work: Work[Tools], tools: Tools, sizes: Sizes, forked: bool, done: Done) -> dict[str, str]:
        """Make parts in this process or in forks of it, which raise what they meet: there are no faults."""
        processes, threads = count_processes() if forked else 1, self.config.sweep.threads

        def make(name: str) -> str:
            if forked or threads:
                settle(threads or 1)
            save_arrays(_place(self.folder, work, name), work(tools, name))
            return name

        # Of parts that are few this process may make the one that is left.
        with keeping_threads() if forked and not threads else nullcontext():
            for name in in_order(make, deal(sizes, processes), processes):
                done(name)
        return {}

    def _is_forked(self, parts: int) -> bool:
        """Whether forks make so many parts, a thread each: OpenMP, which has begun its threads in this process, waits
        for ever where a fork asks it for some. So none where threads are asked for, nor where so few parts would leave
        more than half of the cores idle."""
        cores = count_processes()
        unfit = self.config.device != "cpu" or self.config.sweep.threads > 1 or 2 * parts < cores
        return self.forks and not unfit and min(cores, parts) > 1

    def _make_elsewhere(self, work: Work[Tools], tools: Tools, sizes: Sizes, what: str, done: Done) -> dict[str, str]:
        """Let the workers of the config's executor make parts; the faults of those that were not made, by name."""
        told = {"folder": str(self.folder.resolve()), "work": work, "threads": self.config.sweep.threads}
        jobs = [Job(name, make_part, told | {"name": name}) for name in sizes]
        with executing(self.config) as executor:
            self.check(executor.machines)
            with _tools_of(self.folder, work).open("wb") as stream:
                pickle.dump(tools, stream)

            def say(line: str) -> None:
                tqdm.write(f"{what}: {line}", file=sys.stderr)

            return launch(executor, jobs, self.config.sweep.retries, say, lambda line: done(line.partition(":")[0]))


def _place(folder: Path, work: Work[Any], name: str) -> Path:
    return folder / f"{work.__name__}-{name}.safetensors"


def _tools_of(folder: Path, work: Work[Any]) -> Path:
    return folder / f"{work.__name__}.pickle"


# --- in a worker ------------------------------------------------------------------------------------------------------


def make_part(folder: str, work: Work[Any], threads: int, name: str) -> None:
    """Make one part with the tools that lie in the folder."""
    settle(threads)
    place = Path(folder)
    save_arrays(_place(place, work, name), work(_read_tools(_tools_of(place, work)), name))


@lru_cache(maxsize=1)
def _read_tools(path: Path) -> Any:
    """The tools, read once a worker; the process that launched it has just written them."""
    with path.open("rb") as stream:
        return pickle.load(stream)
