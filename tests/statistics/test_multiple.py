"""Several comparisons at once: Holm and Benjamini-Hochberg, by hand and as statsmodels has them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rewrite.statistics import paired as stats


def test_holm_by_hand() -> None:
    # Sorted: .01 · 4 = .04; .02 · 3 = .06; .03 · 2 = .06; .5 · 1 = .5
    assert stats.holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_holm_is_that_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="the second implementation")
    rng = np.random.default_rng(4)
    for count in (1, 2, 17, 36):
        p_values = np.round(rng.random(count) ** 3, 2).tolist()  # rounded, so that some are equal
        theirs = multitest.multipletests(p_values, method="holm")[1]
        assert stats.holm(p_values) == pytest.approx(theirs.tolist(), abs=1e-12)


def test_benjamini_hochberg_by_hand() -> None:
    # Sorted: .01 · 4/1 = .04; .02 · 4/2 = .04; .03 · 4/3 = .04; .5 · 4/4 = .5. The missing one is not counted.
    found = stats.benjamini_hochberg(np.array([0.02, np.nan, 0.5, 0.01, 0.03]))
    assert found == pytest.approx([0.04, np.nan, 0.5, 0.04, 0.04], nan_ok=True)
    assert stats.benjamini_hochberg(np.array([0.9, np.nan])) == pytest.approx([0.9, np.nan], nan_ok=True)
    assert stats.benjamini_hochberg(np.array([])).tolist() == []


@pytest.mark.parametrize("count", [1, 2, 17, 1000])
def test_benjamini_hochberg_is_that_of_statsmodels(count: int) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="the second implementation")
    p_values = np.round(np.random.default_rng(count).random(count) ** 3, 2)  # rounded, so that some are equal
    theirs = multitest.multipletests(p_values, method="fdr_bh")[1]
    assert stats.benjamini_hochberg(p_values) == pytest.approx(theirs, rel=1e-9)


def test_benjamini_hochberg_keeps_the_share_of_false_calls() -> None:
    """Of 200 tests 40 are true effects; on average at most .8 · 10% of what is called is called falsely."""
    rng = np.random.default_rng(21)
    false = []
    for _ in range(500):
        z = rng.normal(np.where(np.arange(200) < 40, 3.0, 0.0))
        called = stats.benjamini_hochberg(2 * scipy_stats.norm.sf(np.abs(z))) < 0.1
        false.append(called[40:].sum() / max(1, called.sum()))
    assert 0.07 < np.mean(false) < 0.09
