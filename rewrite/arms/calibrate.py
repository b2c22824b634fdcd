"""Strengths → activations, fitted on the calibrate split alone.

1. `tally` walks pairs of true activations and strengths once and keeps what every calibrator needs: for each latent and
   each of 91 strength levels (the scale in steps of a ninetieth), how many positions had it and how much the latent
   was truly active there.
2. A calibrator is fitted from that tally:
   `identity`          strengths are activations already;
   `linear`            maximum · s / scale (Paulo & Belrose 2025);
   `quantile`          F_true⁻¹(F_sim(s)) with the mass at zero kept (the same; their exact procedure is unknown);
   `conditional_mean`  E[activation | strength]: level means, shrunk toward the curve that all latents share in units of
                       their maxima (a pseudo-count of `PRIOR` positions), made monotone by isotonic regression
                       (Barlow et al. 1972; scipy's pool-adjacent-violators).
3. `Calibrator.apply` turns strengths into activations; the arms apply it in `rewrite.arms.splice` (`Splicer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

LEVELS = 91
PRIOR = 10.0
CHUNK = 1 << 24


@dataclass(frozen=True)
class Pair:
    """True activations and strengths on the same counted positions, both positions × latents."""

    truth: csr_array
    strengths: csr_array


@dataclass(frozen=True)
class Tally:
    """What the calibrate split says of each latent; `positions` counts the positions walked."""

    positions: int
    scale: float
    count: Int[np.ndarray, "latent level"]
    total: Float[np.ndarray, "latent level"]
    maximum: Float[np.ndarray, " latent"]
    mean: Float[np.ndarray, " latent"]
    density: Float[np.ndarray, " latent"]
    correlation: Float[np.ndarray, " latent"]
    firings: csr_array | None
    """Latents × firings: the true activations above zero, for their quantiles; None where they were not kept."""

    @property
    def missing_shares(self) -> Float[np.ndarray, " latent"]:
        """The share of each latent's strengths that are not known."""
        shares: np.ndarray = 1 - self.count.sum(1) / max(self.positions, 1)
        return shares


def to_levels(strengths: Float[np.ndarray, " n"], scale: float) -> Int[np.ndarray, " n"]:
    """The level of each strength: 0 for 0, 90 for the top of the scale and beyond."""
    return np.clip(np.rint(strengths / scale * (LEVELS - 1)), 0, LEVELS - 1).astype(np.int64)


def tally(pairs: Iterable[Pair], latents: int, scale: float, keep_firings: bool = True) -> Tally:
    """Walk the pairs once. Positions whose strength is NaN count for the latent's mean and for nothing else.

    All that is kept is a few numbers a latent, but for the firings, which are as many as the text is long."""
    count = np.zeros((latents, LEVELS), dtype=np.int64)
    total = np.zeros((latents, LEVELS))
    moments = np.zeros((3, latents))  # of strengths: sum, squares, products with activations
    truth_sums = np.zeros((3, latents))  # of activations: sum, squares, firings
    maximum = np.zeros(latents, dtype=np.float32)
    unknown = np.zeros((3, latents))  # where the strength is NaN: positions, and activations' sum and squares
    positions = 0
    firings: list[csr_array] = []
    for pair in pairs:
        positions += pair.truth.shape[0]
        truth = pair.truth.tocsc()
        active = np.repeat(np.arange(latents), np.diff(truth.indptr))
        truth_sums += [np.bincount(active, w, latents) for w in (truth.data, truth.data**2.0, truth.data > 0)]
        np.maximum.at(maximum, active, truth.data)
        if keep_firings:
            firings.append(csr_array((truth.data, _within(truth.indptr), truth.indptr), shape=truth.shape[::-1]))
        for strength, latent, activation in _matched(pair):
            known = ~np.isnan(strength)
            lost = activation[~known]
            unknown += [np.bincount(latent[~known], w, latents) for w in (np.ones_like(lost), lost, lost**2)]
            strength, latent, activation = strength[known], latent[known], activation[known]
            place = (latent, to_levels(strength, scale))
            np.add.at(count, place, 1)
            np.add.at(total, place, activation)
            moments += [np.bincount(latent, w, latents) for w in (strength, strength**2, strength * activation)]
    # What no strength was stored for has strength 0.
    count[:, 0] += positions - count.sum(1) - unknown[0].astype(np.int64)
    total[:, 0] += truth_sums[0] - total.sum(1) - unknown[1]
    n = max(positions, 1)
    return Tally(
        positions=positions,
        scale=scale,
        count=count,
        total=np.maximum(total, 0.0),
        maximum=maximum,
        mean=truth_sums[0] / n,
        density=truth_sums[2] / n,
        correlation=_pearson(positions - unknown[0], moments, truth_sums[:2] - unknown[1:]),
        firings=_join(firings, latents) if keep_firings else None,
    )


def forget(tally: Tally, absent: Bool[np.ndarray, " latent"]) -> Tally:
    """The tally without the strengths of latents that have no prediction: nothing was said of them, which is not 0."""
    known = ~absent[:, None]
    correlation = np.where(absent, np.nan, tally.correlation)
    return replace(tally, count=tally.count * known, total=tally.total * known, correlation=correlation)


