"""Variance components against statsmodels' mean squares, planted truths and a table worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rewrite.components import Components, split_variance
from rewrite.config import UserError


def plant(rng: np.random.Generator, shape: tuple[int, int, int], sds: dict[str, float]) -> np.ndarray:
    """A table whose documents, latents, seeds, documents × latents and rest have these standard deviations."""
    documents, latents, seeds = shape
    table = 3 + sds["document"] * rng.normal(size=(documents, 1, 1)) + sds["latent"] * rng.normal(size=(1, latents, 1))
    table = (
        table + sds["seed"] * rng.normal(size=(1, 1, seeds)) + sds["both"] * rng.normal(size=(documents, latents, 1))
    )
    return table + sds["rest"] * rng.normal(size=shape)


def test_by_hand() -> None:
    # Two documents, two latents, one seed: [[1, 3], [5, 11]]. Means: 5; documents 2 and 8, latents 3 and 7.
    # MS document = 2 · (9 + 9) / 1 = 36; MS latent = 2 · (4 + 4) / 1 = 16; what is left is ±1: MS rest = 4 / 1.
    # σ² of documents = (36 - 4) / 2, of latents (16 - 4) / 2.
    found = split_variance(np.array([[[1.0], [3.0]], [[5.0], [11.0]]]))
    assert found.document == pytest.approx(16)
    assert found.latent == pytest.approx(6)
    assert found.variances[("document", "latent")] == pytest.approx(4)
    assert found.seed is None
    assert found.levels == {"document": 2, "latent": 2}


def test_planted_variances_are_found_on_average() -> None:
    rng = np.random.default_rng(0)
    sds = {"document": 1.0, "latent": 0.5, "seed": 0.3, "both": 0.7, "rest": 0.4}
    found = [split_variance(plant(rng, (12, 8, 5), sds)).variances for _ in range(1500)]
    mean = {of: float(np.mean([one[of] for one in found])) for of in found[0]}
    error = {of: float(np.std([one[of] for one in found])) / np.sqrt(1500) for of in found[0]}
    truth = {("document",): 1.0, ("latent",): 0.25, ("seed",): 0.09, ("document", "latent"): 0.49}
    truth |= {("document", "seed"): 0.0, ("latent", "seed"): 0.0, ("document", "latent", "seed"): 0.16}
    assert set(mean) == set(truth)
    for of, true in truth.items():
        assert abs(mean[of] - true) < 4 * error[of], of


def test_the_mean_squares_are_those_of_statsmodels() -> None:
    """Two-way: σ² = (mean square - residual mean square) / levels of the other factor."""
    api = pytest.importorskip("statsmodels.formula.api", reason="the second implementation")
    anova = pytest.importorskip("statsmodels.stats.anova", reason="the second implementation")
    pandas = pytest.importorskip("pandas", reason="the second implementation's tables")
    table = plant(np.random.default_rng(1), (9, 6, 1), {"document": 1, "latent": 2, "seed": 0, "both": 0, "rest": 0.5})
    rows = [{"y": table[d, k, 0], "d": d, "k": k} for d in range(9) for k in range(6)]
    squares = anova.anova_lm(api.ols("y ~ C(d) + C(k)", pandas.DataFrame(rows)).fit())["mean_sq"]
    found = split_variance(table)
    assert found.document == pytest.approx((squares["C(d)"] - squares["Residual"]) / 6, rel=1e-9)
    assert found.latent == pytest.approx((squares["C(k)"] - squares["Residual"]) / 9, rel=1e-9)
    assert found.variances[("document", "latent")] == pytest.approx(squares["Residual"], rel=1e-9)


def test_one_factor_alone_is_the_sample_variance() -> None:
    values = np.random.default_rng(2).normal(size=25)
    found = split_variance(values.reshape(25, 1, 1))
    assert found.document == pytest.approx(values.var(ddof=1), rel=1e-12)
    assert (found.latent, found.seed) == (None, None)
    assert found.standard_error({"document": 25}) == pytest.approx(values.std(ddof=1) / 5, rel=1e-12)


def test_nothing_varies_where_every_factor_has_one_level() -> None:
    assert split_variance(np.ones((1, 1, 1))) == Components({}, {})


def test_the_standard_error_is_that_of_repeated_studies() -> None:
    rng = np.random.default_rng(3)
    sds = {"document": 1.0, "latent": 0.5, "seed": 0.3, "both": 0.7, "rest": 0.4}
    means = [plant(rng, (10, 6, 4), sds).mean() for _ in range(4000)]
    truth = {("document",): 1.0, ("latent",): 0.25, ("seed",): 0.09, ("document", "latent"): 0.49}
    truth[("document", "latent", "seed")] = 0.16
    components = Components(truth, {"document": 2, "latent": 2, "seed": 2})
    predicted = components.standard_error({"document": 10, "latent": 6, "seed": 4})
    assert predicted == pytest.approx(np.std(means), rel=0.05)  # 4.5 standard errors of a standard deviation
    with pytest.raises(ValueError, match="levels of"):
        components.standard_error({"document": 10})


def test_a_missing_cell_is_refused() -> None:
    table = np.ones((3, 4, 2))
    table[1, 2, 0] = np.nan
    with pytest.raises(UserError, match="1 of 24 cells are missing"):
        split_variance(table)
