"""Power and planning against statsmodels, against a large t, and against what then happens."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rewrite.config import UserError
from rewrite.statistics import paired as stats
from rewrite.statistics.power import documents_needed, noncentrality, power, upper_sd


@pytest.mark.parametrize("n", [8, 30, 200])
@pytest.mark.parametrize("effect", [0.02, 0.3, 0.9])
def test_power_is_that_of_statsmodels(n: int, effect: float) -> None:
    theirs = pytest.importorskip("statsmodels.stats.power", reason="the second implementation")
    assert power(2 * effect, 2.0, n, 0.05) == pytest.approx(theirs.TTestPower().power(effect, n, 0.05), rel=1e-9)
    assert power(-2 * effect, 2.0, n, 0.05) == power(2 * effect, 2.0, n, 0.05)


def test_power_without_an_effect_is_alpha() -> None:
    assert power(0.0, 1.0, 20, 0.03) == pytest.approx(0.03, rel=1e-9)


@pytest.mark.parametrize(("effect", "wished"), [(0.2, 0.8), (0.5, 0.9), (0.05, 0.5)])
def test_documents_needed_are_those_of_statsmodels_rounded_up(effect: float, wished: float) -> None:
    theirs = pytest.importorskip("statsmodels.stats.power", reason="the second implementation")
    exact = theirs.TTestPower().solve_power(effect, nobs=None, alpha=0.05, power=wished)
    assert documents_needed(1.0, effect, 0.05, wished) == int(np.ceil(np.ravel(exact)[0]))


@pytest.mark.parametrize("effect", [0.01, 0.1, 0.4, 1.5])
def test_documents_needed_are_the_least_that_do(effect: float) -> None:
    needed = documents_needed(0.6, effect, 0.01, 0.9)
    assert power(effect, 0.6, needed, 0.01) >= 0.9 - 1e-9
    assert needed == 2 or power(effect, 0.6, needed - 1, 0.01) < 0.9


def test_a_pilot_plans_the_study() -> None:
    """20 documents, equal lengths: with the sd they show, the study planned from them finds the effect."""
    rng = np.random.default_rng(0)
    pilot = stats.estimate(100 * rng.normal(0, 0.5, 20), np.full(20, 100))
    needed = pilot.documents_needed(0.1, 0.05)
    assert power(0.1, pilot.sd, needed, 0.05) == pytest.approx(0.8, abs=0.005)
    assert pilot.documents_needed(0.1, 0.05, confidence=0.8) > needed
    assert pilot.documents_needed(100.0, 0.05) == stats.MINIMUM_DOCUMENTS
    # What would be found on as many documents as the pilot has is found on as many documents as the pilot has.
    assert pilot.documents_needed(pilot.detectable(0.05), 0.05) in (20, 21)


def test_the_sd_of_equal_lengths_is_the_documents() -> None:
    values = np.random.default_rng(1).normal(0, 0.5, 12)
    assert stats.estimate(30 * values, np.full(12, 30)).sd == pytest.approx(values.std(ddof=1), rel=1e-12)


def test_the_upper_sd_is_above_the_true_one_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    above = [upper_sd(float(rng.normal(size=20).std(ddof=1)), 20, 0.8) > 1 for _ in range(4000)]
    assert np.mean(above) == pytest.approx(0.8, abs=0.02)  # 3.2 standard errors


@pytest.mark.parametrize(("effect", "words"), [(0.0, "no number of documents"), (1e-9, "wish for a larger one")])
def test_an_effect_that_no_corpus_could_show_is_refused(effect: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        documents_needed(1.0, effect, 0.05)


@pytest.mark.parametrize("df", [4, 7, 29, 10**4, 10**8])
@pytest.mark.parametrize("alpha", [1e-6, 0.05, 0.4])
def test_no_warning_and_no_nan_at_the_ends(df: int, alpha: float) -> None:
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        assert power(1e7, 1.0, df + 1, alpha) == pytest.approx(1.0)
        found = [power(shift, 1.0, df + 1, alpha) for shift in np.linspace(0, 12, 200) / np.sqrt(df + 1)]
        assert np.diff(found).min() > -1e-12
        assert found[0] == pytest.approx(alpha, rel=1e-6)
        assert power(noncentrality(df, alpha, 0.999) / np.sqrt(df + 1), 1.0, df + 1, alpha) == pytest.approx(0.999)


@pytest.mark.parametrize("df", [7, 29, 199])
@pytest.mark.parametrize("shift", [0.0, 0.5, 2.8, 6.0])
def test_power_is_scipys_noncentral_t_where_that_works(df: int, shift: float) -> None:
    critical = scipy_stats.t.isf(0.025, df)
    theirs = scipy_stats.nct.sf(critical, df, shift) + scipy_stats.nct.cdf(-critical, df, shift)
    assert power(shift, np.sqrt(df + 1.0), df + 1, 0.05) == pytest.approx(theirs, rel=1e-9)
