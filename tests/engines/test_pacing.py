"""Workers do not run ahead of whoever keeps what they bring."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest

from rewrite.engines.openai.pacing import Job, stream

LIST = 3


@asynccontextmanager
async def connect() -> AsyncIterator[None]:
    yield None


def make_jobs(count: int, started: list[int], failing: int = -1) -> Iterator[Job[None, int]]:
    """Jobs of `LIST` results each, answered at once."""

    def make(number: int) -> Job[None, int]:
        async def job(client: None) -> Sequence[int]:
            started.append(number)
            if number == failing:
                raise OSError("gone")
            return range(number * LIST, number * LIST + LIST)

        return job

    return map(make, range(count))


@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_was_not_taken_is_never_more_than_the_jobs_at_work(concurrency: int) -> None:
    started: list[int] = []
    results = []
    for result in stream(connect, make_jobs(20, started), concurrency):
        time.sleep(0.002)  # Whoever keeps an answer takes its time.
        assert len(started) * LIST <= len(results) + concurrency * LIST
        results.append(result)
    assert sorted(results) == list(range(20 * LIST))


def test_an_error_ends_all_after_what_came_before_it() -> None:
    started: list[int] = []
    results = []
    with pytest.raises(OSError, match="gone"):
        for result in stream(connect, make_jobs(20, started, failing=7), 2):
            results.append(result)
    assert len(started) < 12 and set(results) >= set(range(5 * LIST))


def test_closing_stops_the_workers() -> None:
    started: list[int] = []
    results = stream(connect, make_jobs(1000, started), 2)
    next(results)
    results.close()
    assert len(started) <= 3
