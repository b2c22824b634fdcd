"""The statistics against theory, against other implementations, and against their definitions worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from makers.pairs_drawn import NULLS, Paired, make_null, make_tokens
from scipy import stats as scipy_stats

from rewrite.config import UserError
from rewrite.statistics import paired as stats
from rewrite.statistics import resampling
from rewrite.statistics.power import noncentrality
from rewrite.statistics.verdict import decide


def paired_example(n: int = 40, seed: int = 3) -> Paired:
    rng = np.random.default_rng(seed)
    tokens = make_tokens(rng, n)
    reference = tokens * rng.normal(2, 0.3, n)
    return Paired(reference + tokens * rng.normal(0.02, 0.1, n), reference, tokens)


# --- the estimate ----------------------------------------------------------------------------------------------------


def test_estimate_by_hand() -> None:
    # Six documents of 1 token and two of 5: r = (6·1 + 8 + 2) / (6·1 + 2·5) = 16 / 16 = 1.
    # Residuals y - r w: 0 six times, 8 - 5 = 3, 2 - 5 = -3. Without either of these two, 16 - 5 = 11 tokens are left:
    # se² = 7/8 · (3² + 3²) / 11².
    nats = np.array([1.0, 1, 1, 1, 1, 1, 8, 2])
    tokens = np.array([1, 1, 1, 1, 1, 1, 5, 5])
    found = stats.estimate(nats, tokens)
    assert found.value == 1.0
    assert found.se == pytest.approx(np.sqrt(7 / 8 * 18) / 11, rel=1e-14)
    assert found.df == 7


def test_equal_lengths_give_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    tokens = np.full(50, 100)
    a, b = rng.normal(200, 30, 50), rng.normal(205, 30, 50)
    found = stats.difference(a, b, tokens)
    theirs = scipy_stats.ttest_rel(a / 100, b / 100)
    interval = theirs.confidence_interval(0.95)
    assert found.value / found.se == pytest.approx(theirs.statistic, rel=1e-9)
    assert found.p_value() == pytest.approx(theirs.pvalue, rel=1e-9)
    assert [found.interval(0.05).low, found.interval(0.05).high] == pytest.approx(list(interval), rel=1e-9)


def test_the_standard_error_is_the_jackknifes() -> None:
    """By definition: leave out one document after the other, estimate anew, (n-1)/n times the sum of squares."""
    example = paired_example()
    differences = example.arm - example.reference
    every = range(len(differences))
    left = [np.delete(differences, i).sum() / np.delete(example.tokens, i).sum() for i in every]
    found = stats.estimate(differences, example.tokens)
    squares = sum((mean - found.value) ** 2 for mean in left)
    assert found.se == pytest.approx(np.sqrt((len(left) - 1) / len(left) * squares), rel=1e-9)


def test_the_mean_is_the_cluster_robust_regressions() -> None:
    """A token-weighted mean is a regression on a constant with every token a row and documents as clusters.

    Statsmodels' CR1 standard error is ours where lengths are equal, and below ours where they are not.
    """
    api = pytest.importorskip("statsmodels.api", reason="the second implementation")
    example = paired_example()
    for tokens, smaller in ((np.full(40, 50), False), (example.tokens, True)):
        differences = (example.arm - example.reference) / example.tokens * tokens
        per_token = np.repeat(differences / tokens, tokens)
        rows = api.OLS(per_token, np.ones(len(per_token)))
        # Their small-sample factor is n/(n-1) · (N-1)/(N-k); the second part is 1 with one regressor.
        fitted = rows.fit(cov_type="cluster", cov_kwds={"groups": np.repeat(np.arange(40), tokens)})
        found = stats.estimate(differences, tokens)
        assert found.value == pytest.approx(fitted.params[0], rel=1e-9)
        if smaller:
            assert fitted.bse[0] < found.se < 1.2 * fitted.bse[0]
        else:
            assert found.se == pytest.approx(fitted.bse[0], rel=1e-9)


@pytest.mark.parametrize("n", [8, 40, 300])
def test_the_standard_error_is_the_leverage_corrected_regressions(n: int) -> None:
    """CV3 as statsmodels has it, for any lengths: HC3 of nats / √tokens on √tokens, a row a document, times (n-1)/n."""
    api = pytest.importorskip("statsmodels.api", reason="the second implementation")
    example = paired_example(n)
    differences, root = example.arm - example.reference, np.sqrt(example.tokens)
    fitted = api.OLS(differences / root, root).fit(cov_type="HC3")
    found = stats.estimate(differences, example.tokens)
    assert found.value == pytest.approx(fitted.params[0], rel=1e-9)
    assert found.se == pytest.approx(np.sqrt((n - 1) / n) * fitted.bse[0], rel=1e-9)


def test_splitting_tokens_evenly_changes_nothing() -> None:
    """Counting every token ten times over is not ten times the evidence."""
    example = paired_example()
    once = stats.difference(example.arm, example.reference, example.tokens)
    tenfold = stats.difference(10 * example.arm, 10 * example.reference, 10 * example.tokens)
    assert tenfold.se == pytest.approx(once.se, rel=1e-12)


@pytest.mark.parametrize("count", [0, 1, 2, stats.MINIMUM_DOCUMENTS - 1])
def test_too_few_documents_say_how_many_are_needed(count: int) -> None:
    with pytest.raises(UserError, match=f"{count} documents are too few .* {stats.MINIMUM_DOCUMENTS} are needed"):
        stats.estimate(np.arange(count, dtype=float), np.ones(count, dtype=np.int64))


def test_no_spread_raises_instead_of_returning_no_error() -> None:
    tokens = np.arange(10, 30)
    with pytest.raises(UserError, match="no spread"):
        stats.estimate(0.1 * tokens, tokens)


def test_bad_losses_are_refused() -> None:
    tokens = np.full(10, 5)
    nats = np.arange(10, dtype=float)
    with pytest.raises(UserError, match=r"document 3 .* not a finite"):
        stats.estimate(np.where(np.arange(10) == 3, np.nan, nats), tokens)
    with pytest.raises(UserError, match="document 2 has no scored tokens"):
        stats.estimate(nats, np.where(np.arange(10) == 2, 0, tokens))


def test_identical_arms() -> None:
    example = paired_example()
    same = stats.difference(example.arm, example.arm.copy(), example.tokens)
    assert same.identical
    assert (same.value, same.se, same.p_value(), same.detectable(0.05)) == (0, 0, 1, 0)
    assert same.interval(0.05) == stats.Interval(0.0, 0.0)
    assert (same.p_equivalence(0.01), same.p_equivalence(0.0)) == (0, 1)
    assert decide(same.value, same.p_value(), same.p_equivalence(0.01), 0.05) == "equivalent"


# --- equivalence, power ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.2])
def test_equivalence_is_that_of_statsmodels(margin: float) -> None:
    weightstats = pytest.importorskip("statsmodels.stats.weightstats", reason="the second implementation")
    rng = np.random.default_rng(5)
    a, b = rng.normal(2, 0.3, 60), rng.normal(2.02, 0.3, 60)
    found = stats.difference(100 * a, 100 * b, np.full(60, 100)).p_equivalence(margin)
    assert found == pytest.approx(weightstats.ttost_paired(a, b, -margin, margin)[0], rel=1e-9)


def test_equivalence_is_the_narrower_interval_inside_the_margin() -> None:
    example = paired_example()
    found = stats.difference(example.arm, example.reference, example.tokens)
    inner = found.interval(0.10)
    edge = max(abs(inner.low), abs(inner.high))
    assert found.p_equivalence(edge) == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize("n", [8, 30, 200])
def test_power_is_that_of_statsmodels(n: int) -> None:
    theirs = pytest.importorskip("statsmodels.stats.power", reason="the second implementation")
    effect = noncentrality(n - 1, 0.05, 0.8) / np.sqrt(n)
    assert theirs.TTestPower().power(effect, n, 0.05) == pytest.approx(0.8, rel=1e-9)


def test_the_detectable_difference_is_detected_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)
    n, spread = 40, 0.1
    true = stats.Estimate(0.0, spread / np.sqrt(n), n - 1).detectable(0.05)
    tokens = np.full(n, 100)
    found = [stats.estimate(100 * rng.normal(true, spread, n), tokens).p_value() < 0.05 for _ in range(2000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)  # 3.4 standard errors of 2,000 repeats


# --- how often the tests are wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [60, 150])
@pytest.mark.parametrize("name", sorted(NULLS))
def test_false_positive_rates(name: str, n: int) -> None:
    rng = np.random.default_rng([n, sorted(NULLS).index(name)])
    student, flipped, covered = [], [], []
    for _ in range(1000):
        null = make_null(name, rng, n)
        found = stats.difference(null.arm, null.reference, null.tokens)
        student.append(found.p_value() < 0.05)
        covered.append(0.0 in found.interval(0.05))
        flipped.append(resampling.sign_flip((null.arm - null.reference)[None], null.tokens, 399, 1)[0] < 0.05)
    assert 0.03 <= np.mean(student) <= 0.07
    assert 0.03 <= np.mean(flipped) <= 0.07
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("name", sorted(NULLS))
def test_false_positive_rates_where_a_few_documents_are_long(name: str) -> None:
    rng = np.random.default_rng([60, sorted(NULLS).index(name)])
    nulls = [make_null(name, rng, 60, spread=1.2) for _ in range(1000)]
    rejected = [stats.difference(null.arm, null.reference, null.tokens).p_value() < 0.05 for null in nulls]
    assert 0.03 <= np.mean(rejected) <= 0.07


def test_equivalence_is_seldom_claimed_at_the_margin() -> None:
    rng = np.random.default_rng(11)
    claims = []
    for _ in range(1000):
        null = make_null("normal", rng, 80)
        shifted = null.arm + 0.05 * null.tokens
        claims.append(stats.difference(shifted, null.reference, null.tokens).p_equivalence(0.05) < 0.05)
    assert np.mean(claims) <= 0.07
