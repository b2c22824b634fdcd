"""What per-latent costs say: their error, which are above 0, what predicts them, and whether they can be believed.

1. `summarise` gives each latent's cost in nats per token with a Student interval clustered by document, the one-sided p
   of "it costs more than 0", and Benjamini and Hochberg's (1995) q over latents.
2. `correlate` gives Spearman's ρ with Bonett & Wright's (2000) interval, and Pearson's r with the jackknife's of
   Fisher's z, which does not take costs, a few large and most small, for normal. The units are latents.
3. `draw_check` says which latents are also measured alone: half those of most cost, half drawn from the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from rewrite.statistics.paired import MINIMUM_DOCUMENTS, benjamini_hochberg

Row = dict[str, Any]
Latents = Float[np.ndarray, " latent"]

PREDICTORS = {
    "simulation": "correlation of the simulation",
    "r2": "R² of the calibrated simulation",
    "detection": "detection score",
    "fuzz": "fuzz score",
    "density": "density: share of positions where it is active",
    "size": "size of the error: mean (â − a)² · ‖W‖²",
}
"""The scores that a cost is set against, as the report names them; `size` needs no pass of the subject."""


@dataclass(frozen=True)
class Costs:
    """Costs of latents [nats per token]; interval, p and q are NaN where there is none."""

    value: Latents
    low: Latents
    high: Latents
    p: Latents
    """One-sided, of "it costs more than 0"; 1 for a latent whose simulation never differs from the truth."""
    q: Latents


def summarise(nats: Float[np.ndarray, "document latent"], tokens: Int[np.ndarray, " document"], alpha: float) -> Costs:
    """Each latent's cost per token with the error of `rewrite.statistics.paired.estimate`, for all latents at once."""
    count, total = nats.shape[0], float(tokens.sum())
    value = nats.sum(0) / total
    if count < MINIMUM_DOCUMENTS:
        unknown = np.full(len(value), np.nan)
        return Costs(value, unknown, unknown, unknown, unknown)
    weights = (count - 1) / count / (total - tokens) ** 2
    # (y - rw)² written out, so that no second array of documents × latents is needed.
    squares = weights @ nats**2 - 2 * value * ((weights * tokens) @ nats) + value**2 * (weights * tokens**2).sum()
    never = ~nats.any(0)
    error = np.sqrt(np.maximum(squares, 0))
    spread = error > 1e-9 * np.abs(value)
    half = np.where(spread, stats.t.isf(alpha / 2, count - 1) * error, np.where(never, 0.0, np.nan))
    p = stats.t.sf(value / np.where(spread, error, 1), count - 1)
    p = np.where(spread, p, np.where(never, 1.0, np.nan))
    return Costs(value, value - half, value + half, p, benjamini_hochberg(p))


def correlate(x: Latents, y: Latents, alpha: float, kind: Literal["spearman", "pearson"] = "spearman") -> Row:
    """{"n", "value", "ci"} of the pairs that are both known; None for what is undefined."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if kind == "spearman":
        x, y = stats.rankdata(x), stats.rankdata(y)
    n = len(x)
    if n < 3 or not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return {"n": n, "value": None, "ci": None}
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    value = float(np.clip((x * y).mean(), -1, 1))
    half = _half_of_ranks(value, n, alpha) if kind == "spearman" else _half_of_moments(x, y, alpha)
    if n < MINIMUM_DOCUMENTS or half is None or abs(value) > 1 - 1e-12:
        return {"n": n, "value": value, "ci": None}
    z = np.arctanh(value)
    return {"n": n, "value": value, "ci": [float(np.tanh(z - half)), float(np.tanh(z + half))]}


def _half_of_ranks(value: float, n: int, alpha: float) -> float | None:
    """Half of the interval of Fisher's z of a rank correlation: Bonett & Wright, Psychometrika 65 (2000) 23."""
    return float(stats.norm.isf(alpha / 2)) * sqrt((1 + value**2 / 2) / (n - 3)) if n > 3 else None


def _half_of_moments(x: Latents, y: Latents, alpha: float) -> float | None:
    """The same of Pearson's r by leaving out one pair at a time; x and y have mean 0 and variance 1."""
    n = len(x)
    sums = [n * np.mean(part) - part for part in (x * x, y * y, x * y)]
    means = [-x / (n - 1), -y / (n - 1)]
    sxx = sums[0] - (n - 1) * means[0] ** 2
    syy = sums[1] - (n - 1) * means[1] ** 2
    if (np.minimum(sxx, syy) <= 1e-9 * n).any():
        return None  # One pair alone carries the spread.
    left = (sums[2] - (n - 1) * means[0] * means[1]) / np.sqrt(sxx * syy)
    z = np.arctanh(np.clip(left, -1 + 1e-12, 1 - 1e-12))
    error = sqrt((n - 1) / n * float(((z - z.mean()) ** 2).sum()))
    return float(stats.t.isf(alpha / 2, n - 1)) * error


def draw_check(value: Latents, simulated: Bool[np.ndarray, " latent"], count: int, seed: int) -> Row:
    """The latents to measure alone: {"most": those of most |cost|, "drawn": as many drawn from the others}, sorted."""
    order = np.flatnonzero(simulated)
    order = order[np.argsort(-np.abs(value[order]), kind="stable")]
    most, others = order[: (count + 1) // 2], order[(count + 1) // 2 :]
    drawn = np.random.default_rng([seed, 1]).permutation(others)[: count // 2]
    return {"most": np.sort(most), "drawn": np.sort(drawn)}


def check_costs(value: Latents, alone: Latents, drawn: Int[np.ndarray, " drawn"], alpha: float) -> Row:
    """How the attributed costs agree with those measured alone; `random` is about the drawn latents only.

    The latents of most cost were chosen by their cost, which widens its range and so raises a correlation.
    """
    content: Row = {"latents": int(np.isfinite(alone).sum())}
    for name, chosen in (("all", slice(None)), ("random", drawn)):
        content[name] = {kind: correlate(value[chosen], alone[chosen], alpha, kind) for kind in ("spearman", "pearson")}
    return content


def predict(value: Latents, scores: dict[str, Latents], alpha: float) -> list[Row]:
    """Spearman's ρ of |cost| and of the cost with each score: {"score", "n", "rho", "ci", "rho_signed", "ci_signed"}.

    The strongest of |cost| first. Noise in a cost grows with density and error as the cost itself does, so that part of
    what foretells |cost| foretells the noise; the signed cost's ρ is free of that.
    """
    rows = []
    for name in PREDICTORS:
        if name in scores:
            size, signed = (correlate(scores[name], costs, alpha) for costs in (np.abs(value), value))
            rows.append({"score": name, "n": size["n"], "rho": size["value"], "ci": size["ci"]})
            rows[-1] |= {"rho_signed": signed["value"], "ci_signed": signed["ci"]}
    return sorted(rows, key=lambda row: -abs(row["rho"] or 0.0))
