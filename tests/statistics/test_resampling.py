"""Coins and bootstraps against scipy, against their definitions, and against what they promise to cover."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from scipy import stats as scipy_stats

from rewrite.config import UserError
from rewrite.statistics import paired as stats
from rewrite.statistics import resampling


@dataclass(frozen=True)
class Paired:
    arm: Float[np.ndarray, " document"]
    reference: Float[np.ndarray, " document"]
    tokens: np.ndarray


def paired_example(n: int = 40, seed: int = 3) -> Paired:
    rng = np.random.default_rng(seed)
    tokens = 20 + rng.gamma(1.5, 120, n).astype(np.int64)
    reference = tokens * rng.normal(2, 0.3, n)
    return Paired(reference + tokens * rng.normal(0.02, 0.1, n), reference, tokens)


# --- sign flips ------------------------------------------------------------------------------------------------------


def test_sign_flip_is_scipys_permutation_test_when_exact() -> None:
    example = paired_example(n=10)
    ours = resampling.sign_flip((example.arm - example.reference)[None], example.tokens, 1024, 0)[0]

    def studentised(a: np.ndarray, b: np.ndarray) -> float:
        found = stats.difference(a, b, example.tokens)
        return abs(found.value) / found.se

    theirs = scipy_stats.permutation_test(
        (example.arm, example.reference),
        studentised,
        permutation_type="samples",
        alternative="greater",
        vectorized=False,
        n_resamples=np.inf,
    )
    assert ours == pytest.approx(theirs.pvalue, rel=1e-12)


def test_sign_flip_by_hand() -> None:
    # All eight differences are positive: of 2^8 patterns only all-plus and all-minus reach the observed statistic.
    rows = np.array([[1.0, 2, 3, 4, 5, 6, 7, 8]])
    assert resampling.sign_flip(rows, np.ones(8, dtype=np.int64), 1000, 0)[0] == 2 / 256


def test_sign_flip_by_chance_is_near_the_exact_one() -> None:
    example = paired_example(n=14)
    rows = (example.arm - example.reference)[None]
    exact = resampling.sign_flip(rows, example.tokens, 2**14, 0)[0]
    drawn = resampling.sign_flip(rows, example.tokens, 2**14 - 1, 0)[0]
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 2**14))


def test_sign_flip_is_named_by_its_seed_and_rows_do_not_depend_on_each_other() -> None:
    examples = [paired_example(seed=seed) for seed in (1, 2)]
    rows = np.stack([example.arm - example.reference for example in examples])
    tokens = examples[0].tokens
    together = resampling.sign_flip(rows, tokens, 999, 7)
    alone = [resampling.sign_flip(row[None], tokens, 999, 7)[0] for row in rows]
    assert together.tolist() == alone
    assert together.tolist() != resampling.sign_flip(rows, tokens, 999, 8).tolist()


def test_sign_flip_in_pieces_is_the_same_test(monkeypatch: pytest.MonkeyPatch) -> None:
    example = paired_example(n=10)
    rows = (example.arm - example.reference)[None]
    whole = resampling.sign_flip(rows, example.tokens, 1024, 0)
    monkeypatch.setattr(resampling, "DRAWS_AT_ONCE", 70)
    assert resampling.sign_flip(rows, example.tokens, 1024, 0).tolist() == whole.tolist()


def test_sign_flip_of_identical_arms_is_1() -> None:
    example = paired_example()
    rows = np.stack([np.zeros_like(example.arm), example.arm - example.reference])
    found = resampling.sign_flip(rows, example.tokens, 999, 0)
    assert found[0] == 1.0
    assert found[1] < 1.0


# --- bootstrap -------------------------------------------------------------------------------------------------------


def test_bootstrap_t_by_its_definition() -> None:
    """Draw, estimate with `stats.difference`, studentise, sort, and turn the 25th and the 975th of 999 round."""
    example = paired_example(20)
    whole = stats.difference(example.arm, example.reference, example.tokens)
    rows = np.random.default_rng(11).integers(0, 20, (999, 20))
    again = [stats.difference(example.arm[i], example.reference[i], example.tokens[i]) for i in rows]
    moved = sorted((one.value - whole.value) / one.se for one in again)
    found = resampling.bootstrap_t(example.arm - example.reference, example.tokens, 0.05, 999, 11)
    assert found is not None
    ends = [whole.value - moved[974] * whole.se, whole.value - moved[24] * whole.se]
    assert [found.low, found.high] == pytest.approx(ends, rel=1e-9)


def test_bootstrap_is_named_by_its_seed_and_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    example = paired_example()
    nats = example.arm - example.reference
    whole = resampling.bootstrap_t(nats, example.tokens, 0.05, 999, 0)
    assert resampling.bootstrap_t(nats, example.tokens, 0.05, 999, 1) != whole
    monkeypatch.setattr(resampling, "DRAWS_AT_ONCE", 300)
    assert resampling.bootstrap_t(nats, example.tokens, 0.05, 999, 0) == whole


def test_many_normal_documents_give_students_interval() -> None:
    rng = np.random.default_rng(8)
    nats, tokens = 100 * rng.normal(0.1, 1, 2000), np.full(2000, 100)
    student = stats.estimate(nats, tokens).interval(0.05)
    found = resampling.bootstrap_t(nats, tokens, 0.05, 9999, 0)
    assert found is not None
    assert [found.low, found.high] == pytest.approx([student.low, student.high], abs=0.003)  # se .022


def test_bootstrap_t_covers_a_skewed_mean_better_than_student() -> None:
    rng = np.random.default_rng(9)
    tokens = np.full(40, 100)
    covered = {"student": 0, "bootstrap-t": 0}
    for repeat in range(600):
        nats = 100 * (rng.lognormal(0, 1, 40) - np.exp(0.5))
        found = resampling.bootstrap_t(nats, tokens, 0.05, 499, repeat)
        assert found is not None
        covered["bootstrap-t"] += 0.0 in found
        covered["student"] += 0.0 in stats.estimate(nats, tokens).interval(0.05)
    assert covered["student"] < 0.92 * 600
    assert covered["bootstrap-t"] > covered["student"] + 10


def test_bootstrap_of_identical_arms_is_a_point() -> None:
    example = paired_example()
    assert resampling.bootstrap_t(np.zeros(40), example.tokens, 0.05, 999, 0) == stats.Interval(0.0, 0.0)


def test_one_document_that_differs_gives_no_bounded_bootstrap_t() -> None:
    """Resamples without it show no spread: (1 - 1/n)^n, a third of them."""
    nats = np.zeros(20)
    nats[3] = 5.0
    found = resampling.bootstrap_t(nats, np.full(20, 10), 0.05, 999, 0)
    assert found is None


def test_bootstrap_refuses_too_few_documents() -> None:
    with pytest.raises(UserError, match="8 are needed"):
        resampling.bootstrap_t(np.arange(5.0), np.full(5, 9), 0.05, 999, 0)


# --- caution ---------------------------------------------------------------------------------------------------------


def test_caution_says_how_many_documents_it_takes() -> None:
    # 9 of 10 documents at -1 and one at 9, three times over: skewness (.9 · -1 + .1 · 9³) / 9^1.5 = 72 / 27 = 2.667,
    # over the limits .1 · √30 = .55 and 2 · √(6 / 30) = .89; (2.667 / .1)² = 711.1.
    nats = np.tile([-1.0] * 9 + [9.0], 3)
    said = resampling.caution(nats, np.ones(30, dtype=np.int64))
    assert "these 30 documents are skewed (skewness +2.7)" in said
    assert "bootstrap-t" in said
    assert "712 documents" in said
    assert "-2.7" in resampling.caution(-nats, np.ones(30, dtype=np.int64))
    assert resampling.caution(np.tile(nats, 24), np.ones(720, dtype=np.int64)) == ""


def test_caution_is_silent_where_the_test_is_sound() -> None:
    rng = np.random.default_rng(2)
    tokens = np.full(30, 50)
    warned = [resampling.caution(rng.normal(size=30), tokens) != "" for _ in range(500)]
    assert np.mean(warned) < 0.08  # 5%, and 3 standard errors
    assert resampling.caution(np.zeros(30), tokens) == ""


def test_caution_sees_a_long_document() -> None:
    """Equal means but for noise, and one document a hundred times as long: its noise decides alone."""
    rng = np.random.default_rng(3)
    tokens = np.where(np.arange(30) == 0, 5000, 50)
    nats = tokens * np.where(np.arange(30) == 0, 1.0, rng.normal(size=30))
    assert resampling.caution(nats / tokens, np.full(30, 50)) == ""
    assert "skewed" in resampling.caution(nats, tokens)


# --- no warning reaches a user ---------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, -1.0, 1.0, 1e-12, 3.5, 1e9, -2e5]), min_size=8, max_size=14),
    tokens=st.lists(st.sampled_from([1, 2, 100, 10**6]), min_size=14, max_size=14),
)
def test_no_warning_whatever_the_losses(values: list[float], tokens: list[int]) -> None:
    nats, lengths = np.array(values), np.array(tokens[: len(values)])
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        try:
            found = stats.estimate(nats, lengths)
        except UserError:
            return
        assert 0 <= found.p_value() <= 1
        assert 0 <= found.p_equivalence(0.1) <= 1
        assert found.detectable(0.05) >= 0
        resampling.caution(nats, lengths)
        resampling.sign_flip(nats[None], lengths, 99, 0)
        stats.recovered(nats, np.abs(nats), np.zeros(len(nats)), lengths, 0.05)
        interval = resampling.bootstrap_t(nats, lengths, 0.05, 99, 0)
        assert interval is None or (np.isfinite([interval.low, interval.high]).all() and interval.low <= interval.high)
