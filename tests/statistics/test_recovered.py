"""The share of the gap that is recovered: a ratio with its interval, and the region where arms are equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.pairs_drawn import Paired, make_tokens

from rewrite.statistics import paired as stats


def make_gap(rng: np.random.Generator, n: int, share: float) -> tuple[Paired, np.ndarray]:
    """Coder, zero and an arm between them that recovers `share` of a gap of 0.5 nats."""
    tokens = make_tokens(rng, n)
    coder = tokens * (1.5 + 0.3 * rng.normal(size=n))
    gap = tokens * (0.5 + 0.3 * rng.normal(size=n))
    arm = coder + (1 - share) * gap + tokens * 0.2 * rng.normal(size=n)
    return Paired(arm, coder + gap, tokens), coder


def test_recovered_of_the_ends() -> None:
    example, coder = make_gap(np.random.default_rng(0), 50, 0.6)
    zero = example.reference
    of_coder = stats.recovered(coder, zero, coder, example.tokens, 0.05)
    of_zero = stats.recovered(zero, zero, coder, example.tokens, 0.05)
    assert of_coder.value == 1
    assert of_coder.interval is not None
    assert [of_coder.interval.low, of_coder.interval.high] == pytest.approx([1, 1], abs=1e-6)
    assert of_zero == stats.Recovered(0.0, stats.Interval(0.0, 0.0))


def test_recovered_is_fiellers_root() -> None:
    """Both ends are the R at which (zero - arm) - R (zero - coder) is just rejected."""
    example, coder = make_gap(np.random.default_rng(1), 30, 0.6)
    found = stats.recovered(example.arm, example.reference, coder, example.tokens, 0.05)
    assert found.interval is not None
    for end in (found.interval.low, found.interval.high):
        rest = example.reference - example.arm - end * (example.reference - coder)
        assert stats.estimate(rest, example.tokens).p_value() == pytest.approx(0.05, rel=1e-6)
    loss = [float(nats.sum()) for nats in (example.reference, example.arm, coder)]
    assert found.value == pytest.approx((loss[0] - loss[1]) / (loss[0] - loss[2]), rel=1e-12)


def test_recovered_covers_the_truth() -> None:
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(1000):
        example, coder = make_gap(rng, 40, 0.6)
        interval = stats.recovered(example.arm, example.reference, coder, example.tokens, 0.05).interval
        covered.append(interval is not None and 0.6 in interval)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_recovered_is_refused_without_a_gap() -> None:
    example, coder = make_gap(np.random.default_rng(3), 30, 0.6)
    noisy = coder + 0.001 * example.tokens + np.where(np.arange(30) % 2, 50.0, -50.0)
    unclear = stats.recovered(example.arm, noisy, coder, example.tokens, 0.05)
    assert unclear.interval is None
    backwards = stats.recovered(example.arm, coder, example.reference, example.tokens, 0.05)
    assert backwards == stats.Recovered(None, None)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(8, 60), share=st.floats(-1, 2))
def test_recovered_never_contradicts_the_tests(seed: int, n: int, share: float) -> None:
    example, coder = make_gap(np.random.default_rng(seed), n, share)
    found = stats.recovered(example.arm, example.reference, coder, example.tokens, 0.05)
    gap = stats.difference(example.reference, coder, example.tokens).interval(0.05)
    assert (found.interval is not None) == (gap.low > 0)
    if found.interval is not None:
        for reference, share_there in ((example.reference, 0.0), (coder, 1.0)):
            p = stats.difference(example.arm, reference, example.tokens).p_value()
            assert (share_there in found.interval) == (p >= 0.05)


# --- a margin that is a share of the gap ------------------------------------------------------------------------------


def test_the_region_is_a_ratio_and_its_gap_may_be_uncertain() -> None:
    """At the edge of the region, where a difference is its share of the true gap, equality is claimed in 5% at most;
    with a margin held at the measured gap it would be in a third."""
    rng = np.random.default_rng(0)
    share, tokens, claimed, held = 0.05, np.full(30, 100), 0, 0
    for _ in range(1500):
        gap = 1 + 1.4 * rng.normal(size=30)
        difference = share * 1.0 + 0.002 * rng.normal(size=30)
        region = stats.Region(100 * gap, tokens, share, 0.05)
        claimed += region.p_equivalence(100 * difference) < 0.05
        held += stats.estimate(100 * difference, tokens).p_equivalence(region.margin) < 0.05
    assert claimed / 1500 < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1500)
    assert held / 1500 > 0.3


def test_with_a_sure_gap_the_region_is_the_margin() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(50, 200, 40)
    difference = tokens * (0.01 + 0.02 * rng.normal(size=40))
    region = stats.Region(0.5 * tokens + 1e-4 * rng.normal(size=40), tokens, 0.05, 0.05)
    assert region.margin == pytest.approx(0.025)
    wanted = stats.estimate(difference, tokens).p_equivalence(0.025)
    assert region.p_equivalence(difference) == pytest.approx(wanted, rel=1e-3)
    assert region.p_equivalence(np.zeros(40)) == 0.0
    assert region.p_equivalence(0.05 * region.gap) == 1.0, "a difference that is the edge itself"
    none = stats.Region(tokens * rng.normal(size=40), tokens, 0.05, 0.05)
    assert (none.margin, none.p_equivalence(np.zeros(40))) == (0.0, 1.0)
