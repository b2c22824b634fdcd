"""Exemplars are what their definition says, window by window, whatever the corpus looks like."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array

from rewrite.coder.evidence import Evidence
from rewrite.explainers.exemplars import Firings, Windows, by_maximum, by_quantile
from rewrite.text.windows import Text

VOCABULARY = ("", " the", " a", " king", " queen", "s", ".", "\n", "x")
SEEDS = st.integers(0, 10_000)


def make(seed: int, corpus: int = 12, longest: int = 20, latents: int = 3, share: float = 0.15) -> Evidence:
    """Corpus windows of random lengths and sparse activations that tie now and then."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, corpus)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(1, len(VOCABULARY), starts[-1])
    ids[starts[:-1]] = 0
    text = Text(ids, starts, VOCABULARY)
    active = rng.integers(1, 30, (len(ids), latents)) / 10 * (rng.random((len(ids), latents)) < share)
    active[~text.counted()] = 0
    return Evidence(text, csc_array(active.astype(np.float32)))


@dataclass(frozen=True)
class Plain:
    """A window by the definition: positions of the text, one by one."""

    positions: list[int]
    live: bool


def cut(text: Text, length: int) -> list[Plain]:
    counted = text.counted()
    found = []
    for begin, end in zip(text.starts[:-1], text.starts[1:], strict=True):
        for at in range(begin, end, length):
            positions = list(range(at, min(at + length, end)))
            found.append(Plain(positions, any(counted[positions])))
    return found


def order_of(evidence: Evidence, latent: int, length: int) -> list[tuple[int, float]]:
    """The windows in which a latent fires with their maxima, strongest first."""
    dense = evidence.activations.toarray()[:, latent]
    maxima = [(number, max(dense[w.positions])) for number, w in enumerate(cut(evidence.text, length))]
    return sorted(((n, m) for n, m in maxima if m > 0), key=lambda pair: (-pair[1], pair[0]))


@given(SEEDS, st.integers(1, 25))
@settings(max_examples=50)
def test_windows_are_cut_and_shown_as_they_stand(seed: int, length: int) -> None:
    evidence = make(seed)
    windows, plain = Windows(evidence, length), cut(evidence.text, length)
    dense = evidence.activations.toarray()
    assert len(windows) == len(plain)
    for number, one in enumerate(plain):
        for latent in range(3):
            shown = windows.show(latent, number)
            assert shown.tokens == tuple(VOCABULARY[evidence.text.ids[p]] for p in one.positions)
            assert shown.activations.tolist() == dense[one.positions, latent].tolist()


@given(SEEDS, st.integers(2, 25))
@settings(max_examples=50)
def test_firings_are_ordered_by_their_maximum(seed: int, length: int) -> None:
    evidence = make(seed)
    windows = Windows(evidence, length)
    for latent in range(3):
        firings = windows.firings(latent)
        pairs = list(zip(firings.windows.tolist(), firings.maxima.tolist(), strict=True))
        assert pairs == order_of(evidence, latent, length)
        assert firings.maximum == max((m for _, m in pairs), default=0)
        assert by_maximum(firings, 3).tolist() == [n for n, _ in pairs[:3]]


def test_the_order_of_entries_and_stored_zeros_change_nothing() -> None:
    text = Text(np.array([0, 1, 2, 0, 3, 4]), np.array([0, 3, 6]), VOCABULARY)
    shuffled = csc_array((np.array([2.0, 0.0, 1.0], "f4"), np.array([5, 4, 1]), np.array([0, 3])), shape=(6, 1))
    windows = Windows(Evidence(text, shuffled), 3)
    firings = windows.firings(0)
    assert firings.windows.tolist() == [1, 0] and firings.maxima.tolist() == [2.0, 1.0]
    assert windows.show(0, 1).activations.tolist() == [0.0, 0.0, 2.0]
    assert shuffled.indices.tolist() == [5, 4, 1], "the evidence itself is left as it was"


def test_a_latent_that_fires_only_by_stored_zeros_never_fires() -> None:
    text = Text(np.array([0, 1]), np.array([0, 2]), VOCABULARY)
    zero = csc_array((np.zeros(1, "f4"), np.array([1]), np.array([0, 1])), shape=(2, 1))
    firings = Windows(Evidence(text, zero), 4).firings(0)
    assert len(firings.windows) == 0 and firings.maximum == 0


def firings_of(count: int) -> Firings:
    return Firings(np.arange(100, 100 + count), np.linspace(9, 1, count).astype(np.float32))


