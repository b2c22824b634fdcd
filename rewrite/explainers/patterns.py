"""Writes, for each latent, the rules of `rewrite.grammar` that explain most of its activation in `max_words` words.

1. Positions are pooled into cells: the distinct pairs of word so far and word before, with how often each occurs.
2. A latent's mean in a cell is shrunk toward its word's mean, a word's mean toward the latent's, by `prior` positions.
3. Greedily, the rule is added that removes most squared error of the activation per word of text it costs: a word, or
   a run of two words. An added word shares the strength of others where one that is said already serves as well.
4. Strengths are the means on a scale where 9 is the largest; what is not mentioned is predicted as nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field
from scipy.sparse import csc_array, csr_array

from rewrite.config import Section
from rewrite.features import read_features
from rewrite.grammar import Pattern, Rule, write
from rewrite.records import Evidence, Explanation

TOP = 9
CANDIDATES = 150


class Settings(Section):
    max_words: int = Field(40, ge=0)
    """Longest explanation [words, counted by `rewrite.grammar.count_words`]; 0 is unlimited."""
    prior: float = Field(2.0, gt=0)
    """Weight of the broader mean that a mean is shrunk toward [positions]."""


@dataclass(frozen=True)
class _Pool:
    """Positions pooled into words and into cells (word, word before), cells sorted by word."""

    words: tuple[str, ...]
    count: Float[np.ndarray, " word"]
    cells: Int[np.ndarray, "cell 2"]
    cell_count: Float[np.ndarray, " cell"]
    cell_starts: Int[np.ndarray, " word_and_end"]
    sums: csc_array
    cell_sums: csc_array
    positions: int


def _group(key: Int[np.ndarray, " position"], groups: int, activations: csr_array) -> csc_array:
    shape = (groups, len(key))
    member = csr_array((np.ones(len(key), np.float32), (key, np.arange(len(key)))), shape=shape)
    return csc_array(member @ activations)


def pool(evidence: Evidence) -> _Pool:
    """Count and sum by word and by cell."""
    features = read_features(evidence.text)
    counted = np.flatnonzero(evidence.text.counted())
    activations = csr_array(evidence.activations)[counted]
    size = len(features.words)
    word = features.word[counted]
    cells, cell, cell_count = np.unique(
        word * size + features.before[counted], return_inverse=True, return_counts=True
    )
    pairs = np.stack(np.divmod(cells, size), axis=1)
    return _Pool(
        words=features.words,
        count=np.bincount(word, minlength=size).astype(float),
        cells=pairs,
        cell_count=cell_count.astype(float),
        cell_starts=np.searchsorted(pairs[:, 0], np.arange(size + 1)),
        sums=_group(word, size, activations),
        cell_sums=_group(cell, len(cells), activations),
        positions=len(counted),
    )


def _column(matrix: csc_array, latent: int) -> tuple[np.ndarray, np.ndarray]:
    part = slice(matrix.indptr[latent], matrix.indptr[latent + 1])
    return matrix.indices[part], matrix.data[part].astype(float)


def choose_rules(pooled: _Pool, latent: int, settings: Settings) -> tuple[Rule, ...]:
    """The rules of one latent, the strongest first; none if it never fires."""
    prior, budget = settings.prior, settings.max_words or 10**9
    rows, sums = _column(pooled.sums, latent)
    if not len(rows):
        return ()
    base = sums.sum() / pooled.positions
    best = np.argsort(-(sums**2) / (pooled.count[rows] + prior), kind="stable")[: CANDIDATES if settings.max_words else None]
    rows, sums = rows[best], sums[best]
    row_n = pooled.count[rows].copy()
    row_mean = (sums + prior * base) / (row_n + prior)
    begins, ends = pooled.cell_starts[rows], pooled.cell_starts[rows + 1]
    cells = np.concatenate([np.arange(b, e) for b, e in zip(begins, ends, strict=True)])
    cell_row = np.repeat(np.arange(len(rows)), ends - begins)
    dense = np.zeros(len(pooled.cells))
    where, values = _column(pooled.cell_sums, latent)
    dense[where] = values
    often = pooled.cell_count[cells] >= 2
    cells, cell_row = cells[often], cell_row[often]
    cell_n = pooled.cell_count[cells]
    cell_mean = (dense[cells] + prior * row_mean[cell_row]) / (cell_n + prior)
    unit = max(row_mean.max(), cell_mean.max(initial=0)) / TOP
    levels = np.arange(TOP + 1) * unit
    row_sum = row_mean * row_n
    row_level, cell_level = np.full(len(rows), -1), np.full(len(cells), -1)
    spent, said = 2, np.zeros(TOP + 1, dtype=bool)
    while True:
        current = np.where(row_level >= 0, levels[row_level], 0.0)
        new = np.where(said, 0, 1)
        mean = np.where(row_n > 0, row_sum / np.maximum(row_n, 1e-9), 0)
        row_gain = row_n[:, None] * ((mean - current)[:, None] ** 2 - (mean[:, None] - levels) ** 2) / (1 + new)
        row_gain[row_level >= 0] = 0
        row_gain[:, 0] = 0
        cell_error = (cell_mean - current[cell_row])[:, None] ** 2 - (cell_mean[:, None] - levels) ** 2
        cell_gain = cell_n[:, None] * cell_error / (2 + new)
        cell_gain[cell_level >= 0] = 0
        by_row, by_cell = row_gain.max(), cell_gain.max(initial=0)
        if max(by_row, by_cell) <= 1e-9:
            break
        gain = row_gain if by_row >= by_cell else cell_gain
        index, level = np.unravel_index(gain.argmax(), gain.shape)
        cost = (1 if by_row >= by_cell else 2) + new[level]
        if spent + cost > budget:
            break
        spent += cost
        said[level] = True
        if by_row >= by_cell:
            row_level[index] = level
        else:
            cell_level[index] = level
            row_n[cell_row[index]] -= cell_n[index]
            row_sum[cell_row[index]] -= cell_n[index] * cell_mean[index]
    rules = []
    for level in range(TOP, -1, -1):
        items = [(pooled.words[rows[i]],) for i in np.flatnonzero(row_level == level)]
        for i in np.flatnonzero(cell_level == level):
            word, before = pooled.cells[cells[i]]
            items.append((pooled.words[before], pooled.words[word]))
        if items:
            rules.append(Rule(Pattern("words", tuple(items)), level))
    return tuple(rules)


class PatternExplainer:
    """Chooses rules and writes them out."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def explain(self, evidence: Evidence, latents: Sequence[int]) -> Iterator[Explanation]:
        """A sentence for each latent; one that is never active on the evidence never fires."""
        pooled = pool(evidence)
        for latent in latents:
            yield Explanation(latent, write(choose_rules(pooled, latent, self.settings)))


def build(settings: Settings) -> PatternExplainer:
    """The explainer with these settings."""
    return PatternExplainer(settings)
