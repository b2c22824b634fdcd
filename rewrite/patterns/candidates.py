"""What can be said of latents, and what is said of one: the vocabulary of `rewrite.patterns.selection`.

Positions are pooled into *cells*, the finest groups that any rule can tell apart. A *candidate* is something that can
be said in one item of a rule, and covers some cells: a word, a word after another, an ending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

TOP = 9
"""The largest strength."""

Cells = Int[np.ndarray, " some_cells"]


def ragged(starts: Int[np.ndarray, " row_and_end"], rows: Int[np.ndarray, " row"]) -> Int[np.ndarray, " entry"]:
    """All entries of the given rows of a compressed matrix, one row after the other."""
    begins, sizes = starts[rows], starts[rows + 1] - starts[rows]
    offsets = np.cumsum(sizes) - sizes
    return np.repeat(begins - offsets, sizes) + np.arange(sizes.sum())


class Index:
    """Cells, or anything that is numbered, by a key below `size`."""

    def __init__(self, key: Int[np.ndarray, " one"], size: int) -> None:
        self.order = np.argsort(key, kind="stable")
        self.starts = np.searchsorted(key[self.order], np.arange(size + 1))

    def having(self, keys: Sequence[int] | Int[np.ndarray, " key"]) -> Int[np.ndarray, " some"]:
        """Those whose key is one of these."""
        found: Int[np.ndarray, " some"] = self.order[ragged(self.starts, np.asarray(keys, dtype=np.int64))]
        return found


@dataclass(frozen=True)
class Catalogue:
    """All candidates over all cells, the same for every latent.

    A candidate that is a pair has the ids of its word and of the word before in `pair`, others -1. Candidates of one
    group and strength share a rule, whose words beside its items are the group's glue.
    """

    count: Float[np.ndarray, " cell"]
    word: Int[np.ndarray, " cell"]
    before: Int[np.ndarray, " cell"]
    covers: csr_array
    precedence: Int[np.ndarray, " candidate"]
    price: Int[np.ndarray, " candidate"]
    group: Int[np.ndarray, " candidate"]
    pair: Int[np.ndarray, "candidate 2"]
    glue: Int[np.ndarray, " group"]
    pair_precedence: int
    cross_glue: int
    opening: int

    @cached_property
    def words(self) -> int:
        """How many ids of words there are."""
        return 1 + max(int(side.max(initial=0)) for side in (self.word, self.before))

    @cached_property
    def beside(self) -> tuple[Index, Index]:
        """Cells by their word, and by their word before."""
        return Index(self.word, self.words), Index(self.before, self.words)

    def cells_of(self, candidate: int) -> Cells:
        """Cells that a candidate covers."""
        begin, end = self.covers.indptr[candidate : candidate + 2]
        cells: Cells = self.covers.indices[begin:end]
        return cells

    def cells_at(self, cross: Cross) -> Cells:
        """Cells that a cross covers."""
        cells = self.beside[0].having(cross.words)
        return cells[np.isin(self.before[cells], cross.befores)]

    def words_of(self, said: Single | Cross) -> int:
        """Words of its items, and of its rule if it has one of its own."""
        if isinstance(said, Single):
            return int(self.price[said.candidate])
        return len(said.words) + len(said.befores) + self.cross_glue


@dataclass(frozen=True)
class Single:
    """A candidate, by its number in the catalogue, at a strength."""

    candidate: int
    strength: int


@dataclass
class Cross:
    """Each of `words` directly after each of `befores`, at a strength."""

    words: list[int]
    befores: list[int]
    strength: int


@dataclass(frozen=True)
class Choice:
    """What is said of one latent, and the words it takes."""

    said: list[Single | Cross]
    spent: int


@dataclass(frozen=True)
class Sums:
    """One latent's activation, summed over each cell, in their order; where it is none is left out."""

    cells: Cells
    activation: Float[np.ndarray, " some_cells"]


class Board:
    """What all drafts share: the catalogue, indexed once, and scratch arrays that are used again."""

    def __init__(self, catalogue: Catalogue, prior: float) -> None:
        self.catalogue, self.prior = catalogue, prior
        self.covers = catalogue.covers
        self.covered_by = csr_array(catalogue.covers.astype(np.int8).T)  # Only where it has entries matters.
        self.links = np.diff(self.covered_by.indptr)
        """How many candidates cover each cell."""
        self.counts = catalogue.covers @ catalogue.count
        cells, candidates = len(catalogue.count), len(catalogue.price)
        self.sides = (catalogue.word, catalogue.before)
        self.activation = np.zeros(cells)
        self.prediction = np.zeros(cells)
        self.precedence = np.full(cells, -1)
        self.place_of = np.full(candidates, -1)
        self._present = np.zeros(catalogue.words, dtype=bool)
        self._number = np.zeros(catalogue.words, dtype=np.int64)

    def distinct(self, words: Int[np.ndarray, " any"]) -> tuple[Int[np.ndarray, " word"], Int[np.ndarray, " any"]]:
        """The distinct words in order, and which of them each is: `np.unique`, which would sort, with its inverse."""
        self._present[words] = True
        found = np.flatnonzero(self._present)
        self._present[found] = False
        self._number[found] = np.arange(len(found))
        return found, self._number[words]
