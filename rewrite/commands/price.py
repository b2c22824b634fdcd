"""The price list of a dry run: what the calls would cost that a run is about to make."""

from __future__ import annotations

from collections.abc import Mapping

from rewrite.config import CallsConfig
from rewrite.display import tables
from rewrite.display.tables import Page, Row, Table
from rewrite.engines.ledger import Planned, cost

COUNTED = ("calls", "tokens_in", "tokens_out", "dollars", "cached")


def price_calls(planned: Mapping[str, Planned], prices: CallsConfig) -> Page:
    """What asking would come to at most, stage by stage and in all."""
    priced = bool(prices.price_in or prices.price_out)
    stages = [_price(stage, met, prices if priced else None) for stage, met in planned.items()]
    total = {key: sum(row[key] for row in stages) if priced or key != "dollars" else None for key in COUNTED}
    facts: Row = {"schema": 1, "stages": stages, "total": total}
    if not stages:
        return Page("No language model would be asked", (), (), facts)
    heads = ("stage", "calls", "prompt tokens", "answer tokens", "dollars", "in the cache")
    rows = tuple(_price_cells(row) for row in (*stages, {"stage": "in all"} | total))
    notes = ["Nothing was asked. Answer tokens and dollars are the most that they can be."]
    if not priced:
        notes.append("No price: set calls.price_in and calls.price_out.")
    return Page("What language models would be asked", (Table("Calls, by stage", heads, rows),), tuple(notes), facts)


def _price(stage: str, met: Planned, prices: CallsConfig | None) -> Row:
    asked = met.planned
    return {
        "stage": stage,
        "calls": asked.calls,
        "tokens_in": asked.tokens_in,
        "tokens_out": asked.tokens_out,
        "dollars": None if prices is None else cost(asked, prices),
        "cached": met.cached,
    }


def _price_cells(row: Row) -> tuple[str, ...]:
    counts = [tables.count(row[key]) for key in ("calls", "tokens_in", "tokens_out")]
    return (row["stage"], *counts, tables.dollars(row["dollars"]), tables.count(row["cached"]))
