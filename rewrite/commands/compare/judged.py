"""What a judge says of the explanations of two runs, side by side: `detection` and `fuzz` (`rewrite.explainers.judge`).

Runs that share a coder share its latents, so each pair of them is compared on the latents that both rewrote and that
have a score in both: the mean of each run over these, and of their differences, with Student's interval over latents.
How many of the rewritten latents that is stands beside it, since an explanation that is missing, or a judge that did
not answer in the form that it was asked for, leaves a latent without a score. Two judges, or one judge asked
otherwise, are no measure to compare by: such a pair has no numbers, and `why`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

from rewrite.commands.compare.pairing import Side
from rewrite.display import tables
from rewrite.display.tables import Row, Table
from rewrite.explainers.judge import SHOW
from rewrite.report.gathering import read_rows
from rewrite.run.finished import Finished
from rewrite.statistics import paired as stats

SCORES = "4_scores.parquet"
Scores = dict[int, float]
"""A scorer's score of each latent that has one."""


def compare_judged(sides: Sequence[Side], alpha: float) -> list[Row]:
    """A row for every scorer and every pair of runs that were judged by it and share a coder."""
    judged = [read_judged(side.run) for side in sides]
    return [
        {"scorer": scorer, "a": one.name, "b": other.name} | _compare(one, other, mine[scorer], yours[scorer], alpha)
        for scorer in SHOW
        for (one, mine), (other, yours) in combinations(zip(sides, judged, strict=True), 2)
        if scorer in mine and scorer in yours and one.coder == other.coder
    ]


def read_judged(run: Finished) -> dict[str, Scores]:
    """The scores of each scorer that the run asked for."""
    if SCORES not in run.manifest["artefacts"]:
        return {}
    rows = read_rows(run.path(SCORES))
    asked = [scorer for scorer in SHOW if rows and scorer in rows[0]]
    return {scorer: {row["latent"]: row[scorer] for row in rows if row[scorer] is not None} for scorer in asked}


def _compare(one: Side, other: Side, mine: Scores, yours: Scores, alpha: float) -> Row:
    rewritten = set(one.rewritten) & set(other.rewritten)
    both = sorted(rewritten & set(mine) & set(yours))
    counts: Row = {"latents": len(both), "rewritten": len(rewritten)}
    why = _tell_judges_apart(one.run, other.run)
    if why or not both:
        nothing = dict.fromkeys(("mean_a", "mean_b", "delta", "ci"))
        return counts | nothing | {"why": why or "no latent has a score in both"}
    a, b = (np.array([scores[latent] for latent in both]) for scores in (mine, yours))
    means = {"mean_a": float(a.mean()), "mean_b": float(b.mean()), "delta": float((a - b).mean())}
    return counts | means | {"ci": _interval(a - b, alpha), "why": ""}


def _tell_judges_apart(one: Finished, other: Finished) -> str:
    """The settings of judging that both runs know and that differ, or nothing."""
    both = set(one.settings) & set(other.settings)
    keys = sorted(key for key in both if (key.startswith("score.") and key != "score.scorers") or key == "engine")
    pairs = {key: (one.setting(key), other.setting(key)) for key in keys}
    return "; ".join(f"{key} is {mine} and {yours}" for key, (mine, yours) in pairs.items() if mine != yours)


def _interval(differences: Float[np.ndarray, " latent"], alpha: float) -> list[float] | None:
    """Of the mean over latents; None for fewer than are enough for one, or where all are the same but not 0."""
    few = len(differences) < stats.MINIMUM_DOCUMENTS
    if few or (differences.any() and not np.ptp(differences)):
        return None
    found = stats.estimate(differences, np.ones(len(differences), dtype=np.int64)).interval(alpha)
    return [found.low, found.high]


def table_of_judged(rows: Sequence[Row]) -> Table:
    """The rows for a reader."""
    heads = ("judged by", "run", "scores", "against", "scores", "difference", "latents", "rewritten")
    return Table(
        "What the judge says of the explanations, on the latents with a score in both", heads, tuple(map(_cells, rows))
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row["scorer"],
        row["a"],
        tables.number(row["mean_a"], 2),
        row["b"],
        tables.number(row["mean_b"], 2),
        tables.ranged(row["delta"], row["ci"], 2),
        str(row["latents"]),
        str(row["rewritten"]),
    )


def notes_on_judged(rows: Sequence[Row]) -> list[str]:
    """How to read them, and which pairs have none."""
    told = "Scores are balanced accuracies, of which 0.5 is a guess; their intervals are over latents."
    lacking = dict.fromkeys(f"{row['a']} against {row['b']}, judged: {row['why']}." for row in rows if row["why"])
    return [told, *lacking] if rows else []
