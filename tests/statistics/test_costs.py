"""The statistics of per-latent costs against `rewrite.statistics.paired`, scipy, and what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rewrite.statistics.costs import check_costs, correlate, draw_check, predict, summarise
from rewrite.statistics.paired import estimate

DRAWS = np.random.default_rng(0)
TOKENS = DRAWS.integers(50, 400, 30)
NATS = DRAWS.normal(0.1, 1, (30, 40)) * TOKENS[:, None] / 100


def test_each_latent_has_the_error_of_the_cluster_robust_estimate() -> None:
    found = summarise(NATS, TOKENS, 0.1)
    for latent in range(NATS.shape[1]):
        one = estimate(NATS[:, latent], TOKENS)
        interval = one.interval(0.1)
        np.testing.assert_allclose(
            [found.value[latent], found.low[latent], found.high[latent]], [one.value, interval.low, interval.high]
        )
        half = one.p_value() / 2
        assert found.p[latent] == pytest.approx(half if one.value > 0 else 1 - half)
    np.testing.assert_allclose(found.q, stats.false_discovery_control(found.p))


def test_what_is_not_measured_is_no_test_and_what_never_differs_costs_nothing() -> None:
    nats = NATS.copy()
    nats[:, 3] = np.nan
    nats[:, 5] = 0
    found = summarise(nats, TOKENS, 0.05)
    assert np.isnan([found.value[3], found.low[3], found.p[3], found.q[3]]).all()
    assert (found.value[5], found.low[5], found.high[5], found.p[5]) == (0, 0, 0, 1)
    known = np.arange(40) != 3
    np.testing.assert_allclose(found.q[known], stats.false_discovery_control(found.p[known]))


def test_few_documents_have_costs_and_no_tests() -> None:
    found = summarise(NATS[:7], TOKENS[:7], 0.05)
    np.testing.assert_allclose(found.value, NATS[:7].sum(0) / TOKENS[:7].sum())
    assert np.isnan([found.low, found.high, found.p, found.q]).all()


def test_false_discoveries_are_as_rare_as_they_are_said_to_be() -> None:
    draws = np.random.default_rng(2)
    shares, found = [], 0
    for _ in range(200):
        nats = draws.normal(0, 1, (30, 100))
        nats[:, :20] += 1.0
        called = summarise(nats, np.full(30, 10), 0.05).q < 0.1
        shares.append(called[20:].sum() / max(called.sum(), 1))
        found += int(called[:20].sum())
    assert np.mean(shares) < 0.1 and found > 0.9 * 200 * 20


def test_correlations_are_scipys() -> None:
    x = DRAWS.normal(size=60)
    y = np.round(x + DRAWS.exponential(size=60), 1)
    assert correlate(x, y, 0.05)["value"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert correlate(x, y, 0.05, "pearson")["value"] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    holed = np.where(np.arange(60) < 20, np.nan, x)
    found = correlate(holed, y, 0.05)
    assert found["n"] == 40 and found["value"] == pytest.approx(stats.spearmanr(x[20:], y[20:]).statistic)


def test_pearsons_jackknife_is_the_loop_that_it_replaces() -> None:
    x = DRAWS.normal(size=25)
    y = x + DRAWS.standard_t(3, size=25)
    z = np.arctanh([stats.pearsonr(np.delete(x, i), np.delete(y, i)).statistic for i in range(25)])
    half = stats.t.isf(0.025, 24) * np.sqrt(24 / 25 * ((z - z.mean()) ** 2).sum())
    centre = np.arctanh(stats.pearsonr(x, y).statistic)
    np.testing.assert_allclose(correlate(x, y, 0.05, "pearson")["ci"], np.tanh([centre - half, centre + half]))


@pytest.mark.parametrize("kind", ["spearman", "pearson"])
def test_intervals_of_correlations_cover(kind: str) -> None:
    """Of a bivariate normal pair with r = 0.6, whose Spearman ρ is 6/π asin(r/2) (Pearson 1907)."""
    draws, r, covered = np.random.default_rng(3), 0.6, 0
    truth = r if kind == "pearson" else 6 / np.pi * np.arcsin(r / 2)
    for _ in range(1000):
        x = draws.normal(size=50)
        low, high = correlate(x, r * x + np.sqrt(1 - r**2) * draws.normal(size=50), 0.05, kind)["ci"]  # type: ignore[arg-type]
        covered += low <= truth <= high
    assert 0.93 < covered / 1000 < 0.97


def test_what_does_not_vary_or_is_too_little_has_no_correlation() -> None:
    x = np.arange(20.0)
    assert correlate(x, np.ones(20), 0.05) == {"n": 20, "value": None, "ci": None}
    assert correlate(x[:2], x[:2], 0.05)["value"] is None
    assert correlate(x[:6], -x[:6] + [0, 0, 3, 0, 0, 0], 0.05)["ci"] is None
    alone = np.where(x == 19, 100.0, 0.0)  # one pair alone carries the spread
    assert correlate(alone, alone + x, 0.05, "pearson")["ci"] is None


def test_half_of_the_check_are_the_most_costly_and_half_are_drawn() -> None:
    value, simulated = DRAWS.normal(size=100), np.arange(100) % 10 > 0
    check = draw_check(value, simulated, 11, 0)
    order = np.flatnonzero(simulated)
    assert set(check["most"]) == set(order[np.argsort(-np.abs(value[order]))[:6]])
    assert len(check["drawn"]) == 5 and not set(check["most"]) & set(check["drawn"])
    assert simulated[check["drawn"]].all()
    assert not np.array_equal(check["drawn"], draw_check(value, simulated, 11, 1)["drawn"])
    every = draw_check(value, simulated, 1000, 0)
    assert sorted([*every["most"], *every["drawn"]]) == list(order)
    assert [len(part) for part in draw_check(value, simulated, 0, 0).values()] == [0, 0]


def test_the_check_is_of_what_was_measured() -> None:
    value = DRAWS.normal(size=100)
    alone = np.where(np.arange(100) < 30, 2 * value + 0.1 * DRAWS.normal(size=100), np.nan)
    found = check_costs(value, alone, np.arange(15), 0.05)
    assert found["latents"] == 30 and found["all"]["pearson"]["n"] == 30 and found["random"]["spearman"]["n"] == 15
    assert found["all"]["spearman"]["value"] > 0.95


def test_the_score_that_makes_the_cost_predicts_it_best() -> None:
    score = {name: DRAWS.normal(size=300) for name in ("simulation", "density", "fuzz")}
    value = -np.exp(score["density"]) + 0.1 * DRAWS.normal(size=300)
    rows = predict(value, score, 0.05)
    assert rows[0]["score"] == "density" and len(rows) == 3
    assert rows[0]["ci"][0] > 0.9 and rows[0]["ci_signed"][1] < -0.9
    assert all(row["ci"][0] < 0 < row["ci"][1] for row in rows[1:])
