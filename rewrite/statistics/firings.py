"""How often a simulation fires falsely and misses a firing, counted at the true base rate.

1. A latent fires where its true activation is above 0, a simulation where `rewrite.arms.controls.fires` says so: one
   rule for the whole harness.
2. `count_firings` walks documents and counts, latent by latent, positions, true firings, those that the simulation
   fires at too (hits), and false firings; pooled, the same for each document.
3. `rates` turns counts into false and missed firings per token, precision and recall, and the specificity that is
   needed for as many false as true firings: false positives equal hits where FPR = hits / negatives. A latent that is
   active at one position in a hundred needs a specificity near 0.99 for a precision of one half: the base rate is in
   the counts, which windows shown half active and half not would hide.
4. Pooled rates are ratios of sums over latents; their intervals leave out a document at a time
   (`rewrite.statistics.scores`).

A prediction that is missing is neither a firing nor a silence: its position is not counted for that latent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import csr_array

from rewrite.arms.calibrate import Calibrator, Pair
from rewrite.arms.controls import Threshold, fires
from rewrite.statistics.scores import Jackknife

Row = dict[str, Any]
Totals = Float[np.ndarray, "4 each"]
"""The four numbers of `Counts`."""

NAMES = {
    "false_per_token": "false firings per token",
    "missed_per_token": "missed firings per token",
    "precision": "precision at the true base rate",
    "recall": "recall",
    "specificity": "specificity",
    "needed_specificity": "specificity needed for as many false as true firings",
}


@dataclass(frozen=True)
class Counts:
    """Numbers of positions, latent by latent (or document by document); `known` are those with a prediction."""

    known: Float[np.ndarray, " each"]
    true: Float[np.ndarray, " each"]
    hits: Float[np.ndarray, " each"]
    false: Float[np.ndarray, " each"]

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def sum(self, kept: Bool[np.ndarray, " each"]) -> Float[np.ndarray, " 4"]:
        """The four totals over those that are kept."""
        return np.array([values[kept].sum() for values in vars(self).values()])


@dataclass(frozen=True)
class Firings:
    """Counts of each latent, and of each document over all latents that were counted."""

    latents: Counts
    documents: Counts
    counted: Bool[np.ndarray, " latent"]


def count_firings(
    pairs: Iterable[Pair], calibrator: Calibrator, threshold: Threshold, counted: Bool[np.ndarray, " latent"]
) -> Firings:
    """Count over pairs of true activations and strengths, one a document; `counted` latents enter what is pooled."""
    none = np.zeros(len(counted))
    total, documents = Counts(none, none, none, none), [np.zeros((0, 4))]
    for pair in pairs:
        own = _count_document(pair, calibrator, threshold)
        total += own
        documents.append(own.sum(counted)[None])
    return Firings(total, Counts(*np.concatenate(documents).T), counted)


def _count_document(pair: Pair, calibrator: Calibrator, threshold: Threshold) -> Counts:
    positions, latents = pair.truth.shape
    strength, latent = pair.strengths.data.astype(np.float32), pair.strengths.indices
    unknown = np.isnan(strength)
    said = fires(strength, calibrator.apply(strength, latent), latent, threshold)
    truth = csr_array((pair.truth.data > 0, pair.truth.indices, pair.truth.indptr), shape=pair.truth.shape)

    def total(marks: Bool[np.ndarray, " entry"]) -> tuple[np.ndarray, np.ndarray]:
        """Of the stored strengths that are marked: how many, and at how many the latent is truly active."""
        marked = csr_array((marks, latent, pair.strengths.indptr), shape=pair.strengths.shape)
        both = csr_array(marked.multiply(truth))
        return sum_marks(latent, marks, latents), sum_marks(both.indices, both.data, latents)

    lost, lost_true = total(unknown)
    fired, hits = total(said & ~unknown)
    true = sum_marks(truth.indices, truth.data, latents) - lost_true
    return Counts(positions - lost, true, hits, fired - hits)


def sum_marks(latent: np.ndarray, marks: np.ndarray, latents: int) -> Float[np.ndarray, " latent"]:
    """How many marks each latent has; numpy counts nothing at all in integers."""
    return np.bincount(latent, marks, latents).astype(np.float64)


def rates(totals: Totals) -> dict[str, Float[np.ndarray, " each"]]:
    """The rates of `NAMES` from known positions, true firings, hits and false firings; NaN where one is undefined."""
    known, true, hits, false = totals
    negatives = known - true
    return {
        "false_per_token": _divide(false, known),
        "missed_per_token": _divide(true - hits, known),
        "precision": _divide(hits, hits + false),
        "recall": _divide(hits, true),
        "specificity": 1 - _divide(false, negatives),
        "needed_specificity": 1 - _divide(hits, negatives),
    }


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)


def rate_latents(firings: Firings) -> dict[str, Float[np.ndarray, " latent"]]:
    """Each latent's rates."""
    return rates(np.stack(list(vars(firings.latents).values())))


def pool(firings: Firings, alpha: float) -> Row:
    """The pooled counts and rates with intervals, as JSON: {"latents", "true", "hits", "false", rate: {value, ci}}.

    Firings per token are those of all counted latents together, at a position that has predictions of all.
    """
    whole = firings.latents.sum(firings.counted)
    latents = int(firings.counted.sum())
    values = _pooled(whole, latents)
    jackknife = Jackknife(np.array(list(values.values())))
    for own in np.stack(list(vars(firings.documents).values()), axis=1):
        left = np.array(list(_pooled(whole - own, latents).values()))
        jackknife.leave_out(left, np.full(len(left), own[0] > 0))
    content: Row = {"latents": latents, "positions": float(whole[0] / max(latents, 1))}
    content |= {name: int(number) for name, number in zip(("true", "hits", "false"), whole[1:], strict=True)}
    for (name, value), half in zip(values.items(), jackknife.half_width(alpha), strict=True):
        highest = np.inf if name.endswith("token") else 1.0
        ends = [float(max(value - half, 0.0)), float(min(value + half, highest))]
        defined, sure = bool(np.isfinite(value)), bool(np.isfinite(value) and np.isfinite(half))
        content[name] = {"value": float(value) if defined else None, "ci": ends if sure else None}
    return content


def _pooled(totals: Float[np.ndarray, " 4"], latents: int) -> dict[str, float]:
    found = {name: float(value[0]) for name, value in rates(totals[:, None]).items()}
    return found | {name: latents * found[name] for name in ("false_per_token", "missed_per_token")}


def rows_of_rates(pooled: Row) -> list[Row]:
    """The report's rows from what `pool` wrote: {"name", "value", "ci"}, in the order of `NAMES`."""
    return [{"name": said, **pooled[name]} for name, said in NAMES.items()]
