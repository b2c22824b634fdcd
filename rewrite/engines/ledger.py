"""What calls of language models take: requests and tokens, and what they cost.

The ledger itself is kept beside the answers (`rewrite.engines.cache`); its sums stand in the manifest under `calls`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from rewrite.config import CallsConfig, Config, UserError
from rewrite.display.tables import Row

SUMS = """
SELECT COALESCE(SUM(calls), 0), COALESCE(SUM(tokens_in), 0), COALESCE(SUM(tokens_out), 0),
    COALESCE(SUM(processed), 0), COALESCE(SUM(retried), 0) FROM ledger WHERE run = ?
"""


@dataclass(frozen=True)
class Spent:
    """What requests cost; sums with +."""

    calls: int = 0
    """Requests as a server or a user counts them: one prompt, one call."""
    tokens_in: int = 0
    """Prompt tokens as they are billed."""
    tokens_out: int = 0
    processed: int = 0
    """Prompt tokens that the model really went through: fewer than `tokens_in` where prefixes are reused."""
    retried: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.calls + other.calls,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.processed + other.processed,
            self.retried + other.retried,
        )


@dataclass
class Planned:
    """What a session met: answers found in the cache, and, on a dry run, what asking would cost at most."""

    cached: int = 0
    planned: Spent = field(default_factory=Spent)


def cost(spent: Spent, prices: CallsConfig) -> float:
    """What tokens cost [dollars]."""
    return (spent.tokens_in * prices.price_in + spent.tokens_out * prices.price_out) / 1e6


def cost_of(ledger: Mapping[str, Row]) -> float | None:
    """Dollars for all calls: 0 where none was made, None where calls were made and no price was set."""
    if not any(stage["calls"] for stage in ledger.values()):
        return 0.0
    return sum(float(stage["cost"]) for stage in ledger.values()) or None


def check_prices(config: Config) -> None:
    """Raise UserError where a cost is limited that no price tells."""
    if config.calls.max_cost and not (config.calls.price_in or config.calls.price_out):
        raise UserError("calls.max_cost: no price is set, so no cost is known; set calls.price_in and calls.price_out")


def peek_spent(path: Path, run: str) -> dict[str, Spent]:
    """What each stage of a run has spent so far, as the cache at a path says it, which is not touched.

    It is asked only while a session has it open, or after one was killed; otherwise the manifest has the same sums, and
    opening the cache would leave files beside it.
    """
    if not path.with_name(f"{path.name}-wal").exists():
        return {}
    query = SUMS.replace("SELECT", "SELECT stage,", 1) + " GROUP BY stage"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as data:
            return {stage: Spent(*sums) for stage, *sums in data.execute(query, (run,))}
    except sqlite3.Error:
        return {}
