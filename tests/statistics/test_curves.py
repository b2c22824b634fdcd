"""The calibration that a run keeps: counted as its definition says, and the same after it was written and read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from makers.small import small_config
from scipy.sparse import csr_array

from rewrite.arms.batches import fit
from rewrite.arms.calibrate import Calibrator, Pair, Tally, conditional_mean, identity, linear, tally
from rewrite.arms.controls import find_threshold
from rewrite.coder.activations import ActivationStore
from rewrite.config import UserError
from rewrite.run.arrays import load_arrays, save_arrays
from rewrite.run.files import read_json
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.stages import STAGES
from rewrite.statistics.curves import Curves, Reliability, load_curves, measure, pool, save_curves
from rewrite.text.corpus import SPLITS

LATENTS = 6
KNOWN = np.arange(LATENTS) != 4


def draw_pair(seed: int, positions: int = 300, missing: float = 0.1) -> Pair:
    """Sparse truth, and strengths from 0 to 9 that follow it badly; some are missing, some zeros are stored."""
    draws = np.random.default_rng(seed)
    truth = np.where(draws.random((positions, LATENTS)) < 0.3, draws.gamma(2, size=(positions, LATENTS)), 0)
    strengths = np.clip(2 * truth + draws.normal(size=truth.shape), 0, 9) * (draws.random(truth.shape) < 0.7)
    stored = csr_array(np.where(strengths > 0, strengths, 0.0).astype(np.float32))
    stored.data[draws.random(len(stored.data)) < 0.1] = 0
    stored.data[draws.random(len(stored.data)) < missing] = np.nan
    return Pair(csr_array(truth.astype(np.float32)), stored)


def measure_plainly(pairs: list[Pair], calibrator: Calibrator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position by position, from the definition."""
    count, truth, predicted = np.zeros((3, LATENTS, 10))
    for pair in pairs:
        for (_, latent), strength in np.ndenumerate(pair.strengths.toarray()):
            if KNOWN[latent] and not np.isnan(strength):
                group = int(np.floor(np.rint(strength / 9 * 90) / 10 + 0.5))
                count[latent, group] += 1
                predicted[latent, group] += calibrator.apply(np.array([strength]), np.array([latent]))[0]
        for (row, latent), active in np.ndenumerate(pair.truth.toarray()):
            strength = pair.strengths.toarray()[row, latent] if active else np.nan
            if KNOWN[latent] and not np.isnan(strength):
                truth[latent, int(np.floor(np.rint(strength / 9 * 90) / 10 + 0.5))] += active
    return count, truth, predicted


