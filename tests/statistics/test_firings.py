"""Base rates against counting position by position."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csr_array

from rewrite.arms.calibrate import Pair, conditional_mean, tally
from rewrite.arms.controls import find_threshold, fires
from rewrite.statistics.firings import NAMES, Firings, count_firings, pool, rate_latents, rates, rows_of_rates

LATENTS, DOCUMENTS = 7, 10


def make_pairs(unknown: float = 0.03) -> list[Pair]:
    """Documents of different lengths; strengths that follow the truth badly, some of them missing."""
    draws = np.random.default_rng(0)
    pairs = []
    for document in range(DOCUMENTS):
        shape = (30 + 5 * document, LATENTS)
        truth = draws.exponential(2, shape) * (draws.random(shape) < np.linspace(0, 0.4, LATENTS))
        strengths = np.clip(np.rint(2 * truth), 0, 9) * (draws.random(shape) < 0.8)
        strengths = np.where(draws.random(shape) < 0.1, draws.integers(1, 9, shape), strengths)
        strengths = np.where(draws.random(shape) < unknown, np.nan, strengths)
        pairs.append(Pair(csr_array(truth.astype(np.float32)), csr_array(strengths.astype(np.float32))))
    return pairs


def count(pairs: list[Pair], counted: np.ndarray) -> Firings:
    calibrator = conditional_mean(tally(pairs, LATENTS, 9.0))
    return count_firings(pairs, calibrator, find_threshold(calibrator, 9.0, LATENTS), counted)


def brute_force(pairs: list[Pair], latent: int, document: int) -> tuple[int, int, int, int]:
    """Known positions, true firings, hits, false firings of one latent in one document, one position at a time."""
    calibrator = conditional_mean(tally(pairs, LATENTS, 9.0))
    threshold = find_threshold(calibrator, 9.0, LATENTS)
    known = true = hits = false = 0
    truths, strengths = pairs[document].truth.toarray(), pairs[document].strengths.toarray()
    for truth, strength in zip(truths[:, latent], strengths[:, latent], strict=True):
        if np.isnan(strength):
            continue
        activation = calibrator.apply(np.array([strength], dtype=np.float32), np.array([latent]))
        said = bool(fires(np.array([strength]), activation, np.array([latent]), threshold)[0])
        known, true = known + 1, true + bool(truth > 0)
        hits, false = hits + bool(said and truth > 0), false + bool(said and truth <= 0)
    return known, true, hits, false


def test_counts_are_those_of_one_position_at_a_time() -> None:
    pairs, counted = make_pairs(), np.arange(LATENTS) != 2
    firings = count(pairs, counted)
    table = np.array([[brute_force(pairs, i, d) for i in range(LATENTS)] for d in range(DOCUMENTS)])
    np.testing.assert_array_equal(np.stack(list(vars(firings.latents).values()), axis=1), table.sum(0))
    own = np.stack(list(vars(firings.documents).values()), axis=1)
    np.testing.assert_array_equal(own, table[:, counted].sum(1))
    assert table[..., 2].sum() > 50 and table[..., 3].sum() > 50  # there are hits and false firings to count


def test_rates_of_a_table_done_by_hand() -> None:
    found = rates(np.array([[1000.0], [20.0], [15.0], [35.0]]))
    assert found["false_per_token"] == 35 / 1000 and found["missed_per_token"] == 5 / 1000
    assert found["precision"] == 15 / 50 and found["recall"] == 15 / 20
    assert found["specificity"] == pytest.approx(1 - 35 / 980)


def test_at_the_needed_specificity_half_of_the_firings_are_true() -> None:
    firings = count(make_pairs(), np.ones(LATENTS, dtype=bool))
    needed = rate_latents(firings)["needed_specificity"]
    counts = firings.latents
    false = (1 - needed) * (counts.known - counts.true)
    found = rates(np.stack([counts.known, counts.true, counts.hits, false]))["precision"]
    np.testing.assert_allclose(found[counts.hits > 0], 0.5)


def test_what_is_undefined_is_missing() -> None:
    silent = rates(np.array([[100.0], [0.0], [0.0], [0.0]]))
    assert np.isnan(silent["precision"]) and np.isnan(silent["recall"]) and silent["specificity"] == 1
    nobody = rates(np.zeros((4, 1)))
    assert all(np.isnan(value) for value in nobody.values())


def test_pooled_rates_leave_out_one_document_at_a_time() -> None:
    counted = np.arange(LATENTS) != 2
    firings = count(make_pairs(), counted)
    found = pool(firings, 0.1)
    own = np.stack(list(vars(firings.documents).values()), axis=1)
    whole = own.sum(0)
    precision = whole[2] / (whole[2] + whole[3])
    left = np.array([(whole - d)[2] / ((whole - d)[2] + (whole - d)[3]) for d in own])
    half = stats.t.isf(0.05, DOCUMENTS - 1) * np.sqrt((DOCUMENTS - 1) / DOCUMENTS * ((left - precision) ** 2).sum())
    assert found["precision"]["value"] == pytest.approx(precision, rel=1e-12)
    np.testing.assert_allclose(found["precision"]["ci"], [precision - half, precision + half], rtol=1e-9)
    assert found["latents"] == 6 and found["false"] == whole[3]
    # With nothing missing, firings per token are firings over tokens.
    complete = make_pairs(unknown=0)
    per_token = pool(count(complete, counted), 0.1)
    tokens = sum(pair.truth.shape[0] for pair in complete)
    assert per_token["positions"] == tokens
    assert per_token["false_per_token"]["value"] == pytest.approx(per_token["false"] / tokens)


def test_few_documents_have_rates_and_no_interval() -> None:
    found = pool(count(make_pairs()[:5], np.ones(LATENTS, dtype=bool)), 0.05)
    assert 0 < found["recall"]["value"] < 1 and found["recall"]["ci"] is None


def test_a_perfect_simulation_has_no_false_and_no_missed_firings() -> None:
    draws = np.random.default_rng(1)
    truth = csr_array((9.0 * (draws.random((400, LATENTS)) < 0.1)).astype(np.float32))
    found = pool(count([Pair(truth, truth)], np.ones(LATENTS, dtype=bool)), 0.05)
    assert found["precision"]["value"] == found["recall"]["value"] == found["specificity"]["value"] == 1
    assert found["false"] == found["false_per_token"]["value"] == 0


def test_rows_for_the_report_name_every_rate() -> None:
    rows = rows_of_rates(pool(count(make_pairs(), np.ones(LATENTS, dtype=bool)), 0.05))
    assert [row["name"] for row in rows] == list(NAMES.values())
    assert all(row["ci"][0] < row["value"] < row["ci"][1] for row in rows)


def test_a_document_without_a_hit_or_without_any_strength_is_counted() -> None:
    pairs = make_pairs()
    silent = csr_array((30, LATENTS), dtype=np.float32)
    pairs += [Pair(pairs[0].truth, silent), Pair(silent, pairs[0].strengths), Pair(silent, silent)]
    firings = count(pairs, np.ones(LATENTS, dtype=bool))
    assert firings.documents.hits[-3:].tolist() == [0, 0, 0]
    assert firings.documents.true[-3] == pairs[0].truth.nnz and firings.documents.true[-1] == 0
