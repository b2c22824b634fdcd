"""Requests to a server: paced, tried again, many at a time, and handed out one by one as they are answered.

1. `stream` runs an event loop in a thread of its own; a fixed number of workers there take jobs, one after another, and
   what they bring is yielded at once. A worker takes its next job when what it brought was taken away, so that whoever
   keeps each answer before asking for the next one can lose no more than `concurrency` jobs. Closing the iterator
   cancels what is in flight.
2. `insist` is the one place that tries again: it waits its turn, tries, and on a `Trouble` that may pass waits as long
   as the server asked, else exponentially longer each time, with jitter so that workers do not return together. A 429
   (too many requests; `replies.judge_status` makes a `Trouble` of it) holds all requests, not only its own, where no
   other server can be asked (`replicas.py`). One that
   outlasts the tries becomes a `Fault` that may pass (`settle`), for which a rerun asks again. Where the server asks
   for more than `LONGEST_ASKED`, or says that no money is left (`remote.py`), the run stops and says why.
3. `Pace` spreads requests evenly over the minute by both limits, requests and tokens, so that no minute holds more than
   either (but for the one request that opens it). A server that asks one request to wait holds them all.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from queue import SimpleQueue
from typing import Generic, TypeVar

from rewrite.config import UserError
from rewrite.engines.base import Answer, Fault, Reading
from rewrite.engines.ledger import Spent

T = TypeVar("T")
Found = TypeVar("Found", Reading, Answer)
Client = TypeVar("Client")

FIRST_WAIT = 0.5
"""Wait before the second try [s]; it doubles from try to try."""
LONGEST_WAIT = 60.0
"""Longest wait of our own choosing [s]."""
LONGEST_ASKED = 900.0
"""Longest wait that a server may ask for [s]; for one that asks for more it is better to come back another day."""


class Trouble(Exception):
    """A try that failed: the fault that it is if it stays so, whether another try may help, and how long to wait."""

    def __init__(
        self, fault: Fault, again: bool, wait: float | None = None, status: int = 200, gone: bool = False
    ) -> None:
        """`status` is that of the answer, 0 where none came; `gone`: there is nothing that could be asked."""
        super().__init__(fault.why)
        self.fault = fault
        self.again = again
        self.wait = wait
        self.status = status
        self.gone = gone
        self.retried = 0


@dataclass(frozen=True)
class Tried(Generic[T]):
    """What a try brought, how many failed before it, and what the server billed for those."""

    value: T
    retried: int
    paid: Spent = field(default=Spent())


class Pace:
    """When the next request may go out; 0 is no limit."""

    def __init__(
        self, requests_per_minute: int, tokens_per_minute: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._next = 0.0
        self._held = 0.0
        self._lock = threading.Lock()

    def reserve(self, tokens: int) -> float:
        """Take the next turn for a request of so many tokens: how long to wait for it [s]."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next, self._held)
            self._next = start + max(self._request, self._token * tokens)
            return start - now

    def hold(self, seconds: float) -> None:
        """Let nobody out for a while."""
        with self._lock:
            self._held = max(self._held, self._clock() + seconds)


def read_retry_after(value: str | None) -> float | None:
    """The Retry-After header, seconds or a date, as seconds from now; None where there is none that can be read."""
    if value is None:
        return None
    with suppress(ValueError):
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else None
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def wait_after(tries: int) -> float:
    """How long to wait when so many tries failed before the last one [s]."""
    return float(min(LONGEST_WAIT, FIRST_WAIT * 2**tries) * random.uniform(0.5, 1))


async def insist(attempt: Callable[[], Awaitable[T]], pace: Pace, tokens: int, retries: int) -> Tried[T]:
    """What `attempt` brings, tried up to `retries` times again. Raises the last `Trouble`, with the tries it took and
    what all of them cost, and UserError where the server asks to be left alone for long."""
    paid = Spent()
    for tries in range(retries + 1):
        await asyncio.sleep(pace.reserve(tokens))
        try:
            return Tried(await attempt(), tries, paid)
        except Trouble as error:
            trouble = error
            paid += trouble.fault.spent
            trouble.retried, trouble.fault = tries, replace(trouble.fault, spent=paid)
            asked = trouble.wait
            if (asked or 0) > LONGEST_ASKED:
                until = (datetime.now().astimezone() + timedelta(seconds=asked or 0)).strftime("%Y-%m-%d %H:%M")
                raise UserError(
                    f"engines.openai: the server wants no request until {until} ({trouble.fault.detail}); run again "
                    "then, nothing answered is lost"
                ) from None
            if not trouble.again or tries == retries:
                raise
        wait = wait_after(tries) if asked is None else asked
        if asked is not None or trouble.status == 429:
            # Everybody's trouble, so all back off together; this one too: its next turn comes after.
            pace.hold(wait)
        else:
            await asyncio.sleep(wait)
    raise AssertionError("retries are not negative")


Job = Callable[[Client], Awaitable[Sequence[T]]]
"""Something to be asked of a server; it brings any number of results."""


@dataclass(frozen=True)
class _End:
    """The last thing in a queue: how the workers ended."""

    error: BaseException | None


@dataclass(frozen=True)
class _Taken:
    """Stands in the queue after a job's results: the worker waits until it is reached."""

    event: asyncio.Event


def stream(
    connect: Callable[[], AbstractAsyncContextManager[Client]], jobs: Iterator[Job[Client, T]], concurrency: int
) -> Generator[T, None, None]:
    """The results of all jobs as they come, at most `concurrency` at work. An error of a job ends all and is raised."""
    results: SimpleQueue[T | _Taken | _End] = SimpleQueue()
    loop = asyncio.new_event_loop()

    async def work(client: Client) -> None:
        for job in jobs:
            for result in await job(client):
                results.put(result)
            taken = _Taken(asyncio.Event())
            results.put(taken)
            await taken.event.wait()

    async def all_workers() -> None:
        async with connect() as client, asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work(client))

    task = loop.create_task(all_workers())
    thread = threading.Thread(target=_run, args=(loop, task, results), name="requests", daemon=True)
    thread.start()
    try:
        while not isinstance(result := results.get(), _End):
            if isinstance(result, _Taken):
                with suppress(RuntimeError):  # The loop is closed where a worker failed.
                    loop.call_soon_threadsafe(result.event.set)
            else:
                yield result
        if result.error is not None:
            raise result.error
    finally:
        with suppress(RuntimeError):  # The loop is closed where all is done.
            loop.call_soon_threadsafe(task.cancel)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], results: SimpleQueue[T | _Taken | _End]) -> None:
    error: BaseException | None = None
    try:
        loop.run_until_complete(task)
    except BaseExceptionGroup as group:
        error = group.exceptions[0]
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    except BaseException as other:
        error = other
    finally:
        with suppress(Exception):
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        results.put(_End(error))


def settle(trouble: Trouble) -> Fault:
    """The fault of one request; a call counts also where the server did not say what it cost."""
    spent = replace(trouble.fault.spent, calls=1, retried=trouble.retried)
    return replace(trouble.fault, spent=spent, passing=trouble.again)


def add_tries(outcome: Found | Fault, retried: int, paid: Spent) -> Found | Fault:
    """The outcome with the tries before it, and what those cost."""
    return replace(outcome, spent=outcome.spent + replace(paid, calls=0, retried=retried))