@pytest.mark.parametrize("make", [linear, conditional_mean])
def test_groups_are_counted_as_they_are_defined(make: Callable[[Tally], Calibrator]) -> None:
    pairs = [draw_pair(0, 60), draw_pair(1, 40)]
    calibrator = make(tally(pairs, LATENTS, 9.0))
    measured = measure(pairs, calibrator, 9.0, KNOWN)
    for found, expected in zip(vars(measured.test).values(), measure_plainly(pairs, calibrator), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    lost = sum(np.isnan(pair.strengths.toarray()).sum(0) for pair in pairs)
    assert measured.positions == 100 and (lost > 0).all()
    np.testing.assert_allclose(measured.missing_shares, np.where(KNOWN, lost / 100, 1.0))


def test_where_and_how_entries_are_stored_does_not_matter() -> None:
    pair = draw_pair(2)
    calibrator = linear(tally([pair], LATENTS, 9.0))
    order = np.concatenate([np.arange(a, b)[::-1] for a, b in pairwise(pair.strengths.indptr)])
    turned = csr_array(
        (pair.strengths.data[order], pair.strengths.indices[order], pair.strengths.indptr), shape=pair.strengths.shape
    )
    halves = [Pair(pair.truth[part], turned[part]) for part in (slice(0, 17), slice(17, 300), slice(0, 0))]
    whole, split = measure([pair], calibrator, 9.0, KNOWN), measure(halves, calibrator, 9.0, KNOWN)
    for a, b in zip(vars(whole.test).values(), vars(split.test).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_oracle_lies_on_the_diagonal() -> None:
    truth = draw_pair(3).truth
    test = measure([Pair(truth, truth)], identity(tally([Pair(truth, truth)], LATENTS, 9.0)), 9.0, KNOWN).test
    np.testing.assert_allclose(test.truth, test.predicted, rtol=1e-6)
    assert test.count.sum() == 300 * KNOWN.sum() and (test.count[KNOWN].sum(0)[:5] > 0).all()


def test_the_conditional_mean_holds_where_it_was_fitted_on_much() -> None:
    pair = draw_pair(4, positions=20_000, missing=0.0)
    calibrator = conditional_mean(tally([pair], LATENTS, 9.0))
    test = measure([pair], calibrator, 9.0, KNOWN).test
    often = test.count > 500
    often[:, :2] = False  # 0 is said at random here, and the curve may not fall from there
    assert often.sum() > 10
    np.testing.assert_allclose(
        (test.truth / test.count.clip(1))[often], (test.predicted / test.count.clip(1))[often], atol=0.05
    )


@pytest.mark.parametrize("make", [identity, conditional_mean])
def test_what_is_saved_is_read_again(make: Callable[[Tally], Calibrator], tmp_path: Path) -> None:
    pair = draw_pair(5)
    fitted = tally([pair], LATENTS, 9.0)
    calibrator = make(fitted)
    test = measure([pair], calibrator, 9.0, KNOWN).test
    curves = Curves(9.0, calibrator, find_threshold(calibrator, 9.0, LATENTS), fitted.mean, test)
    save_curves(tmp_path / "c", curves)
    again = load_curves(tmp_path / "c")
    every = np.tile(np.linspace(0, 9, 50, dtype=np.float32), LATENTS), np.repeat(np.arange(LATENTS), 50)
    np.testing.assert_array_equal(again.calibrator.apply(*every), calibrator.apply(*every))
    for one in ("threshold", "test"):
        for a, b in zip(vars(getattr(again, one)).values(), vars(getattr(curves, one)).values(), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(again.mean, curves.mean)
    assert again.scale == 9.0 and type(again.calibrator) is type(calibrator)


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    def refused() -> str:
        with pytest.raises(UserError, match=r"c\.safetensors") as caught:
            load_curves(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path, pair = tmp_path / "c.safetensors", draw_pair(6)
    assert "not readable" in refused()
    path.write_bytes(b"{}")
    assert "not readable" in refused()
    fitted = tally([pair], LATENTS, 9.0)
    test = measure([pair], linear(fitted), 9.0, KNOWN).test
    save_curves(path, Curves(9.0, linear(fitted), find_threshold(linear(fitted), 9.0, LATENTS), fitted.mean, test))
    arrays = load_arrays(path)
    for name in arrays:
        save_arrays(path, {other: array for other, array in arrays.items() if other != name})
        assert "delete it to compute it again" in refused()
    save_arrays(path, arrays | {"truth": arrays["truth"][:, :9]})
    assert "truth is (6, 9), not (6, 10)" in refused()


def test_a_run_keeps_the_calibrator_that_it_scored_with(small_run: Path) -> None:
    config, store = small_config(), ActivationStore(small_run / "2_activations", SPLITS)
    simulations = Simulations(small_run / "4_simulations", store.latents)
    curves, fitted = load_curves(small_run / "5_calibration.safetensors"), fit(config, store.calibrate, simulations)
    every = np.tile(np.linspace(0, 9, 91, dtype=np.float32), store.latents), np.repeat(np.arange(store.latents), 91)
    np.testing.assert_array_equal(curves.calibrator.apply(*every), fitted.calibrator.apply(*every))
    positions = sum(simulations.show(name, store.test.load(name).text).counted().sum() for name in store.test.shards)
    assert (curves.test.count.sum(1) == positions).all() and curves.test.truth.sum() > 0


def test_latents_are_pooled_in_units_of_their_maxima() -> None:
    none = np.zeros((2, 10))
    count, truth, predicted = none.astype(np.int64), none.copy(), none.copy()
    count[:, 3], truth[:, 3], predicted[:, 3] = (4, 6), (8, 3), (4, 12)
    rows = pool(Reliability(count, truth, predicted), np.array([2.0, 1.0]))
    assert rows[3] == {"strength": 3, "predictions": 10, "predicted": (4 / 2 + 12) / 10, "true": (8 / 2 + 3) / 10}
    assert rows[0] == {"strength": 0, "predictions": 0, "predicted": None, "true": None} and len(rows) == 10
    assert pool(Reliability(count, truth, predicted), np.array([2.0, 0.0]))[3]["true"] == (8 / 2) / 4


def test_the_oracle_of_a_real_run_lies_on_the_diagonal(small_run: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    with Run(tmp_path / "r", "test") as run:
        go(STAGES, small_config("simulator=oracle", "calibrator=identity"), run, "analyse", lambda line: None)
    rows = read_json(tmp_path / "r" / "6_stats.json")["calibration"]
    assert sum(row["predictions"] > 0 for row in rows) > 5
    for row in rows:
        assert row["true"] == (None if row["predicted"] is None else pytest.approx(row["predicted"], rel=1e-4))
