"""The best star of pairs of words against every star there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewrite.patterns.stars import Centre, best_star

STRENGTHS, WORDS = 4, 4


def every_star(
    gains: np.ndarray, words: np.ndarray, said: dict[Centre, int], more: int, left: int
) -> dict[tuple[Centre, int], float]:
    """Gain per word of the best n pairs of each centre that can be paid for, one by one."""
    found = {}
    for strength in range(gains.shape[1]):
        for side in (0, 1):
            for word in set(words[:, side].tolist()):
                centre = (strength, side, word)
                own = sorted((g for g in gains[words[:, side] == word, strength].tolist() if g > 0), reverse=True)
                for n in range(1, len(own) + 1):
                    cost = n + more - said.get(centre, 0)
                    if cost <= left:
                        found[centre, n] = sum(own[:n]) / max(cost, n)
    return found


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 9),
    more=st.integers(1, 4),
    left=st.integers(0, 9),
    least=st.sampled_from([1e-9, 0.2, 0.5]),
    counts=st.lists(st.integers(1, 5), max_size=3),
)
def test_it_is_the_best_of_all_that_can_be_paid_for(
    seed: int, count: int, more: int, left: int, least: float, counts: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    gains = rng.random((count, STRENGTHS)) - 0.3
    words = rng.integers(0, WORDS, (count, 2))
    said = {
        (int(rng.integers(STRENGTHS)), side, int(rng.choice(words[:, side]))): number
        for side, number in zip((0, 1, 0), counts, strict=False)
    }
    stars = every_star(gains, words, said, more, left)
    best = max(stars.values(), default=0.0)
    found = best_star(gains, words, said, more, left, least)
    if best <= least:
        assert found is None
        return
    assert found is not None
    assert found.ratio == pytest.approx(best)
    strength, side, word = found.centre
    assert stars[found.centre, len(found.pairs)] == pytest.approx(best)
    assert set(words[found.pairs, side].tolist()) == {word}
    assert gains[found.pairs, strength].sum() / max(found.cost, len(found.pairs)) == pytest.approx(best)
    assert found.cost == len(found.pairs) + more - said.get(found.centre, 0) <= left


def test_what_is_only_as_good_is_not_better() -> None:
    """A single pair at 2 words and a star of it, one word of whose cost is given back, are one gain."""
    gains, words = np.array([[1.0]]), np.array([[0, 1]])
    assert best_star(gains, words, {(0, 0, 0): 1}, 2, 9, 0.5) is None
    assert best_star(gains, words, {(0, 0, 0): 1}, 2, 9, 0.4999) is not None
