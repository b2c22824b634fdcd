"""How good an explanation is, with an interval over documents; pure numbers, no language model.

1. `score_simulations` walks the calibrate split's documents. The correlation is Pearson's between a latent's strength
   and its true activation over all counted positions put end to end (Bills et al. 2023), not a mean of correlations.
2. R² = 1 - SSE / SST of the calibrated activation. It is cross-fitted, so that it is held out: every other document is
   calibrated with the conditional mean (`rewrite.arms.calibrate`) fitted on the rest. SST is about one mean, that of
   all.
3. `score_judgements` gives the balanced accuracy, (TPR + TNR) / 2, of a judge who says which windows fit an
   explanation, and the precision it would have at the latent's true base rate π: TPR π / (TPR π + FPR (1 - π)). With
   half of the windows active, as they are shown, precision flatters: most latents are active in few. Where all that are
   shown are active (`fuzz`), what is judged has no base rate, and there is no such precision.
4. Every interval is Student's on the jackknife's standard error with documents left out one at a time, documents - 1
   degrees of freedom, se² = (n-1)/n Σ (θ₋ᵢ - θ)²: the same cluster-robust variance as
   `rewrite.statistics.paired.estimate`. For the correlation it is taken of Fisher's z = artanh r. The calibrators of R²
   are held fixed while documents are left out.

There is no interval, NaN at both ends, for fewer than `rewrite.statistics.paired.MINIMUM_DOCUMENTS` documents, where
one document alone carries the score (it is undefined without it), or where no document changes it: no spread to judge
it by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats
from scipy.sparse import csr_array

from rewrite.arms.calibrate import Calibrator, Pair, conditional_mean, forget, tally
from rewrite.explainers.judge import Judgements
from rewrite.statistics.paired import MINIMUM_DOCUMENTS

Latents = Float[np.ndarray, " latent"]

ROUNDING = 1e-12
"""A spread this much smaller than what it is a difference of is rounding, not spread."""
STILL = 1e-9
"""A standard error below this is no spread: a score is of the order of 1."""


@dataclass(frozen=True)
class Scored:
    """A score of each latent with its interval; NaN where there is none."""

    value: Latents
    low: Latents
    high: Latents


@dataclass(frozen=True)
class SimulationScores:
    """What the strengths are worth, latent by latent."""

    correlation: Scored
    r2: Scored


@dataclass(frozen=True)
class Moments:
    """Sums over positions whose strength is known, latent by latent: of strengths, activations and squared errors."""

    positions: Latents
    strength: Latents
    strength2: Latents
    product: Latents
    truth: Latents
    truth2: Latents
    error2: Latents

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __sub__(self, other: Moments) -> Moments:
        return Moments(*(a - b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def correlate(self, whole: Moments) -> Latents:
        """Pearson's r; NaN where strength or activation does not vary, beyond the rounding of the `whole`'s sums."""
        n = np.maximum(self.positions, 1)
        strength = self.strength2 - self.strength**2 / n
        truth = self.truth2 - self.truth**2 / n
        varies = (strength > ROUNDING * whole.strength2) & (truth > ROUNDING * whole.truth2)
        spread = np.sqrt(np.where(varies, strength * truth, 1))
        return np.where(varies, (self.product - self.strength * self.truth / n) / spread, np.nan)

    def explain(self, whole: Moments) -> Latents:
        """R²; NaN where the activation does not vary, beyond the rounding of the `whole`'s sums."""
        total = self.truth2 - self.truth**2 / np.maximum(self.positions, 1)
        varies = total > ROUNDING * whole.truth2
        return np.where(varies, 1 - self.error2 / np.where(varies, total, 1), np.nan)


def score_simulations(
    pairs: Callable[[], Iterable[Pair]], absent: Bool[np.ndarray, " latent"], scale: float, alpha: float
) -> SimulationScores:
    """Both scores of every latent but those that are `absent`, which have no prediction.

    `pairs()` walks the documents in order, one pair each, and is called four times, so that no more than one document
    and a few numbers a latent are in memory at once.
    """
    latents = len(absent)
    # Documents of the first half are calibrated with the second half's fit, and the other way round.
    halves = (tally(islice(pairs(), half, None, 2), latents, scale, keep_firings=False) for half in (1, 0))
    fits = [conditional_mean(forget(half, absent)) for half in halves]
    whole, documents = sum_moments(Pair(csr_array((0, latents)), csr_array((0, latents))), fits[0]), 0
    for number, pair in enumerate(pairs()):
        whole += sum_moments(pair, fits[number % 2])
        documents += 1
    correlation = np.where(absent, np.nan, np.clip(whole.correlate(whole), -1, 1))
    r2 = np.where(absent | (documents < 2), np.nan, whole.explain(whole))
    by_z, by_r2 = Jackknife(_fisher(correlation)), Jackknife(r2)
    for number, pair in enumerate(pairs()):
        own = sum_moments(pair, fits[number % 2])
        others = whole - own
        by_z.leave_out(_fisher(others.correlate(whole)), own.positions > 0)
        by_r2.leave_out(others.explain(whole), own.positions > 0)
    z, half_width = by_z.full, by_z.half_width(alpha)
    return SimulationScores(
        Scored(correlation, np.tanh(z - half_width), np.tanh(z + half_width)),
        Scored(r2, r2 - by_r2.half_width(alpha), np.minimum(r2 + by_r2.half_width(alpha), 1)),
    )


