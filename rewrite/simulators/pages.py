"""What a language model is asked about a text, and the page that its answers fill.

A page has a row for each asked position of the text and a column for each explanation; what it is asked about and no
answer has filled is unknown, and what it is not asked about (a screen held it back) has no entry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array

from rewrite.simulators.schemes import Item, Ratings
from rewrite.simulators.screens.base import Screen
from rewrite.text.windows import Text


@dataclass(frozen=True)
class Window:
    """A window with something to rate: its tokens, which are asked, and where the asked ones stand among all asked
    positions of the text."""

    tokens: list[str]
    asked: Bool[np.ndarray, " position"]
    rows: Int[np.ndarray, " position"]


@dataclass(frozen=True)
class Placed:
    """An item with the rows and the column that its answer fills."""

    item: Item
    rows: Int[np.ndarray, " place"]
    column: int


@dataclass(frozen=True)
class Asked:
    """The pairs of an asked position, a row, and an explanation, a column, that a language model is asked about: column
    by column, rows ascending, those of column c from `ends[c]` to `ends[c + 1]`."""

    shape: tuple[int, int]
    ends: Int[np.ndarray, " column_and_end"]
    rows: Int[np.ndarray, " entry"]
    passed: Bool[np.ndarray, " entry"] | None = None
    """Whether the screen let each through; the others are asked about for the audit. None: there is no screen."""

    @classmethod
    def everything(cls, rows: int, columns: int) -> Asked:
        """All pairs."""
        every = np.tile(np.arange(rows, dtype=np.int32), columns)
        return cls((rows, columns), rows * np.arange(columns + 1), every)

    @classmethod
    def screened(cls, passing: csc_array, full: Bool[np.ndarray, " row"]) -> Asked:
        """The pairs that pass, and all of the rows in which everything is asked."""
        also = np.flatnonzero(full)
        own = [passing.indices[a:b] for a, b in zip(passing.indptr[:-1], passing.indptr[1:], strict=True)]
        rows = [np.union1d(column, also) for column in own]
        passed = [np.isin(every, column) for every, column in zip(rows, own, strict=True)]
        ends = np.cumsum([0, *(len(column) for column in rows)])
        nothing = np.zeros(0, dtype=np.int32)
        return cls(
            passing.shape, ends, np.concatenate([nothing, *rows]), np.concatenate([nothing.astype(bool), *passed])
        )

    def of(self, column: int) -> Int[np.ndarray, " row"]:
        """The rows of a column."""
        return self.rows[self.ends[column] : self.ends[column + 1]]

    def find(self, place: Placed) -> Int[np.ndarray, " place"]:
        """The entries that an answer fills."""
        found: np.ndarray = self.ends[place.column] + np.searchsorted(self.of(place.column), place.rows)
        return found

    def select(self, passed: bool) -> csr_array:
        """The numbers of the entries that passed, or of the others, as rows × columns."""
        numbers = csc_array((np.arange(len(self.rows)), self.rows, self.ends), shape=self.shape).tocsr()
        if self.passed is None:
            return numbers
        kept = self.passed[numbers.data] == passed
        ends = np.concatenate([[0], np.cumsum(kept)])[numbers.indptr]
        return csr_array((numbers.data[kept], numbers.indices[kept], ends), shape=self.shape)


def choose(screen: Screen, text: Text, counted: Bool[np.ndarray, " position"], whole: bool) -> Asked:
    """The pairs that a screen lets through, and all where the text is asked about in full. `whole`: a request rates all
    of a window, so that one pair brings the others of its window."""
    passing = screen.passes(text)[counted].tocsc()
    passing.eliminate_zeros()
    full = np.zeros(int(counted.sum()), dtype=bool) if text.full is None else text.full[counted]
    if whole:
        window = np.repeat(np.arange(len(text.starts) - 1), np.diff(text.starts))[counted]
        own = (
            np.flatnonzero(np.isin(window, window[rows])) for rows in np.split(passing.indices, passing.indptr[1:-1])
        )
        rows = [np.zeros(0, dtype=np.int64), *own]
        ends = np.cumsum([len(one) for one in rows])
        passing = csc_array((np.ones(ends[-1], dtype=bool), np.concatenate(rows), ends), shape=passing.shape)
    passing.sort_indices()
    return Asked.screened(passing, full)


class Page:
    """Strengths of the pairs that are asked about, filled in as answers arrive; unknown until then."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.strengths, self.zero, self.outside = (np.full(len(asked.rows), np.nan, np.float32) for _ in range(3))
        self.faults: Counter[str] = Counter()

    def fill(self, place: Placed, ratings: Ratings) -> None:
        """Write an answer where it belongs."""
        entries = self.asked.find(place)
        for array, values in (
            (self.strengths, ratings.strengths),
            (self.zero, ratings.zero),
            (self.outside, ratings.outside),
        ):
            array[entries] = values
        self.faults.update(ratings.faults)


def spread(
    entries: csr_array,
    values: Float[np.ndarray, " entry"],
    counted: Bool[np.ndarray, " position"],
    columns: Sequence[int],
    latents: int,
) -> csr_array:
    """Rows × columns of entries' numbers → the entries' values, positions × latents; `columns` says whose each is."""
    ends = np.zeros(len(counted) + 1, dtype=np.int64)
    ends[1:][counted] = np.diff(entries.indptr)
    own = np.array(columns, dtype=np.int32)[entries.indices]
    return csr_array((values[entries.data], own, np.cumsum(ends)), shape=(len(counted), latents))


def take_first(placed: Iterator[Placed], least: int) -> Iterator[Placed]:
    """As many items as hold at least so many predictions."""
    count = 0
    while count < least and (place := next(placed, None)):
        count += len(place.rows)
        yield place


def list_windows(text: Text, counted: Bool[np.ndarray, " position"]) -> Iterator[Window]:
    """The windows in which something is asked."""
    row = np.cumsum(counted) - 1
    for tokens, begin, end in zip(text.windows(), text.starts[:-1], text.starts[1:], strict=True):
        if counted[begin:end].any():
            yield Window(tokens, counted[begin:end], row[begin:end])
