"""`rewrite plan`: from a small run to the documents, calls and dollars that a wished-for effect needs.

1. The run's losses say how much the difference between its full simulation and a reference varies between documents
   (`rewrite.statistics.paired.difference`), and its gap what a share recovered is in nats.
2. The documents that a paired t test needs for each effect: with that spread as it is, and, since a pilot's spread is
   itself uncertain, with the one that the true spread is below four times in five
   (`rewrite.statistics.power.upper_sd`). The second number is the one to plan with, and what follows is for it.
3. Positions, predictions, calls, tokens, dollars and hours, from what the run took (`rewrite.commands.plan.spending`).

It is not `rewrite.run.runner.plan`, which counts, without asking, what the very next run would ask of language models.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from rewrite.commands.plan.spending import Spending, asked_elsewhere, read_spending, taken_over, tell_taken
from rewrite.config import UserError
from rewrite.display import tables
from rewrite.display.escaping import NONE
from rewrite.display.tables import Page, Row, Table
from rewrite.run.finished import Finished, open_finished
from rewrite.statistics import paired as stats
from rewrite.statistics.losses import Key, Losses, read_losses

Unit = Literal["recovered", "nats"]

CONFIDENCE = 0.8
"""How surely the true spread between documents is below the one that is planned with."""
PILOT = 20
"""Documents of a pilot that knows the spread well enough [documents]."""
SHARES = (0.01, 0.02, 0.05, 0.1)
"""Effects that are planned where none is named [share of the gap]."""


@dataclass(frozen=True)
class Wish:
    """What is to be found: effects in a unit, between the full simulation and a reference, with some power."""

    effects: tuple[float, ...] = ()
    unit: Unit = "recovered"
    power: float = 0.8
    reference: str = "zero"
    latents: int = 0
    """Latents to rewrite; 0 for as many as the run rewrote."""


def plan_run(folder: Path, wish: Wish) -> Page:
    """The plan from a run that has losses. Raises UserError where it is too small or the wish cannot be met."""
    _check(wish)
    run = open_finished(folder, last="5_losses.parquet")
    losses = read_pilot(run)
    estimate = measure(run, losses, wish.reference)
    gap = stats.difference(losses.find("zero"), losses.find("coder"), losses.tokens)
    alpha = float(run.setting("analyse.alpha", 0.05))
    spending = read_spending(run, pq.read_metadata(run.path("5_latents.parquet")).num_rows)
    latents = wish.latents or spending.size.latents
    rows: list[Row] = []
    for nats in _effects_in_nats(wish, gap, alpha, run.name):
        documents = estimate.documents_needed(nats, alpha, wish.power)
        sure = estimate.documents_needed(nats, alpha, wish.power, CONFIDENCE)
        row = _effect(nats, gap, alpha) | {"documents": documents, "documents_sure": sure}
        rows.append(row | asdict(spending.price(spending.grow(sure, latents))))
    facts: Row = {
        "schema": 1,
        "run": run.name,
        "reference": wish.reference,
        "fraction": _largest(losses).fraction,
        "alpha": alpha,
        "power": wish.power,
        "confidence": CONFIDENCE,
        "sd": estimate.sd,
        "gap": gap.value,
        "latents": latents,
        "documents_there": spending.splits["test"],
        "taken_over": taken_over(run),
        "asked_elsewhere": asked_elsewhere(run),
        "pilot": _describe_pilot(spending, _effect(estimate.detectable(alpha, wish.power), gap, alpha)),
        "plans": rows,
    }
    title = f"Documents to tell simulated from {wish.reference}, by run {run.name}"
    return Page(title, (_table(facts),), _notes(facts), facts)


def _check(wish: Wish) -> None:
    for effect in wish.effects:
        if not (effect > 0 and isfinite(effect)):
            raise UserError(f"--effect {effect}: give a number above 0, a share of the gap or, with --unit nats, nats")
    if not 0 < wish.power < 1:
        raise UserError(f"--power {wish.power}: give a share between 0 and 1, such as 0.8")
    if wish.latents < 0:
        raise UserError(f"--latents {wish.latents}: give a number of latents, or 0 for those of the run")
    if wish.unit == "nats" and not wish.effects:
        raise UserError("--unit nats: say with --effect how many nats are to be found")
    if wish.unit == "nats" and wish.latents:
        raise UserError("--latents: other latents are worth other nats; give the effect as a share of the gap")


def read_pilot(run: Finished) -> Losses:
    """A run's losses. Raises UserError for too few documents, saying how many are needed."""
    losses = read_losses(run.path("5_losses.parquet"))
    count = len(losses.documents)
    if count < stats.MINIMUM_DOCUMENTS:
        raise UserError(
            f"{run.folder}: {count} test documents are too few to plan from: at least {stats.MINIMUM_DOCUMENTS} are "
            f"needed, and {PILOT} make a pilot; raise corpus.test, corpus.max_documents or sample.documents"
        )
    return losses


