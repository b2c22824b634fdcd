"""One job after another, in this process."""

from __future__ import annotations

from rewrite.config import Section
from rewrite.run.executors.base import Ended, Job, attempt


class Settings(Section):
    """Nothing to set."""


def build(settings: Settings, threads: int) -> Local:
    """See `rewrite.run.executors.base`."""
    return Local()


class Local:
    """Does a job when it is waited for."""

    slots = machines = 1

    def __init__(self) -> None:
        self._next: list[Job] = []

    def start(self, job: Job) -> None:
        """Remember the job."""
        self._next.append(job)

    def wait(self) -> Ended:
        """Do it."""
        job = self._next.pop(0)
        return Ended(job, attempt(job))

    def close(self) -> None:
        """Nothing was opened."""
