"""What can be said of latents, and what is said of one: the vocabulary of `rewrite.patterns.selection`.

Positions are pooled into *cells*, the finest groups that any rule can tell apart. A *candidate* is something that can
be said in one item of a rule, and covers some cells: a word, a word after another, an ending.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

TOP = 9
"""The largest strength."""
TOGETHER = 1 << 11
"""Cells whose candidates are looked up at once, about twelve each [cells]."""

Cells = Int[np.ndarray, " some_cells"]


def ragged(starts: Int[np.ndarray, " row_and_end"], rows: Int[np.ndarray, " row"]) -> Int[np.ndarray, " entry"]:
    """All entries of the given rows of a compressed matrix, one row after the other."""
    begins, sizes = starts[rows], starts[rows + 1] - starts[rows]
    offsets = np.cumsum(sizes) - sizes
    return np.repeat(begins - offsets, sizes) + np.arange(sizes.sum())


@dataclass(frozen=True)
class Links:
    """What belongs to each of some rows, row after row: of a sparse matrix, where its entries are."""

    starts: Int[np.ndarray, " row_and_end"]
    members: Int[np.ndarray, " link"]

    def of(self, row: int) -> Int[np.ndarray, " own"]:
        """What belongs to one row."""
        own: Int[np.ndarray, " own"] = self.members[self.starts[row] : self.starts[row + 1]]
        return own

    def of_all(self, rows: Int[np.ndarray, " row"]) -> Int[np.ndarray, " own"]:
        """What belongs to these, one row after the other."""
        own: Int[np.ndarray, " own"] = self.members[ragged(self.starts, rows)]
        return own

    def flip(self, members: int) -> Links:
        """The rows that each of so many members belongs to, in order."""
        there = np.broadcast_to(np.int8(1), len(self.members))
        matrix = csr_array((there, self.members, self.starts), shape=(len(self.starts) - 1, members)).T.tocsr()
        return Links(matrix.indptr, matrix.indices)


class Index:
    """Cells, or anything that is numbered, by a key below `size`."""

    def __init__(self, key: Int[np.ndarray, " one"], size: int) -> None:
        self.order = np.argsort(key, kind="stable").astype(np.int32)
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
    covers: Links
    """The cells of each candidate."""
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
        return self.covers.of(candidate)

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
        cells, candidates = len(catalogue.count), len(catalogue.price)
        self.covers = catalogue.covers
        self.covered_by = self.covers.flip(cells)
        self.links = np.diff(self.covered_by.starts)
        """How many candidates cover each cell."""

        self.sides, self.beside = (catalogue.word, catalogue.before), catalogue.beside
        self.activation = np.zeros(cells)
        self.prediction = np.zeros(cells)
        self.precedence = np.full(cells, -1, dtype=np.int32)
        self.place_of = np.full(candidates, -1, dtype=np.int32)
        self.counts = self.add_up(np.arange(cells), catalogue.count)
        self._present = np.zeros(catalogue.words, dtype=bool)
        self._number = np.zeros(catalogue.words, dtype=np.int64)

    def add_up(self, cells: Cells, values: Float[np.ndarray, " some_cells"]) -> Float[np.ndarray, " candidate"]:
        """The values of some cells, added up over those of each candidate in the order of the cells."""
        totals = np.zeros(len(self.place_of))
        for begin in range(0, len(cells), TOGETHER):
            own = cells[begin : begin + TOGETHER]
            more = np.repeat(values[begin : begin + TOGETHER].astype(float), self.links[own])
            np.add.at(totals, self.covered_by.of_all(own), more)
        return totals

    def link(self, cells: Cells) -> Iterator[tuple[Int[np.ndarray, " link"], Int[np.ndarray, " link"]]]:
        """Which of a draft's candidates cover some cells, and which cell each of them does, cell by cell and not all at
        once."""
        for begin in range(0, len(cells), TOGETHER):
            own = cells[begin : begin + TOGETHER]
            place = self.place_of[self.covered_by.of_all(own)]
            yield place[place >= 0], np.repeat(own, self.links[own])[place >= 0]

    def distinct(self, words: Int[np.ndarray, " any"]) -> tuple[Int[np.ndarray, " word"], Int[np.ndarray, " any"]]:
        """The distinct words in order, and which of them each is: `np.unique`, which would sort, with its inverse."""
        self._present[words] = True
        found = np.flatnonzero(self._present)
        self._present[found] = False
        self._number[found] = np.arange(len(found))
        return found, self._number[words]
