"""What an executor is: something that does jobs, and says of each how it ended.

An executor is a file in this folder with a `Settings` table and `build(settings, threads)`, which returns an
`Executor`; `threads` is what each job computes with, 0 for whatever the machine says. A job is a function of a module
and what it is called with, all of which can be pickled. What jobs make are files, written whole or not at all, in a
folder that all workers see; so an executor moves no results, and a job that was done by half is simply done again.

`launch` (`rewrite.run.launching`) hands out jobs in their order and tries again what a worker was doing when it died.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rewrite.config import UserError


@dataclass(frozen=True)
class Job:
    """Something to do once the jobs that it `needs` are done; `name` is its own among all jobs."""

    name: str
    call: Callable[..., None]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    folder: str = field(default_factory=os.getcwd)
    """Where it was handed out: relative paths are from there, wherever the worker began."""


@dataclass(frozen=True)
class Ended:
    """How a job ended: done, or with a fault, in one line; `died` where its worker ended before it did."""

    job: Job
    fault: str = ""
    died: bool = False


class Executor(Protocol):
    """Does jobs, up to `slots` of them at a time."""

    @property
    def slots(self) -> int:
        """Jobs that may be out at once."""

    @property
    def machines(self) -> int:
        """Machines on which jobs may be done."""

    def start(self, job: Job) -> None:
        """Begin a job; `wait` will say how it ended."""

    def wait(self) -> Ended:
        """Wait until one of the jobs that are out has ended."""

    def close(self) -> None:
        """Let all workers go."""


def attempt(job: Job) -> str:
    """Do a job in this process; its fault in one line, empty where it is done. What is not the user's to mend is told
    with its traceback on stderr."""
    try:
        os.chdir(job.folder)
    except OSError as error:
        return f"{job.folder}: cannot be entered where the worker is ({error.strerror}); all machines must see it"
    try:
        job.call(**job.arguments)
    except UserError as error:
        return str(error)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return f"{type(error).__name__}: {error}".splitlines()[0] + " (a fault of the program; its traceback is above)"
    return ""
