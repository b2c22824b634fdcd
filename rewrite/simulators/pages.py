"""What a language model is asked about a text, and the page that its answers fill.

A page has a row for each asked position of the text and a column for each explanation; what no answer has filled is
unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from rewrite.simulators.schemes import Item, Ratings
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


class Page:
    """Strengths of the asked positions × explained latents, filled in as answers arrive; unknown until then."""

    def __init__(self, rows: int, columns: int) -> None:
        self.strengths, self.zero, self.outside = (np.full((rows, columns), np.nan, np.float32) for _ in range(3))
        self.faults: Counter[str] = Counter()

    def fill(self, place: Placed, ratings: Ratings) -> None:
        """Write an answer where it belongs."""
        for array, values in (
            (self.strengths, ratings.strengths),
            (self.zero, ratings.zero),
            (self.outside, ratings.outside),
        ):
            array[place.rows, place.column] = values
        self.faults.update(ratings.faults)


def list_windows(text: Text, counted: Bool[np.ndarray, " position"]) -> Iterator[Window]:
    """The windows in which something is asked."""
    row = np.cumsum(counted) - 1
    for tokens, begin, end in zip(text.windows(), text.starts[:-1], text.starts[1:], strict=True):
        if counted[begin:end].any():
            yield Window(tokens, counted[begin:end], row[begin:end])