def _fisher(correlation: Latents) -> Latents:
    """artanh r, kept finite where r is 1 but for rounding."""
    z: Latents = np.arctanh(np.clip(correlation, ROUNDING - 1, 1 - ROUNDING))
    return z


def sum_moments(pair: Pair, calibrator: Calibrator) -> Moments:
    """The sums over one document, the errors those of the calibrated strengths."""
    positions, latents = pair.truth.shape
    row, latent = pair.strengths.tocoo().coords
    strength = pair.strengths.data.astype(np.float64)
    truth = _look_up(pair.truth, row, latent)

    def total(where: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.bincount(where, weights, latents).astype(np.float64)

    known = ~np.isnan(strength)
    unknown, lost = latent[~known], truth[~known]
    latent, strength, truth = latent[known], strength[known], truth[known]
    firing = pair.truth.data.astype(np.float64)
    count = positions - total(unknown, np.ones_like(lost))
    sums = total(pair.truth.indices, firing) - total(unknown, lost)
    squares = total(pair.truth.indices, firing**2) - total(unknown, lost**2)
    # Where no strength is stored it is 0, and a latent has one and the same calibrated activation.
    zero = calibrator.apply(np.zeros(latents), np.arange(latents)).astype(np.float64)
    rest = [
        whole - total(latent, part)
        for whole, part in ((count, np.ones_like(truth)), (sums, truth), (squares, truth**2))
    ]
    errors = total(latent, (truth - calibrator.apply(strength, latent)) ** 2)
    return Moments(
        positions=count,
        strength=total(latent, strength),
        strength2=total(latent, strength**2),
        product=total(latent, strength * truth),
        truth=sums,
        truth2=squares,
        error2=errors + rest[2] - 2 * zero * rest[1] + zero**2 * rest[0],
    )


def _look_up(matrix: csr_array, row: np.ndarray, column: np.ndarray) -> Float[np.ndarray, " entry"]:
    """The matrix at some places, by search among its own."""
    rows, width = matrix.shape
    own = np.repeat(np.arange(rows), np.diff(matrix.indptr)) * width + matrix.indices
    order = np.argsort(own, kind="stable")
    own, data = np.append(own[order], -1), np.append(matrix.data[order], 0).astype(np.float64)
    wanted = row.astype(np.int64) * width + column
    place = np.searchsorted(own[:-1], wanted)
    found: np.ndarray = np.where(own[place] == wanted, data[place], 0.0)
    return found


@dataclass
class Jackknife:
    """Standard errors of the scores `full` from those without one document each."""

    full: Latents
    squares: Latents = field(init=False)
    documents: Latents = field(init=False)

    def __post_init__(self) -> None:
        self.squares, self.documents = np.zeros_like(self.full), np.zeros_like(self.full)

    def leave_out(self, score: Latents, seen: Bool[np.ndarray, " latent"]) -> None:
        """The scores without a document, which has something to say of the latents `seen` only."""
        self.squares += np.where(seen, (score - self.full) ** 2, 0.0)
        self.documents += seen

    def half_width(self, alpha: float) -> Latents:
        """Half of the interval that covers 1 - alpha; NaN where there is none."""
        n = np.maximum(self.documents, 2)
        error = np.sqrt((n - 1) / n * self.squares)
        enough = (self.documents >= MINIMUM_DOCUMENTS) & (error > STILL)
        return np.where(enough, stats.t.isf(alpha / 2, n - 1) * error, np.nan)


@dataclass(frozen=True)
class Accuracy:
    """Balanced accuracy with its interval, and the precision at a true base rate; NaN where there is none."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    precision: float = np.nan


def score_judgements(judged: Judgements, base_rate: float | None, alpha: float) -> Accuracy:
    """The accuracy of one latent's judgements; all NaN unless windows of both kinds were judged.

    `base_rate` is the share of all windows in which the latent is active; None where that is not what was judged.
    """
    owner = np.unique(judged.documents, return_inverse=True)[1]

    truth, said = judged.truth, judged.said
    kinds = (truth, truth & said, ~truth, ~truth & ~said)
    own = np.stack([np.bincount(owner, kind).astype(np.float64) for kind in kinds])
    whole = own.sum(1, keepdims=True)
    value = _balance(whole)[0]
    if np.isnan(value):
        return Accuracy()
    jackknife = Jackknife(np.array([value]))
    for score in _balance(whole - own):
        jackknife.leave_out(np.array([score]), np.array([True]))
    half = float(jackknife.half_width(alpha)[0])
    precision = np.nan if base_rate is None else _precision(whole[:, 0], base_rate)
    return Accuracy(float(value), float(np.maximum(value - half, 0)), float(np.minimum(value + half, 1)), precision)


def _precision(counts: Float[np.ndarray, " 4"], base_rate: float) -> float:
    """TPR π / (TPR π + FPR (1 - π)); NaN where nothing is said to fit."""
    fitting, hits, others, passed = counts
    right, wrong = hits / fitting * base_rate, (1 - passed / others) * (1 - base_rate)
    return float(right / (right + wrong)) if right + wrong > 0 else np.nan


def _balance(counts: Float[np.ndarray, "4 set"]) -> Float[np.ndarray, " set"]:
    """(TPR + TNR) / 2 of each set of windows; NaN for a set that lacks windows of one kind."""
    fitting, hits, others, passed = counts
    both = (fitting > 0) & (others > 0)
    balance = (hits / np.maximum(fitting, 1) + passed / np.maximum(others, 1)) / 2
    return np.where(both, balance, np.nan)
