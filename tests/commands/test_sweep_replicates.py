"""Intervals over seeds and documents: the arithmetic, and how often they hold what they should."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy import stats as theory

from rewrite.commands.sweep.replicates import Share, pool
from rewrite.statistics.paired import recovered

DOCUMENTS = tuple(f"document {i}" for i in range(60))


def draw(rng: np.random.Generator, seeds: int, of_document: float, of_seed: float, of_both: float) -> list[Share]:
    """Shares around 0.7 with three kinds of spread; every document's gap is 1 nat."""
    documents = of_document * rng.normal(size=60)
    return [
        Share(0.7 + documents + of_seed * rng.normal() + of_both * rng.normal(size=60), np.ones(60), DOCUMENTS)
        for _ in range(seeds)
    ]


def test_the_arithmetic() -> None:
    up = [np.array([0.5, 0.7, 0.9, 0.7]), np.array([0.6, 0.8, 0.8, 0.6])]
    shares = [Share(one, np.ones(4), ("a", "b", "c", "d")) for one in up]
    found = pool(shares, 0.05)
    assert found.value == pytest.approx((0.7 + 0.7) / 2)
    assert found.se_seeds == pytest.approx(0.0, abs=1e-12)
    # With equal gaps the jackknife is the standard error of the mean over documents of the mean over seeds.
    mean = (up[0] + up[1]) / 2
    assert found.se_documents == pytest.approx(mean.std(ddof=1) / 2)
    half = float(theory.t.isf(0.025, 3)) * found.se_documents
    assert found.interval.high - found.value == pytest.approx(half)
    shifted = [shares[0], Share(up[1] + 0.2, np.ones(4), shares[0].documents)]
    found = pool(shifted, 0.05)
    assert found.se_seeds == pytest.approx(0.2 / sqrt(2) / sqrt(2))
    assert found.interval.high - found.value == pytest.approx(sqrt(half**2 + (12.706 * 0.1) ** 2), rel=1e-4)


def test_without_spread_between_seeds_it_is_the_interval_of_one_run() -> None:
    rng = np.random.default_rng(0)
    down = 1 + 0.1 * rng.normal(size=60)
    share = Share(0.7 * down + 0.1 * rng.normal(size=60), down, DOCUMENTS)
    pooled = pool([share, share, share], 0.05)
    zero = np.full(60, 3.0)
    alone = recovered(zero - share.up, zero, zero - share.down, np.full(60, 10), 0.05)
    assert alone.interval is not None
    assert pooled.interval.low == pytest.approx(alone.interval.low, abs=1e-3)
    assert pooled.interval.high == pytest.approx(alone.interval.high, abs=1e-3)


def test_seeds_on_other_documents_are_no_surer() -> None:
    shares = draw(np.random.default_rng(1), 3, 0.3, 0.0, 0.3)
    others = [Share(share.up, share.down, tuple(f"{n} {i}" for i in DOCUMENTS)) for n, share in enumerate(shares)]
    assert pool(others, 0.05).se_documents > pool(shares, 0.05).se_documents
    assert pool(others, 0.05).se_seeds == pool(shares, 0.05).se_seeds


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(
    ("of_document", "of_seed", "of_both"),
    [(0.3, 0.0, 0.0), (0.0, 0.05, 0.01), (0.3, 0.04, 0.0), (0.2, 0.02, 0.2), (0.0, 0.0, 0.3)],
)
def test_it_holds_the_true_share_as_often_as_it_says(
    seeds: int, of_document: float, of_seed: float, of_both: float
) -> None:
    rng = np.random.default_rng(2)
    held = [0.7 in pool(draw(rng, seeds, of_document, of_seed, of_both), 0.05).interval for _ in range(1000)]
    # Three standard errors of 1,000 draws below .95.
    assert np.mean(held) > 0.95 - 3 * sqrt(0.95 * 0.05 / 1000)


def test_documents_alone_are_not_enough() -> None:
    """What the interval of one run would say of other seeds, where seeds differ: it holds far too rarely."""
    rng = np.random.default_rng(3)
    held = []
    for _ in range(300):
        shares = draw(rng, 3, 0.1, 0.05, 0.0)
        found = pool(shares, 0.05)
        held.append(abs(found.value - 0.7) < 2 * found.se_documents)
    assert np.mean(held) < 0.75
