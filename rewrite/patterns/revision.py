"""A second look at what is said of a latent: strengths that cost nothing to change, and words not worth their place.

A greedy choice is made before it is known what else will be said. So, once the budget is spent:

1. For each cell it is found out who speaks there, as the simulator will: the highest precedence, then the strongest;
   and who would if that one were silent.
2. A candidate moves to the strength, among those that its group has rules for already, that fits the cells where it
   speaks; a cross, which has a rule of its own, to any.
3. What removes less squared error per word than the last choice made is left out. The words go back to the budget.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from rewrite.patterns.candidates import TOP, Catalogue, Cross, Single


def revise(
    catalogue: Catalogue,
    said: list[Single | Cross],
    activation: Float[np.ndarray, " cell"],
    levels: Float[np.ndarray, " strength"],
    worth: float,
) -> list[Single | Cross]:
    """What is kept of `said`, at its new strength. `levels` are the activations that the strengths stand for, and
    `worth` is the squared error that a word should remove."""
    if not said:
        return []
    covered = [catalogue.cells_of(s.candidate) if isinstance(s, Single) else catalogue.cells_at(s) for s in said]
    precedence = np.array(
        [catalogue.precedence[s.candidate] if isinstance(s, Single) else catalogue.pair_precedence for s in said]
    )
    strength = np.array([s.strength for s in said])
    cells, speaker = np.concatenate(covered), np.repeat(np.arange(len(said)), [len(c) for c in covered])
    order = np.lexsort(((precedence * (TOP + 1) + strength)[speaker], cells))
    cells, speaker = cells[order], speaker[order]
    heard = np.flatnonzero(np.append(cells[1:] != cells[:-1], True))
    second = np.append(False, cells[1:] == cells[:-1])[heard]
    count, total = catalogue.count[cells[heard]], activation[cells[heard]]
    size = len(said)
    counts, totals = (np.bincount(speaker[heard], x, size) for x in (count, total))
    strength = _refit(catalogue, said, counts, totals, levels, precedence)
    now = levels[strength[speaker[heard]]]
    without = np.where(second, levels[strength[speaker[heard - 1]]], 0.0)
    saved = np.bincount(speaker[heard], (count * without - 2 * total) * without - (count * now - 2 * total) * now, size)
    words = np.array([max(1, catalogue.words_of(s)) for s in said])
    kept = np.flatnonzero(saved > worth * words).tolist()
    return [_at(said[i], int(strength[i])) for i in kept]


def _refit(
    catalogue: Catalogue,
    said: list[Single | Cross],
    counts: Float[np.ndarray, " one"],
    totals: Float[np.ndarray, " one"],
    levels: Float[np.ndarray, " strength"],
    precedence: Int[np.ndarray, " one"],
) -> Int[np.ndarray, " one"]:
    """The best strength that each may have. Below pairs there is nothing that 0 could be an exception to."""
    error = counts[:, None] * levels**2 - 2 * totals[:, None] * levels
    allowed = np.zeros(error.shape, dtype=bool)
    groups = np.array([catalogue.group[s.candidate] if isinstance(s, Single) else -1 for s in said])
    strengths = np.array([s.strength for s in said])
    for group in np.unique(groups):
        allowed[np.ix_(groups == group, np.unique(strengths[groups == group]))] = True
    allowed[groups < 0] = True
    allowed[precedence < catalogue.pair_precedence, 0] = False
    best: Int[np.ndarray, " one"] = np.where(allowed, error, np.inf).argmin(axis=1)
    return np.where(counts > 0, best, strengths)


def _at(one: Single | Cross, strength: int) -> Single | Cross:
    if isinstance(one, Cross):
        return Cross(list(one.words), list(one.befores), strength)
    return replace(one, strength=strength)
