"""How far a long stage has come: a bar at a terminal, a line now and then in a log.

A log that is followed from elsewhere (nohup, a cluster, CI) gets what, how far, at which rate and how long still, at
most once in `EVERY` seconds; stages that are shorter say nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

EVERY = 30.0
"""Seconds between two lines."""


_lines_only = False


def in_lines() -> None:
    """From now on this process tells of its progress in lines: it is one of several at the same terminal."""
    global _lines_only
    _lines_only = True


class Lines(tqdm):  # type: ignore[misc]
    """The same interface, told in lines."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line, unless the last is too near."""
        now = time.monotonic()
        self.told: float = getattr(self, "told", now)
        if now - self.told < EVERY or not self.n:
            return
        self.told = now
        print(tell(self.format_dict), file=self.fp, flush=True)

    def close(self) -> None:
        """Say nothing more."""
        self.disable = True


def bar(over: Iterable[Any] | None = None, what: str = "", unit: str = "", total: int | None = None) -> Any:
    """Progress over some things, or of what `update` is told; `unit` is what is counted."""
    said: dict[str, Any] = {"desc": what, "unit": f" {unit}" if unit else "", "total": total}
    if sys.stderr.isatty() and not _lines_only:
        return tqdm(over, **said)
    return Lines(over, **said, miniters=1, mininterval=0, file=sys.stderr)


def tell(state: dict[str, Any]) -> str:
    """`simulate: 3 of 8 shards, 0.002 a second, 41 minutes left`."""
    done, total, elapsed = state["n"], state["total"], state["elapsed"]
    rate = done / elapsed if elapsed else 0.0
    told: str = f"{state['prefix']}: {done:,}" + (f" of {total:,}" if total else "") + state["unit"]
    if rate:
        told += f", {rate:.3g} a second"
    return told + (f", {_name(max(total - done, 0) / rate)} left" if total and rate else "")


def _name(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
