"""Each control against its definition, written out densely; what must agree agrees."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from test_splice import LATENTS, POSITIONS, Case, make_coder

from rewrite.arms.calibrate import LEVELS, Calibrator, Pair, Tally, conditional_mean, identity, linear, quantile, tally
from rewrite.arms.controls import (
    MIXTURES,
    SPLIT,
    Random,
    Shuffled,
    calibrate_firings,
    derange,
    find_threshold,
    fires,
    mean_when_active,
    mix,
)
from rewrite.arms.plan import plan_arms
from rewrite.arms.splice import Arm
from rewrite.run.configs import load_config
from rewrite.stages.evaluate import order_latents

CALIBRATORS = ["identity", "conditional_mean"]


def dense_definitions(case: Case) -> dict[str, np.ndarray]:
    """The mixtures by `np.where`, from nothing but truth, strengths and the calibrator."""
    truth, calibrated = case.truth.toarray(), case.calibrated()
    strengths = case.strengths.toarray()
    every = np.arange(LATENTS)
    rest = case.calibrator.apply(np.zeros(LATENTS, np.float32), every)
    said = strengths > 0 if case.calibrator_name == "identity" else (calibrated > rest) & (strengths >= 0.5)
    active = truth > 0
    when_active = np.array([truth[active[:, i], i].mean() if active[:, i].any() else 0 for i in every])
    maximum = truth.max(0)
    levels = np.rint(9 * truth / np.where(maximum > 0, maximum, 1))
    return {
        "quantised": levels * maximum / 9,
        "true_active": np.where(active, np.where(said, calibrated, when_active), 0),
        "simulated_active": np.where(said, np.where(active, truth, when_active), 0),
        "matched": np.where(active, np.where(said, calibrated, truth), 0),
        "hits": np.where(active & said, calibrated, 0),
    }


class Named(Case):
    def __init__(self, kind: str, calibrator: str) -> None:
        super().__init__(kind, calibrator)
        self.calibrator_name = calibrator


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder", "sae"])
@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_the_mixtures_are_their_definitions(kind: str, calibrator: str) -> None:
    case = Named(kind, calibrator)
    expected = dense_definitions(case)
    assert set(expected) == set(MIXTURES)
    chosen = case.simulated.numpy()
    for name, activations in expected.items():
        mixed = np.where(chosen, activations, case.truth.toarray())
        np.testing.assert_allclose(case.vectors(name), case.decode(mixed), atol=3e-5, err_msg=name)
    different = {name: case.vectors(name) for name in expected}
    assert not np.allclose(different["matched"], different["true_active"], atol=1e-3)


def test_strengths_that_are_the_truth_make_every_mixture_the_coder() -> None:
    case = Case()
    case.simulated[:] = True
    case.strengths = case.truth
    coder = case.vectors("coder")
    for name in ("true_active", "simulated_active", "matched", "hits", "simulated"):
        np.testing.assert_allclose(case.vectors(name), coder, atol=1e-6, err_msg=name)


def test_latents_that_are_not_simulated_keep_the_truth_in_every_mixture() -> None:
    case = Case(calibrator="conditional_mean")
    case.simulated[:] = False
    for name in MIXTURES:
        np.testing.assert_allclose(case.vectors(name), case.vectors("coder"), atol=1e-6)


def test_the_split_goes_from_the_coder_to_the_simulation_without_a_gap() -> None:
    path = [step for _, *step in SPLIT]
    assert path[0][0] == "coder"
    assert path[-1][1] == "simulated"
    assert all(one[1] == other[0] for one, other in pairwise(path))


def fit(strengths: np.ndarray, truth: np.ndarray, scale: float = 9.0) -> Tally:
    pair = Pair(csr_array(truth.astype(np.float32)), csr_array(strengths.astype(np.float32)))
    return tally([pair], truth.shape[1], scale)


def test_what_is_a_firing() -> None:
    rng = np.random.default_rng(0)
    strengths = rng.choice([0, 0.1, 0.4, 1, 5, 9], (4000, 1))
    # 0.1 and 0.4 mean as much as 1, so the isotonic calibrator is flat from one to the other.
    truth = np.where(rng.random((4000, 1)) < np.where(strengths > 0, np.maximum(strengths, 1), 0) / 10, 2.0, 0.0)
    fitted = fit(strengths, truth)
    asked = np.array([0, 0.1, 0.4, 0.5, 1, 5, 9, np.nan], dtype=np.float32)
    for build in (linear, conditional_mean):
        calibrator = build(fitted)
        one = np.zeros(len(asked), dtype=np.int64)
        said = fires(asked, calibrator.apply(asked, one), one, find_threshold(calibrator, 9.0, 1))
        assert said.tolist() == [False, False, False, True, True, True, True, False]
    exact = identity(fitted)
    said = fires(asked, asked, np.zeros(len(asked), dtype=np.int64), find_threshold(exact, 9.0, 1))
    assert said.tolist() == [False, True, True, True, True, True, True, False]


@given(st.integers(0, 2**32 - 1), st.sampled_from([linear, quantile, conditional_mean]), st.sampled_from([1.0, 9.0]))
def test_half_of_1_is_said_at_least_and_whole_strengths_fire_by_their_activations(
    seed: int, build: Callable[[Tally], Calibrator], scale: float
) -> None:
    rng = np.random.default_rng(seed)
    tenths, one = rng.integers(0, 91, 200), np.zeros(200, dtype=np.int64)
    truth = np.where(rng.random(200) < tenths * rng.random() / 90, 2.0, 0.0)
    strengths = (tenths * scale / 90).astype(np.float32)
    calibrator = build(fit(strengths[:, None], truth[:, None], scale))
    activations = calibrator.apply(strengths, one)
    rest, half = calibrator.apply(np.array([0, scale / 18], dtype=np.float32), one[:2])
    said = fires(strengths, activations, one, find_threshold(calibrator, scale, 1))
    np.testing.assert_array_equal(said, (tenths >= 5) & (activations > rest))
    by_activation = (activations > rest) & (activations >= half)
    np.testing.assert_array_equal(said[tenths % 10 == 0], by_activation[tenths % 10 == 0])


def test_what_quantile_normalization_sends_to_zero_is_no_firing() -> None:
    """Half of the positions say 1 and a tenth say 9, but the latent fires at a tenth only."""
    strengths = np.repeat([0, 1, 9], [40, 50, 10])[:, None]
    truth = np.where(strengths == 9, 3.0, 0.0)
    calibrator = quantile(fit(strengths, truth))
    fired = calibrate_firings(csr_array(strengths.astype(np.float32)), calibrator, find_threshold(calibrator, 9.0, 1))
    assert (fired.toarray()[:, 0] > 0).tolist() == (strengths[:, 0] == 9).tolist()


def test_an_explanation_that_means_nothing_never_fires() -> None:
    rng = np.random.default_rng(1)
    truth = np.where(rng.random((5000, 1)) < 0.1, 2.0, 0.0)
    strengths = np.zeros((5000, 1))
    strengths[truth[:, 0] == 0, 0] = rng.choice([0, 5], int((truth == 0).sum()))
    calibrator = conditional_mean(fit(strengths, truth))
    fired = calibrate_firings(csr_array(strengths.astype(np.float32)), calibrator, find_threshold(calibrator, 9.0, 1))
    assert fired.nnz == 0


def test_a_missing_value_fires_nowhere_and_a_silent_latent_has_no_mean() -> None:
    case = Case()
    holed = case.strengths.toarray()
    holed[7, 3] = np.nan
    fired = calibrate_firings(csr_array(holed), case.calibrator, find_threshold(case.calibrator, 9.0, LATENTS))
    assert fired.toarray()[7, 3] == 0
    assert fired.nnz == int((holed > 0).sum())
    silent = fit(np.ones((10, 1)), np.zeros((10, 1)))
    assert mean_when_active(silent).tolist() == [0]


def test_mixing_what_is_not_a_mixture_is_refused() -> None:
    case = Case()
    with pytest.raises(ValueError, match="none of quantised"):
        mix("zero", case.truth, case.truth, case.fitted)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_derangement_moves_every_chosen_latent_and_no_other(count: int) -> None:
    chosen = np.zeros(20, dtype=bool)
    chosen[np.random.default_rng(count).permutation(20)[:count]] = True
    for seed in range(50):
        source = derange(chosen, seed)
        assert (source[chosen] != np.flatnonzero(chosen)).all()
        assert set(source[chosen]) == set(np.flatnonzero(chosen))
        assert (source[~chosen] == np.flatnonzero(~chosen)).all()
        assert (source == derange(chosen, seed)).all()


def test_every_derangement_is_as_likely_as_any_other() -> None:
    """Four latents have nine derangements; 1,800 draws put 200 ± 5 standard errors on each."""
    drawn = [tuple(derange(np.ones(4, dtype=bool), seed)) for seed in range(1800)]
    counts = [drawn.count(one) for one in set(drawn)]
    assert len(counts) == 9
    assert max(abs(count - 200) for count in counts) < 5 * math.sqrt(1800 * (1 / 9) * (8 / 9))


def test_one_latent_has_nobody_elses_explanation() -> None:
    with pytest.raises(ValueError, match="at least two"):
        derange(np.arange(5) == 2, 0)


def test_shuffled_reads_the_column_of_its_source() -> None:
    rng = np.random.default_rng(2)
    dense = (rng.random((30, 6)) * (rng.random((30, 6)) < 0.4)).astype(np.float32)
    dense[3, 2] = np.nan
    source = derange(np.arange(6) != 4, 0)
    strengths = csr_array(dense)
    moved = Shuffled(source).strengths("test-00000", strengths, np.ones(30, dtype=bool))
    np.testing.assert_array_equal(moved.toarray(), dense[:, source])
    np.testing.assert_array_equal(strengths.toarray(), dense, err_msg="the simulator's own strengths were changed")


def test_random_strengths_are_as_dense_and_as_high_as_the_simulators() -> None:
    rng = np.random.default_rng(3)
    values = np.array([0, 1, 3, 9.0])
    shares = np.array([[0.9, 0.05, 0.04, 0.01], [0.5, 0, 0.5, 0], [1, 0, 0, 0]])
    dense = np.stack([rng.choice(values, 20_000, p=share) for share in shares], axis=1)
    fitted = fit(dense, np.where(dense > 0, 1.0, 0.0))
    counted = np.ones(40_000, dtype=bool)
    counted[::2] = False
    drawn = Random(fitted, 0).strengths("test-00000", csr_array((40_000, 3), dtype=np.float32), counted).toarray()
    assert not drawn[~counted].any()
    for latent in range(3):
        found = [np.isclose(drawn[counted, latent], value, atol=1e-5).mean() for value in values]
        observed = [np.isclose(dense[:, latent], value).mean() for value in values]
        assert sum(found) == pytest.approx(1)
        assert found == pytest.approx(observed, abs=5 * math.sqrt(0.25 / 20_000))
    both = (drawn[counted, 0] > 0) & (drawn[counted, 1] > 0)
    assert both.mean() == pytest.approx(0.05, abs=0.01)


def test_random_strengths_are_named_by_seed_and_shard() -> None:
    fitted = fit(np.tile([0.0, 9.0], 50)[:, None], np.ones((100, 1)))
    nothing, counted = csr_array((200, 1), dtype=np.float32), np.ones(200, dtype=bool)

    def draw(seed: int, shard: str) -> np.ndarray:
        return Random(fitted, seed).strengths(shard, nothing, counted).toarray()

    assert (draw(0, "test-00000") == draw(0, "test-00000")).all()
    assert (draw(0, "test-00000") != draw(1, "test-00000")).any()
    assert (draw(0, "test-00000") != draw(0, "test-00001")).any()
    assert set(draw(0, "test-00000").ravel()) == {0.0, 9.0}
    assert LEVELS == 91


def test_a_reader_stands_in_for_the_simulated_latents() -> None:
    case = Case()

    class Doubling:
        def activations(self, context: torch.Tensor) -> torch.Tensor:
            return context[:, -1:].float() * torch.arange(LATENTS)

    case.splicer.readers = {"token_table": Doubling()}
    context = torch.arange(POSITIONS)[:, None].repeat(1, 8)
    written = case.splicer.prepare(case.x, case.output, case.truth, case.strengths, context)
    found = case.splicer.vectors(Arm("token_table"), written, case.simulated).numpy()
    read = np.arange(POSITIONS)[:, None] * np.arange(LATENTS)
    expected = case.decode(np.where(case.simulated.numpy(), read, case.truth.toarray()))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    with pytest.raises(ValueError, match="context"):
        case.splicer.vectors(Arm("token_table"), case.prepare(), case.simulated)


def test_latents_that_are_left_out_are_in_no_share_and_in_no_order() -> None:
    """Half of the latents is half of those that are simulated at all, best first or at random."""
    config = load_config(None, ["evaluate.fractions=[0.5]", "evaluate.random_seeds=3", "evaluate.controls=[]"])
    left_out = np.isin(np.arange(LATENTS), [0, 5, 7, 11])
    best = order_latents(np.linspace(1, 0, LATENTS), ~left_out)
    planned = plan_arms(config, make_coder("transcoder"), best, left_out)
    arms = [arm for arm in planned if arm.arm.name == "simulated"]
    assert len(arms) == 4
    for arm in arms:
        assert arm.simulated is not None
        assert arm.simulated.sum() == (LATENTS - 4) // 2 and not (arm.simulated & left_out).any()


def test_latents_are_ordered_by_score_then_unscored_then_unknown() -> None:
    score = np.array([0.1, np.nan, 0.9, 0.5, np.nan, 0.8])
    known = np.array([True, True, True, True, False, False])
    assert order_latents(score, known).tolist() == [2, 3, 0, 1, 5, 4]
