"""Which windows of text stand for a latent: those an explainer is shown.

1. Every window of the corpus is cut into windows of `length` tokens, from its start; a rest at its end is a shorter
   one. The first position of a corpus window is context: it is shown and has no activation.
2. A latent *fires* in the windows where any activation is above 0. They are ordered by their largest activation.
3. `by_quantile`: the ordered windows are cut into tenths (or another number of quantiles), and as many are drawn from
   each (arXiv:2501.18838: 40 windows, 4 of each tenth). `by_maximum`: the first of the order.
4. `beside`: for each window shown, strongest first, the window most like it in which the latent does not fire and that
   is not shown yet. Likeness is the cosine of bags of tokens, weighted by how often a token stands in the window and by
   log((1 + windows) / (1 + windows with the token)) + 1.

What all latents share is computed once; a latent then costs its own firings, and `beside` one sparse product. Every
draw is named by the seed and the latent, so it does not depend on which other latents are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from rewrite.coder.evidence import Evidence
from rewrite.text.windows import show_tokens

DECIMALS = 9
"""Likenesses that differ by less are equal, and the earlier window is taken, whatever order a sum was computed in."""

Numbers = Int[np.ndarray, " _"]
"""Windows by their numbers."""


@dataclass(frozen=True)
class Exemplar:
    """A window of text with a latent's true activations, 0 at a position that is only context."""

    tokens: tuple[str, ...]
    activations: Float[np.ndarray, " token"]


@dataclass(frozen=True)
class Firings:
    """Where a latent fires: the numbers of the windows, by their largest activation (the earlier first where equal)."""

    windows: Int[np.ndarray, " window"]
    maxima: Float[np.ndarray, " window"]

    @property
    def maximum(self) -> float:
        """The latent's largest activation; 0 where it never fires."""
        return float(self.maxima.max(initial=0))


def by_maximum(firings: Firings, count: int) -> Numbers:
    """The `count` windows with the largest activation."""
    return firings.windows[:count]


def by_quantile(firings: Firings, count: int, quantiles: int, seed: int, latent: int) -> Numbers:
    """`count` windows, as many drawn from each quantile, strongest first; all of them where there are no more.

    Where the shares are not equal, the stronger quantiles hold and give one more.
    """
    if len(firings.windows) <= count:
        return firings.windows
    parts = min(quantiles, count)
    draw = np.random.default_rng([seed, latent])
    chosen = []
    for number, part in enumerate(np.array_split(np.arange(len(firings.windows)), parts)):
        share = count // parts + (number < count % parts)
        chosen.append(np.sort(draw.permutation(part)[:share]))
    windows: Numbers = firings.windows[np.concatenate(chosen)]
    return windows


class Windows:
    """The evidence cut into windows of `length` tokens, numbered in the order of the text."""

    def __init__(self, evidence: Evidence, length: int) -> None:
        self.evidence, self.text = evidence, evidence.text
        starts = self.text.starts
        pieces = -(-np.diff(starts) // length)
        first = np.cumsum(pieces) - pieces
        inside = np.arange(pieces.sum()) - np.repeat(first, pieces)
        self.begins = np.repeat(starts[:-1], pieces) + length * inside
        self.ends = np.minimum(self.begins + length, np.repeat(starts[1:], pieces))
        self.window_of = np.repeat(np.arange(len(self.begins)), self.ends - self.begins)

    def __len__(self) -> int:
        return len(self.begins)

    def firings(self, latent: int) -> Firings:
        """Where a latent fires."""
        rows, values = self._column(latent)
        windows, begins = np.unique(self.window_of[rows], return_index=True)
        maxima = np.maximum.reduceat(values, begins) if len(begins) else values
        order = np.argsort(-maxima, kind="stable")
        return Firings(windows[order], maxima[order])

    def show(self, latent: int, window: int) -> Exemplar:
        """A window with a latent's activations."""
        begin, end = int(self.begins[window]), int(self.ends[window])
        rows, values = self._column(latent)
        low, high = np.searchsorted(rows, (begin, end))
        activations = np.zeros(end - begin, dtype=values.dtype)
        activations[rows[low:high] - begin] = values[low:high]
        tokens = show_tokens(self.text.ids[begin:end], self.text.vocabulary, self.text.pieces)
        return Exemplar(tuple(tokens), activations)

    def beside(self, firings: Firings, shown: Numbers, count: int) -> Numbers:
        """For each of the first `count` windows of `shown`, the most alike in which the latent does not fire; fewer
        where there are no more."""
        models = shown[:count]
        likeness = np.round(self.bags @ self.bags[models].toarray().T, DECIMALS)
        free = self._live.copy()
        free[firings.windows] = False
        found: list[int] = []
        for column in likeness.T[: free.sum()]:
            nearest = int(np.argmax(np.where(free, column, -1)))
            free[nearest] = False
            found.append(nearest)
        return np.array(found, dtype=np.int64)

    @cached_property
    def bags(self) -> csr_array:
        """Windows × vocabulary: how much each token counts in a window, each row of length 1."""
        shape = (len(self), len(self.text.vocabulary))
        counts = csr_array((np.ones(len(self.text.ids)), (self.window_of, self.text.ids)), shape=shape)
        counts.sum_duplicates()
        with_token = np.bincount(counts.indices, minlength=shape[1])
        weighted = counts.data * (np.log((1 + shape[0]) / (1 + with_token)) + 1)[counts.indices]
        row_of = np.repeat(np.arange(shape[0]), np.diff(counts.indptr))
        norms = np.sqrt(np.bincount(row_of, weights=weighted**2, minlength=shape[0]))
        return csr_array((weighted / norms[row_of], counts.indices, counts.indptr), shape=shape)

    @cached_property
    def _live(self) -> Bool[np.ndarray, " window"]:
        """Windows with a position at which a latent could have fired."""
        return np.bincount(self.window_of, weights=self.text.counted(), minlength=len(self)) > 0

    @property
    def live(self) -> Numbers:
        """The numbers of the windows with a position at which a latent could have fired."""
        return np.flatnonzero(self._live)

    def _column(self, latent: int) -> tuple[Int[np.ndarray, " entry"], Float[np.ndarray, " entry"]]:
        """A latent's activations above 0, with their positions in order."""
        column = self.evidence.column(latent)
        above = column.values > 0
        return column.positions[above], column.values[above]
