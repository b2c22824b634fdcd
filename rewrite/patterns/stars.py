"""One word after several, or several words after one: the best such star among pairs of words.

A star of n pairs costs n words and `more` beside them. Pairs of its centre and strength that are said already, one by
one, move into it and give their words back: each lowers its cost by 1, to n at the least. Of a centre's pairs the best
few are taken, so the star is found by sorting each centre's pairs by gain and adding up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Centre = tuple[int, int, int]
"""A strength, a side (0: the pairs share their word, 1: the word before) and the word on it."""
ROUNDING = 1e-9
"""By so little sums of another order differ, as of the two sides of a star of one pair: no reason to choose."""


@dataclass(frozen=True)
class Star:
    """Some pairs that share a centre, by their numbers, and their gain per word."""

    ratio: float
    cost: int
    centre: Centre
    pairs: Int[np.ndarray, " pair"]


def best_star(
    gains: Float[np.ndarray, "pair strength"],
    words: Int[np.ndarray, "pair 2"],
    said: Mapping[Centre, int],
    more: int,
    left: int,
    least: float,
) -> Star | None:
    """The star of most gain per word that `left` words pay for, if it is above `least`; of equal ones the first by
    centre. `said` counts the pairs of a centre that are said already."""
    strengths = _worth_a_look(gains, {strength for strength, _, _ in said}, more, left, least)
    if not len(strengths):
        return None
    which, pair = np.nonzero(gains[:, strengths].T > 0)
    size = int(words.max()) + 1
    key = np.concatenate([(2 * strengths[which] + side) * size + words[pair, side] for side in (0, 1)])
    gain = np.tile(gains[pair, strengths[which]], 2)
    order = np.lexsort((-gain, key))
    key, gain = key[order], gain[order]
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    sizes = np.diff(first, append=len(key))
    rank = np.arange(1, len(key) + 1) - np.repeat(first, sizes)
    running = np.cumsum(gain)
    running -= np.repeat(running[first] - gain[first], sizes)
    cost = rank + more
    for (strength, side, word), count in said.items():
        begin, end = np.searchsorted(key, (2 * strength + side) * size + word + np.arange(2))
        cost[begin:end] -= count
    ratio = np.where(cost <= left, running / np.maximum(cost, rank), 0)
    best = int(np.argmax(ratio >= ratio.max() * (1 - ROUNDING)))
    if ratio[best] <= least * (1 + ROUNDING):
        return None
    strength, rest = divmod(int(key[best]), 2 * size)
    members = np.tile(pair, 2)[order[best - rank[best] + 1 : best + 1]]
    return Star(float(ratio[best]), int(cost[best]), (strength, *divmod(rest, size)), members)


def _worth_a_look(
    gains: Float[np.ndarray, "pair strength"], said: set[int], more: int, left: int, least: float
) -> Int[np.ndarray, " some"]:
    """Strengths whose stars may be above `least`. No star has more gain per pair than its best pair: where none takes
    pairs over it has n pairs for n + more words, and n is what is left to pay for."""
    most = max(min(left - more, len(gains)), 0)
    share = np.full(gains.shape[1], most / max(most + more, 1))
    share[list(said)] = 1
    strengths: Int[np.ndarray, " some"] = np.flatnonzero(gains.max(0, initial=0) * share > least * (1 - ROUNDING))
    return strengths
