"""Calibrators against their definitions, theory and planted strengths."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import pearsonr

from rewrite.arms.calibrate import (
    CALIBRATORS,
    LEVELS,
    Pair,
    Tally,
    conditional_mean,
    forget,
    identity,
    linear,
    quantile,
    tally,
    to_levels,
)
from rewrite.config import Config


def pairs_of(truth: np.ndarray, strengths: np.ndarray, parts: int = 1) -> list[Pair]:
    return [
        Pair(csr_array(t.astype(np.float32)), csr_array(s.astype(np.float32)))
        for t, s in zip(np.array_split(truth, parts), np.array_split(strengths, parts), strict=True)
    ]


def planted(positions: int = 4000, latents: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Activations of density .2 and integer strengths that rise with them, with noise."""
    draws = np.random.default_rng(seed)
    truth = np.maximum(draws.normal(-1, 1.2, (positions, latents)), 0) * np.arange(1, latents + 1)
    noisy = truth / truth.max(0) * 9 + draws.normal(0, 0.7, truth.shape) * (truth > 0)
    return truth, np.clip(np.rint(noisy), 0, 9)


def fit(truth: np.ndarray, strengths: np.ndarray, parts: int = 1) -> Tally:
    return tally(pairs_of(truth, strengths, parts), truth.shape[1], 9.0)


def test_the_tally_is_what_counting_by_hand_gives() -> None:
    truth = np.array([[0, 2.0], [4, 0], [1, 0], [0, 6]])
    strengths = np.array([[0, 9.0], [9, 0], [0, 0], [9, 9]])
    counted = fit(truth, strengths)
    assert counted.count[0, 0] == 2 and counted.count[0, 90] == 2
    assert counted.total[0, 0] == 1 and counted.total[0, 90] == 4
    assert counted.count[1, 90] == 2 and counted.total[1, 90] == 8
    np.testing.assert_allclose(counted.mean, [1.25, 2.0])
    np.testing.assert_allclose(counted.maximum, [4, 6])
    np.testing.assert_allclose(counted.density, [0.5, 0.5])


def test_correlation_is_scipys() -> None:
    truth, strengths = planted()
    expected = [pearsonr(truth[:, i], strengths[:, i]).statistic for i in range(truth.shape[1])]
    np.testing.assert_allclose(fit(truth, strengths).correlation, expected, atol=1e-6)


def test_shards_make_no_difference() -> None:
    truth, strengths = planted()
    one, many = fit(truth, strengths), fit(truth, strengths, parts=7)
    for name in ("count", "total", "maximum", "mean", "density", "correlation"):
        np.testing.assert_allclose(getattr(one, name), getattr(many, name), rtol=1e-6)
    for function in CALIBRATORS.values():
        s, latents = np.float32([0, 3, 9, 9]), np.array([0, 1, 2, 3])
        np.testing.assert_allclose(function(one).apply(s, latents), function(many).apply(s, latents), rtol=1e-5)


def test_the_config_names_every_calibrator() -> None:
    assert get_args(Config.model_fields["calibrator"].annotation) == tuple(CALIBRATORS)


def test_identity_returns_strengths_exactly() -> None:
    counted = fit(*planted())
    strengths = np.float32([0, 0.1234567, 8.7])
    np.testing.assert_array_equal(identity(counted).apply(strengths, np.array([0, 1, 2])), strengths)


def test_linear_is_the_papers() -> None:
    truth, strengths = planted()
    mapped = linear(fit(truth, strengths)).apply(np.float32([0, 4.5, 9]), np.array([2, 2, 2]))
    np.testing.assert_allclose(mapped, np.array([0, 0.5, 1]) * truth[:, 2].max(), rtol=1e-6)


def test_quantile_matches_distributions_and_keeps_the_mass_at_zero() -> None:
    draws = np.random.default_rng(1)
    truth = np.maximum(draws.normal(-1, 1, (20_000, 1)), 0)
    # Strengths of another law but the same density and perfect order: their quantiles are the truth's.
    strengths = np.where(truth > 0, 9 * (truth / truth.max()) ** 0.5, 0)
    mapped = quantile(fit(truth, strengths)).apply(strengths[:, 0].astype(np.float32), np.zeros(20_000, int))
    assert (mapped > 0).mean() == pytest.approx((truth > 0).mean(), abs=0.03)
    assert mapped[truth[:, 0] == 0].max() == 0
    assert mapped.mean() == pytest.approx(truth.mean(), rel=0.05)


def test_conditional_mean_is_the_conditional_mean_where_data_are_many() -> None:
    truth, strengths = planted(positions=60_000)
    table = conditional_mean(fit(truth, strengths))
    for level in (0, 2, 5):
        rows = strengths[:, 3] == level
        expected = truth[rows, 3].mean()
        got = table.apply(np.float32([level]), np.array([3]))[0]
        assert got == pytest.approx(expected, rel=0.05, abs=0.01)


def test_conditional_mean_never_falls_and_fills_every_level() -> None:
    values = conditional_mean(fit(*planted(positions=300))).values  # type: ignore[attr-defined]
    assert values.shape[1] == LEVELS
    assert np.isfinite(values).all()
    assert (np.diff(values, axis=1) >= -1e-5).all()


