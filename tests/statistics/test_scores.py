"""Scores and their intervals against definitions written out by hand, and against theory in simulations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csr_array

from rewrite.arms.calibrate import Pair, conditional_mean, tally
from rewrite.explainers.judge import Judgements
from rewrite.statistics.scores import Accuracy, SimulationScores, score_judgements, score_simulations

Documents = list[tuple[np.ndarray, np.ndarray]]


def plant(documents: int = 11, latents: int = 5, seed: int = 0) -> Documents:
    """Truth and strengths of documents of several lengths; strengths of 0 are not stored, some are NaN."""
    draws = np.random.default_rng(seed)
    found = []
    for number in range(documents):
        length = 20 + 7 * number
        truth = np.maximum(draws.normal(-0.5, 1, (length, latents)), 0) * (1 + number % 3)
        strength = np.clip(np.rint(2 * truth + draws.normal(0, 1, truth.shape)), 0, 9)
        strength[draws.random(truth.shape) < 0.05] = np.nan
        found.append((truth.astype(np.float32), strength.astype(np.float32)))
    return found


def walk(documents: Documents) -> Callable[[], list[Pair]]:
    return lambda: [Pair(csr_array(t), csr_array(s)) for t, s in documents]


def score(documents: Documents, absent: np.ndarray | None = None, alpha: float = 0.05) -> SimulationScores:
    latents = documents[0][0].shape[1]
    absent = np.zeros(latents, dtype=bool) if absent is None else absent
    return score_simulations(walk(documents), absent, 9.0, alpha)


def pearson(documents: Documents, latent: int) -> float:
    truth = np.concatenate([t[:, latent] for t, _ in documents]).astype(np.float64)
    strength = np.concatenate([s[:, latent] for _, s in documents]).astype(np.float64)
    known = ~np.isnan(strength)
    return float(np.corrcoef(truth[known], strength[known])[0, 1])


def without(documents: Documents, number: int) -> Documents:
    return documents[:number] + documents[number + 1 :]


def test_the_correlation_is_numpys_over_all_tokens_put_end_to_end() -> None:
    documents = plant()
    found = score(documents).correlation.value
    np.testing.assert_allclose(found, [pearson(documents, i) for i in range(5)], rtol=1e-9)
    # ... which is not the mean of the documents' own correlations.
    apart = np.mean([[pearson([d], i) for d in documents] for i in range(5)], axis=1)
    assert np.abs(found - apart).min() > 1e-3


def test_its_interval_is_the_jackknifes_on_fishers_z() -> None:
    documents = plant()
    found = score(documents, alpha=0.1).correlation
    for latent in range(5):
        z = np.arctanh(pearson(documents, latent))
        left_out = [np.arctanh(pearson(without(documents, i), latent)) for i in range(11)]
        error = np.sqrt(10 / 11 * np.sum((np.array(left_out) - z) ** 2))
        ends = np.tanh(z + np.array([-1, 1]) * stats.t.ppf(0.95, 10) * error)
        np.testing.assert_allclose([found.low[latent], found.high[latent]], ends, rtol=1e-8)


def errors(documents: Documents, latent: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Each document's summed squared error of the cross-fitted activation, and its activations, strength known."""
    latents = documents[0][0].shape[1]
    fits = [conditional_mean(tally(walk(documents[half::2])(), latents, 9.0)) for half in (0, 1)]
    summed, truths = [], []
    for number, (truth, strength) in enumerate(documents):
        known = ~np.isnan(strength[:, latent])
        column = truth[known, latent].astype(np.float64)
        guess = fits[1 - number % 2].apply(strength[known, latent], np.full(known.sum(), latent))
        summed.append(np.sum((column - guess) ** 2))
        truths.append(column)
    return np.array(summed), truths


def r2(summed: np.ndarray, truths: list[np.ndarray]) -> float:
    every = np.concatenate(truths)
    return float(1 - summed.sum() / np.sum((every - every.mean()) ** 2))


def test_r2_is_that_of_a_fit_on_the_other_half_of_the_documents() -> None:
    documents = plant()
    found = score(documents).r2
    for latent in range(5):
        summed, truths = errors(documents, latent)
        value = r2(summed, truths)
        left_out = [r2(np.delete(summed, i), truths[:i] + truths[i + 1 :]) for i in range(11)]
        half = stats.t.ppf(0.975, 10) * np.sqrt(10 / 11 * np.sum((np.array(left_out) - value) ** 2))
        np.testing.assert_allclose(found.value[latent], value, rtol=1e-6)
        np.testing.assert_allclose([found.low[latent], found.high[latent]], [value - half, value + half], rtol=1e-5)


def test_strengths_that_say_nothing_have_no_r2_above_0() -> None:
    draws = np.random.default_rng(3)
    documents = [(t, draws.integers(0, 10, t.shape).astype(np.float32)) for t, _ in plant(20, 30, seed=4)]
    found = score(documents).r2
    assert found.value.max() < 0.005, "an R² that is not held out would be above 0"
    assert np.mean(found.low > 0) <= 0.05


def test_what_cannot_be_scored_is_missing_and_not_0() -> None:
    documents = plant()
    for truth, strength in documents:
        truth[:, 1] = 0  # never fires
        strength[:, 2] = 5  # always the same
        strength[:, 3] = np.nan  # nothing known
    documents[4][0][3, 1] = 1e-3
    found = score(documents, absent=np.array([True, False, False, False, False]))
    assert np.isnan(found.correlation.value).tolist() == [True, False, True, True, False]
    assert np.isnan(found.r2.value).tolist() == [True, False, False, True, False]
    # Latent 1 fires in one document alone: without it there is no correlation, so there is no interval.
    assert np.isnan(found.correlation.low).tolist() == [True, True, True, True, False]
    assert np.isnan(found.r2.high[1]) and abs(found.r2.value[2]) < 0.1