@given(st.integers(1, 300), st.integers(1, 50), st.integers(1, 12), SEEDS)
def test_as_many_are_drawn_from_each_quantile(found: int, count: int, quantiles: int, seed: int) -> None:
    firings = firings_of(found)
    chosen = by_quantile(firings, count, quantiles, seed, 0).tolist()
    assert len(chosen) == len(set(chosen)) == min(count, found)
    assert chosen == sorted(chosen), "strongest first, as the numbers run here"
    if found <= count:
        return
    parts = np.array_split(firings.windows, min(quantiles, count))
    drawn = [len(set(part.tolist()) & set(chosen)) for part in parts]
    assert max(drawn) - min(drawn) <= 1 and drawn == sorted(drawn, reverse=True)


def test_the_papers_windows_are_four_of_each_tenth() -> None:
    chosen = by_quantile(firings_of(1000), 40, 10, 0, 7)
    assert np.bincount((chosen - 100) // 100).tolist() == [4] * 10


def test_a_draw_is_named_by_seed_and_latent() -> None:
    draws = {
        (seed, latent): by_quantile(firings_of(200), 20, 10, seed, latent).tolist()
        for seed in (0, 1)
        for latent in (0, 1)
    }
    assert draws[0, 0] == by_quantile(firings_of(200), 20, 10, 0, 0).tolist()
    assert len({tuple(draw) for draw in draws.values()}) == 4


def test_every_window_is_drawn_as_often_as_any_other() -> None:
    drawn = Counter(w for latent in range(2000) for w in by_quantile(firings_of(30), 10, 5, 0, latent).tolist())
    # Each of 30 windows is one of 2 drawn from 6: 667 expected, standard deviation 21.
    assert set(drawn) == set(range(100, 130)) and all(560 < times < 775 for times in drawn.values())


def likeness(evidence: Evidence, length: int) -> np.ndarray:
    """Cosines of weighted bags, from counting."""
    plain = cut(evidence.text, length)
    bags = [Counter(evidence.text.ids[w.positions].tolist()) for w in plain]
    having = Counter(token for bag in bags for token in bag)
    weighted = [{t: c * (log((1 + len(bags)) / (1 + having[t])) + 1) for t, c in bag.items()} for bag in bags]
    norms = [sqrt(sum(v * v for v in bag.values())) for bag in weighted]
    return np.array(
        [
            [sum(a.get(t, 0) * v for t, v in b.items()) / (m * n) for b, n in zip(weighted, norms, strict=True)]
            for a, m in zip(weighted, norms, strict=True)
        ]
    )


@given(SEEDS, st.integers(0, 12))
@settings(max_examples=50, deadline=None)
def test_the_nearest_silent_window_stands_beside_each(seed: int, count: int) -> None:
    evidence, length = make(seed, corpus=15), 6
    windows, plain, alike = Windows(evidence, length), cut(evidence.text, length), likeness(evidence, length)
    firings = windows.firings(0)
    shown = by_quantile(firings, 8, 4, 0, 0)
    free = {n for n, w in enumerate(plain) if w.live} - set(firings.windows.tolist())
    expected = []
    for model in shown.tolist()[:count]:
        if free:
            expected.append(min(free, key=lambda n: (-round(alike[model, n], 9), n)))
            free.remove(expected[-1])
    assert windows.beside(firings, shown, count).tolist() == expected


def test_where_all_windows_fire_none_is_silent() -> None:
    text = Text(np.array([0, 1, 2, 0]), np.array([0, 3, 4]), VOCABULARY)
    windows = Windows(Evidence(text, csc_array(np.array([[0], [1], [1], [0]], "f4"))), 3)
    firings = windows.firings(0)
    assert len(windows) == 2 and firings.windows.tolist() == [0], "the other window is only context"
    assert len(windows.beside(firings, firings.windows, 1)) == 0


@pytest.mark.parametrize("length", [8, 32])
def test_latents_are_chosen_for_alike_alone_and_among_others(length: int) -> None:
    evidence = make(3, corpus=40, latents=6, share=0.3)
    together = Windows(evidence, length)
    for latent in (5, 0, 3):
        alone = Windows(evidence, length)
        a, b = together.firings(latent), alone.firings(latent)
        first, second = by_quantile(a, 6, 3, 1, latent), by_quantile(b, 6, 3, 1, latent)
        assert first.tolist() == second.tolist()
        assert together.beside(a, first, 6).tolist() == alone.beside(b, second, 6).tolist()