def _within(indptr: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each row of a CSR matrix."""
    within: np.ndarray = np.arange(indptr[-1]) - np.repeat(indptr[:-1], np.diff(indptr))
    return within


def _join(parts: list[csr_array], latents: int) -> csr_array:
    """The firings of several shards side by side, packed to the left."""
    rows = np.concatenate([np.repeat(np.arange(latents), np.diff(p.indptr)) for p in parts] or [np.empty(0, int)])
    data = np.concatenate([p.data for p in parts] or [np.empty(0)])
    order = np.argsort(rows, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=latents))])
    width = int(np.diff(indptr).max(initial=0))
    return csr_array((data[order], _within(indptr), indptr), shape=(latents, max(width, 1)))


def _matched(pair: Pair) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Stored strengths with their latents and the true activations at the same places, in chunks of rows."""
    rows = max(1, CHUNK // pair.truth.shape[1])
    for begin in range(0, pair.truth.shape[0], rows):
        strengths = pair.strengths[begin : begin + rows].tocoo()
        truth = pair.truth[begin : begin + rows].toarray()
        row, latent = strengths.coords
        yield strengths.data.astype(np.float64), latent, truth[row, latent].astype(np.float64)


def _pearson(n: np.ndarray, strength: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pearson correlation of strength and activation over positions; NaN where either does not vary."""
    n = np.maximum(n, 1.0)
    s, ss, sa = strength / n
    a, aa = truth / n
    spread = (ss - s * s) * (aa - a * a)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 1e-24, (sa - s * a) / np.sqrt(spread), np.nan)


@runtime_checkable
class Calibrator(Protocol):
    """Maps strengths to activations, latent by latent."""

    def apply(self, strengths: Float[np.ndarray, " n"], latents: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The activation for each strength of each latent; NaN stays NaN."""
        ...


@dataclass(frozen=True)
class Scaled:
    """Activation = factor of the latent · strength."""

    factor: Float[np.ndarray, " latent"]

    def apply(self, strengths: Float[np.ndarray, " n"], latents: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """See `Calibrator.apply`."""
        activations: np.ndarray = (strengths * self.factor[latents]).astype(np.float32)
        return activations


@dataclass(frozen=True)
class Table:
    """Activation = the latent's entry at the strength's level."""

    scale: float
    values: Float[np.ndarray, "latent level"]

    def apply(self, strengths: Float[np.ndarray, " n"], latents: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """See `Calibrator.apply`."""
        known = ~np.isnan(strengths)
        levels = to_levels(np.where(known, strengths, 0.0), self.scale)
        return np.where(known, self.values[latents, levels], np.nan).astype(np.float32)


def identity(tally: Tally) -> Calibrator:
    """Strengths are activations already, as the oracle's are."""
    return Scaled(np.ones(len(tally.maximum), dtype=np.float32))


def linear(tally: Tally) -> Calibrator:
    """maximum · s / scale."""
    return Scaled((tally.maximum / tally.scale).astype(np.float32))


def quantile(tally: Tally) -> Calibrator:
    """F_true⁻¹(F_sim(s)): a level stands for the middle of its ranks; ranks within the true mass at zero give zero. A
    latent of which no strength is known has none: its mean stands at every level."""
    assert tally.firings is not None, "quantiles are those of the firings"
    values = np.zeros(tally.count.shape, dtype=np.float32)
    ranks = (np.cumsum(tally.count, axis=1) - tally.count / 2) / np.maximum(tally.count.sum(1, keepdims=True), 1)
    for latent, density in enumerate(tally.density):
        begin, end = tally.firings.indptr[latent : latent + 2]
        if end > begin:
            within = np.clip((ranks[latent] - (1 - density)) / density, 0, 1)
            firing = np.quantile(tally.firings.data[begin:end], within)
            values[latent] = np.where(ranks[latent] > 1 - density, firing, 0)
    unknown = tally.count.sum(1) == 0
    values[unknown] = tally.mean[unknown, None]
    return Table(tally.scale, values)


def conditional_mean(tally: Tally) -> Calibrator:
    """E[activation | strength], shrunk where a latent has few positions at a level, never falling as strength rises.
    Where no strength of any latent is known each latent's mean stands at every level."""
    from scipy.optimize import (
        isotonic_regression,
    )  # Half a second, which a command that only checks names need not wait.

    maximum = tally.maximum.astype(np.float64)
    alive = maximum > 0
    relative = (tally.total[alive] / maximum[alive, None]).sum(0)
    seen = tally.count[alive].sum(0)
    if not seen.any():
        return Table(tally.scale, np.repeat(tally.mean[:, None], LEVELS, axis=1).astype(np.float32))
    observed = np.flatnonzero(seen)
    pooled = isotonic_regression(relative[observed] / seen[observed], weights=seen[observed]).x
    curve = np.interp(np.arange(LEVELS), observed, pooled)
    values = (tally.total + PRIOR * maximum[:, None] * curve) / (tally.count + PRIOR)
    # A level that the latent never had follows its neighbours rather than pull them to the pooled curve.
    weights = tally.count + 1e-3
    for latent in np.flatnonzero(alive):
        values[latent] = isotonic_regression(values[latent], weights=weights[latent]).x
    return Table(tally.scale, values.astype(np.float32))


CALIBRATORS: dict[str, Callable[[Tally], Calibrator]] = {
    function.__name__: function for function in (identity, linear, quantile, conditional_mean)
}
"""By their names in the config (`rewrite.config.Config.calibrator`)."""