def test_a_latent_without_predictions_does_not_change_the_others() -> None:
    documents = plant()
    strange = [(t, np.where(np.arange(5) == 0, 9 * (t == 0), s).astype(np.float32)) for t, s in documents]
    absent = np.arange(5) == 0
    one, other = score(documents, absent), score(strange, absent)
    np.testing.assert_array_equal(one.r2.value, other.r2.value)
    np.testing.assert_array_equal(one.correlation.value, other.correlation.value)


def test_few_documents_have_scores_but_no_intervals() -> None:
    found = score(plant(7))
    assert not np.isnan(found.correlation.value).any() and not np.isnan(found.r2.value).any()
    assert np.isnan(found.correlation.low).all() and np.isnan(found.r2.high).all()
    single = score(plant(1))
    assert not np.isnan(single.correlation.value).any() and np.isnan(single.r2.value).all()


def test_a_perfect_simulation_is_1_and_has_no_spread_to_judge_it_by() -> None:
    documents = [(t, t) for t, _ in plant()]
    found = score(documents).correlation
    np.testing.assert_allclose(found.value, 1, atol=1e-12)
    assert np.isnan(found.low).all()


def test_the_interval_of_the_correlation_covers_as_often_as_it_says() -> None:
    """Documents differ: both values of a position share something of its document. The true correlation is known."""
    draws = np.random.default_rng(0)
    documents, positions, repeats, shared, own = 40, 25, 600, 0.8, 0.2
    found: Documents = []
    for _ in range(documents):
        effect = draws.multivariate_normal([0, 0], [[1, shared], [shared, 1]], repeats)
        noise = draws.multivariate_normal([0, 0], [[1, own], [own, 1]], (positions, repeats))
        both = effect + noise
        found.append((both[..., 0], both[..., 1] + 20))
    scored = score_simulations(walk(found), np.zeros(repeats, dtype=bool), 40.0, 0.05).correlation
    truth = (shared + own) / 2
    covered = np.mean((scored.low <= truth) & (truth <= scored.high))
    assert 0.92 <= covered <= 0.975
    # An interval that took positions for independent would be far too short.
    half = 1.96 / np.sqrt(documents * positions - 3)
    naive = np.mean(np.abs(np.arctanh(scored.value) - np.arctanh(truth)) <= half)
    assert naive < 0.7


def judge(documents: np.ndarray, truth: np.ndarray, said: np.ndarray, base: float = 0.02) -> Accuracy:
    return score_judgements(Judgements(documents, truth.astype(bool), said.astype(bool)), base, 0.05)


def balanced(truth: np.ndarray, said: np.ndarray) -> float:
    return float((said[truth == 1].mean() + (1 - said[truth == 0]).mean()) / 2)


def test_balanced_accuracy_its_interval_and_its_precision_are_their_definitions() -> None:
    draws = np.random.default_rng(1)
    owner = draws.integers(3, 23, 120)
    truth = draws.integers(0, 2, 120)
    said = np.where(draws.random(120) < 0.75, truth, 1 - truth)
    found = judge(owner, truth, said, base=0.02)
    value = balanced(truth, said)
    assert found.value == pytest.approx(value)
    names = np.unique(owner)
    left_out = np.array([balanced(truth[owner != d], said[owner != d]) for d in names])
    n = len(names)
    half = stats.t.ppf(0.975, n - 1) * np.sqrt((n - 1) / n * np.sum((left_out - value) ** 2))
    assert (found.low, found.high) == (pytest.approx(value - half), pytest.approx(value + half))
    # Of 100,000 windows at the base rate: those that it would call active, and those of them that are.
    hits, alarms = 2_000 * said[truth == 1].mean(), 98_000 * said[truth == 0].mean()
    assert found.precision == pytest.approx(hits / (hits + alarms))
    assert found.precision < 0.1 < said[truth == 1].sum() / said.sum(), "half and half flatters"


def test_a_judge_who_never_says_yes_has_an_accuracy_and_no_precision() -> None:
    found = judge(np.arange(20), np.arange(20) % 2, np.zeros(20))
    assert found.value == 0.5 and np.isnan(found.precision)
    assert np.isnan(found.low), "no document changes it: no spread to judge it by"


def test_where_no_base_rate_is_known_there_is_an_accuracy_and_no_precision() -> None:
    judged = Judgements(np.arange(20), np.arange(20) % 4 > 1, np.arange(20) % 2 > 0)
    known, unknown = (score_judgements(judged, base_rate, 0.05) for base_rate in (0.1, None))
    assert known.precision == pytest.approx(0.1) and np.isnan(unknown.precision)
    np.testing.assert_equal(replace(unknown, precision=known.precision), known)


def test_judgements_of_one_kind_of_window_have_no_score() -> None:
    for judged in (np.ones(20), np.zeros(20)):
        assert np.isnan(judge(np.arange(20), judged, judged).value)
    assert np.isnan(judge(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0)).value)


def test_the_interval_of_the_accuracy_covers_as_often_as_it_says() -> None:
    """A judge is better in some documents than in others; its mean accuracy is known."""
    draws = np.random.default_rng(5)
    owner = np.repeat(np.arange(30), 5)
    covered = []
    for _ in range(500):
        skill = draws.choice([0.55, 0.95], 30)[owner]
        truth = draws.integers(0, 2, len(owner))
        found = judge(owner, truth, np.where(draws.random(len(owner)) < skill, truth, 1 - truth))
        covered.append(found.low <= 0.75 <= found.high)
    assert 0.92 <= np.mean(covered) <= 0.985
