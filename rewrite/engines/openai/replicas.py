"""Servers of one model: which of them is asked next, and which is left alone for a while.

1. A request goes to the server that has least to do, in prompt and answer tokens that it was sent and has not answered.
2. One that fails (no connection, no answer in time, 429, 5xx) is left alone: as long as it asked, else twice as long
   each time in a row. The request goes to another at once; only where none is left does it wait (`pacing.insist`).
3. When that time is over it gets one request at a time, until it answers one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from rewrite.config import UserError
from rewrite.engines.openai.pacing import Trouble, wait_after


@dataclass
class Server:
    """An address, and how it has fared."""

    url: str
    kind: str | None = None
    """Who the server says that it is (`vllm`, `llamacpp`, ...), or ""; None where it was not met yet."""
    busy: int = 0
    """What it was sent and has not answered [tokens]."""
    sent: int = 0
    """Requests so far."""
    failed: int = 0
    """Times in a row that it was left alone."""
    left_until: float = 0.0
    """When it may be asked again [s, on the clock of `Replicas`]."""
    trouble: Trouble | None = None
    """How its last request failed; None where it was answered."""

    @property
    def shown(self) -> str:
        """The address without any name and password in it."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    @contextmanager
    def at_work(self, tokens: int) -> Iterator[None]:
        """While it has a request of so many tokens."""
        self.busy += tokens + 1
        self.sent += 1
        try:
            yield
        finally:
            self.busy -= tokens + 1

    def answered(self) -> None:
        """It serves."""
        self.failed, self.left_until, self.trouble = 0, 0.0, None


class Replicas:
    """The servers of an engine, for one event loop at a time."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.servers = [Server(url) for url in urls]
        self._clock = clock

    def in_turn(self) -> Iterator[Server]:
        """Servers to try a request on, each once, as they stand when they are asked for. There is always one: where all
        are left alone, the one that is so for the shortest time."""
        tried: list[Server] = []
        while free := [server for server in self.servers if server not in tried and self._is_free(server)]:
            tried.append(min(free, key=lambda server: (server.busy, server.sent)))
            yield tried[-1]
        if not tried:
            yield min(self.servers, key=lambda server: server.left_until)

    def _is_free(self, server: Server) -> bool:
        return server.left_until <= self._clock() and not (server.failed and server.busy)

    def leave(self, server: Server, trouble: Trouble) -> None:
        """Leave a server alone for a while. Requests that were under way when it failed count as one failure."""
        server.trouble = trouble
        if server.left_until <= self._clock():
            wait = wait_after(server.failed) if trouble.wait is None else trouble.wait
            server.left_until = self._clock() + wait
            server.failed += 1

    def meet(self, server: Server, kind: str) -> None:
        """Note who a server says that it is. Raises UserError where others are of another kind: digits are asked for by
        the kind, so that answers would differ."""
        others = [other for other in self.servers if other.kind not in (None, kind)]
        if others:
            raise UserError(
                f"engines.openai.base_url: {server.shown} is a server of the kind {kind or 'unknown'} and "
                f"{others[0].shown} of the kind {others[0].kind or 'unknown'}; name replicas of one server"
            )
        server.kind = kind

    def tell(self) -> str:
        """The addresses that failed last time, each with why."""
        return "; ".join(f"{one.shown}: {one.trouble.fault.why}" for one in self.servers if one.trouble)