@pytest.mark.parametrize("seed", range(5))
def test_conditional_mean_of_strengths_that_say_nothing_is_no_worse_than_the_mean(seed: int) -> None:
    """On fresh data its squared error stays within 1% of the mean's, where the quantile map doubles it."""
    draws = np.random.default_rng(seed)

    def sample() -> tuple[np.ndarray, np.ndarray]:
        truth = np.maximum(draws.normal(-1, 1, (20_000, 20)), 0)
        return truth, np.where(draws.random(truth.shape) < 0.2, draws.integers(1, 10, truth.shape), 0)

    fitted, (truth, strengths) = fit(*sample()), sample()
    latents = np.broadcast_to(np.arange(20), truth.shape)

    def error(prediction: np.ndarray) -> float:
        return float(((prediction - truth) ** 2).mean())

    flat = strengths.astype(np.float32).ravel(), latents.ravel()
    of_mean = error(fitted.mean[latents])
    assert error(conditional_mean(fitted).apply(*flat).reshape(truth.shape)) < 1.01 * of_mean
    assert error(quantile(fitted).apply(*flat).reshape(truth.shape)) > 1.5 * of_mean


def test_few_examples_lean_on_the_other_latents() -> None:
    """A latent that was seen at level 9 once, at 0, is not believed: its neighbours say what 9 means."""
    truth, strengths = np.zeros((1000, 11)), np.zeros((1000, 11))
    truth[:100, :10], strengths[:100, :10] = 1.0, 9.0
    truth[500:505, 10], strengths[0, 10] = 1.0, 9.0
    values = conditional_mean(fit(truth, strengths)).apply(np.float32([9, 9]), np.array([0, 10]))
    assert values[0] > 0.9
    assert 0.5 < values[1] < values[0]


def test_missing_values_are_left_out_and_stay_missing() -> None:
    truth, strengths = planted()
    holed = strengths.copy()
    holed[::5, 2] = np.nan
    keep = np.arange(len(truth)) % 5 > 0
    with_holes, without = fit(truth, holed), fit(truth[keep], strengths[keep])
    np.testing.assert_array_equal(with_holes.count[2], without.count[2])
    np.testing.assert_allclose(with_holes.total[2], without.total[2], rtol=1e-6)
    assert with_holes.correlation[2] == pytest.approx(without.correlation[2])
    assert with_holes.mean[2] == pytest.approx(truth[:, 2].mean())
    for function in CALIBRATORS.values():
        assert np.isnan(function(with_holes).apply(np.float32([np.nan]), np.array([2]))).all()


def test_latents_without_a_prediction_do_not_teach_the_others_what_0_means() -> None:
    """A latent that is always active but was never predicted would raise what strength 0 is worth for all."""
    truth, strengths = planted(latents=4)
    truth[:, 3], strengths[:, 3] = 5.0, 0.0
    absent = np.arange(4) == 3
    alone = conditional_mean(fit(truth[:, :3], strengths[:, :3])).values  # type: ignore[attr-defined]
    polluted = conditional_mean(fit(truth, strengths)).values[:3]  # type: ignore[attr-defined]
    mended = conditional_mean(forget(fit(truth, strengths), absent)).values[:3]  # type: ignore[attr-defined]
    np.testing.assert_allclose(mended, alone, rtol=1e-6)
    assert not np.allclose(polluted, alone, rtol=1e-6)


@pytest.mark.parametrize("name", ["quantile", "conditional_mean"])
def test_where_no_strength_is_known_the_mean_stands_and_not_0(name: str) -> None:
    truth, strengths = planted()
    unknown = fit(truth, np.full_like(strengths, np.nan))
    latents = np.arange(truth.shape[1])
    for said in (0, 9):
        found = CALIBRATORS[name](unknown).apply(np.full(len(latents), said, dtype=np.float32), latents)
        np.testing.assert_allclose(found, truth.mean(0), rtol=1e-5)
    assert (unknown.missing_shares == 1).all() and (fit(truth, strengths).missing_shares == 0).all()


def test_latents_that_never_fire_stay_silent() -> None:
    truth, strengths = planted()
    truth[:, 1] = 0
    for name in ("linear", "quantile", "conditional_mean"):
        mapped = CALIBRATORS[name](fit(truth, strengths)).apply(np.float32([0, 9]), np.array([1, 1]))
        np.testing.assert_array_equal(mapped, 0)


def test_levels_cover_the_scale() -> None:
    np.testing.assert_array_equal(to_levels(np.float32([0, 1, 9, 12]), 9.0), [0, 10, 90, 90])


def test_firings_that_nobody_asks_for_are_not_kept() -> None:
    """All else is the same; quantiles need them."""
    rng = np.random.default_rng(8)
    truth = rng.random((60, 3)) * (rng.random((60, 3)) < 0.4)
    strengths = rng.integers(0, 10, (60, 3)).astype(float)
    pairs = list(pairs_of(truth, strengths, 2))
    kept, lean = (tally(pairs, 3, 9.0, keep) for keep in (True, False))
    assert lean.firings is None and kept.firings is not None
    levels = np.arange(10, dtype=np.float32)
    for latent in range(3):
        own = np.full(10, latent)
        assert (conditional_mean(kept).apply(levels, own) == conditional_mean(lean).apply(levels, own)).all()
    with pytest.raises(AssertionError, match="quantiles are those of the firings"):
        quantile(lean)