def measure(run: Finished, losses: Losses, reference: str) -> stats.Estimate:
    """The run's paired difference of its full simulation and a reference."""
    if not losses.has(reference):
        there = sorted({key.arm for key in losses.single if losses.has(key.arm)})
        raise UserError(f"--reference {reference}: no such arm in {run.name}; there are: {', '.join(there)}")
    estimate = stats.difference(losses.single[_largest(losses)], losses.find(reference), losses.tokens)
    if estimate.identical:
        raise UserError(
            f"{run.folder}: simulated and {reference} agree exactly on every document, so their difference has no "
            "spread to plan by; name another --reference"
        )
    return estimate


def _largest(losses: Losses) -> Key:
    """The full simulation: best explained first, at the largest fraction."""
    keys = [key for key in losses.single if (key.arm, key.order) == ("simulated", "best")]
    return max(keys, key=lambda key: key.place)


def _effects_in_nats(wish: Wish, gap: stats.Estimate, alpha: float, name: str) -> list[float]:
    if wish.unit == "nats":
        return list(wish.effects)
    if gap.interval(alpha).low <= 0:
        raise UserError(f"{name}: its gap, {gap.value:.3g} nats, is not told from 0; give the effect with --unit nats")
    return [share * gap.value for share in wish.effects or SHARES]


def _effect(nats: float, gap: stats.Estimate, alpha: float) -> dict[str, Any]:
    return {"nats": nats, "recovered": nats / gap.value if gap.interval(alpha).low > 0 else None}


def _describe_pilot(spending: Spending, effect: Row) -> Row:
    """The run itself, with the effect that it would have found."""
    size = spending.size
    return effect | {"documents": size.documents, "latents": size.latents} | asdict(spending.price(size))


# --- what is shown ----------------------------------------------------------------------------------------------------


def _table(facts: Row) -> Table:
    heads = ("effect [%]", "nats", "documents", "to be sure", "positions", "predictions")
    cells = tuple(_cells(row) for row in (*facts["plans"], facts["pilot"]))
    heading = f"Effect, documents and what they take, for {facts['latents']:,} latents; last, the run itself"
    return Table(heading, (*heads, "calls", "tokens", "dollars", "hours"), cells)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        tables.number(None if row["recovered"] is None else 100 * row["recovered"], 2),
        f"{row['nats']:.3g}",
        tables.count(row["documents"]),
        tables.count(row.get("documents_sure")),
        *(tables.count(row[key]) for key in ("positions", "predictions", "calls", "tokens")),
        tables.dollars(row["dollars"]),
        _show_hours(row["hours"]),
    )


def _show_hours(hours: float | None) -> str:
    return NONE if hours is None else f"{hours:,.2g}" if hours < 100 else f"{hours:,.0f}"


def _notes(facts: Row) -> tuple[str, ...]:
    """What is assumed, in one line, and what else a reader must know of this plan."""
    pilot, there, latents = facts["pilot"], facts["documents_there"], facts["latents"]
    notes = [
        "Assumes documents as long as the run's whose differences vary as much, the same prompts, prices and speed, "
        f"and one two-sided test at {facts['alpha']:g} with power {facts['power']:g}; several, by Holm, need more.",
        f"To be sure: with the spread at its upper {100 * facts['confidence']:.0f}% limit, since the run's "
        f"{pilot['documents']:,} documents know it roughly only; what follows in the row is for that number.",
    ]
    if any(row["documents_sure"] > there for row in facts["plans"]):
        notes.append(f"The corpus has {there:,} test documents; for more, raise corpus.test or take a larger corpus.")
    if latents != pilot["latents"]:
        notes.append(
            f"The run rewrote {pilot['latents']:,} latents: shares recovered are taken to vary as much with "
            f"{latents:,}."
        )
    notes += tell_taken(facts["taken_over"])
    if pilot["calls"] is None and not facts["asked_elsewhere"]:
        notes.append("The cache answered all that a stage of this run asked, so what it would cost cannot be told.")
    elif pilot["calls"] and pilot["dollars"] is None:
        notes.append("No price: set calls.price_in and calls.price_out.")
    return tuple(notes)
