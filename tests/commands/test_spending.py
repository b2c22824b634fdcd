"""A dry run's price list: stage by stage and in all, at most, and no price where none is set."""

from __future__ import annotations

import json

import pytest

from rewrite.commands.price import price_calls
from rewrite.config import CallsConfig
from rewrite.engines.ledger import Planned, Spent, cost_of

PLANNED = {
    "explain": Planned(cached=2, planned=Spent(calls=100, tokens_in=50_000, tokens_out=4_000)),
    "simulate": Planned(cached=0, planned=Spent(calls=1_000, tokens_in=2_000_000, tokens_out=1_000)),
}


def test_the_last_line_is_the_sum() -> None:
    page = price_calls(PLANNED, CallsConfig(price_in=2.0, price_out=10.0))
    explain, simulate, total = page.tables[0].rows
    assert explain == ("explain", "100", "50,000", "4,000", "$0.14", "2")
    assert simulate == ("simulate", "1,000", "2,000,000", "1,000", "$4.01", "0")
    assert total == ("in all", "1,100", "2,050,000", "5,000", "$4.15", "2")
    facts = json.loads(page.write("json"))
    assert facts == page.facts
    assert [stage["dollars"] for stage in facts["stages"]] == pytest.approx([0.14, 4.01])
    assert facts["total"]["dollars"] == pytest.approx(4.15)


def test_without_a_price_nothing_is_said_to_cost_nothing() -> None:
    page = price_calls(PLANNED, CallsConfig())
    assert page.facts["total"]["dollars"] is None
    assert [row[4] for row in page.tables[0].rows] == ["–"] * 3
    assert page.notes[-1] == "No price: set calls.price_in and calls.price_out."


def test_where_nothing_is_asked_there_is_no_table() -> None:
    page = price_calls({}, CallsConfig(price_in=2.0))
    assert page.write("table") == "No language model would be asked"
    assert page.facts["total"] == {"calls": 0, "tokens_in": 0, "tokens_out": 0, "dollars": 0, "cached": 0}


def test_dollars_of_a_ledger() -> None:
    assert cost_of({}) == cost_of({"explain": {"calls": 0, "cost": 0.0}}) == 0
    assert cost_of({"explain": {"calls": 3, "cost": 0.0}}) is None
    assert cost_of({"explain": {"calls": 3, "cost": 0.5}, "score": {"calls": 1, "cost": 0.25}}) == 0.75
