"""The train split by latent: all that an explainer may see.

1. The text is held whole, a few bytes a token. Activations are many more, `k` at a token, and are not held: they lie in
   shards of documents, by position.
2. One pass over the text counts each latent's firings. Latents are then read in blocks of neighbours that have at
   most `AT_ONCE` firings together, a pass over the text for each; one that has more is a block by itself. Who goes
   through the latents in order reads each block once, and memory is that of a block and a stretch of `STRETCH`
   positions, however long the text.
3. Who comes back to any latent at any time asks for all of some latents at once (`at_once=None`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csc_array

from rewrite.coder.activations import Split
from rewrite.text.windows import Text

AT_ONCE = 1 << 20
"""Firings that are held at once, of 8 bytes each [firings]."""
STRETCH = 1 << 13
"""Text whose activations are read at once [positions]."""

Latents = Sequence[int] | Int[np.ndarray, " chosen"]


@dataclass(frozen=True)
class Column:
    """Where a latent fires, in the order of the text, and how strongly."""

    positions: Int[np.ndarray, " firing"]
    values: Float[np.ndarray, " firing"]


@dataclass(frozen=True)
class Block:
    """The activations of some latents, positions × these latents by column, positions in order."""

    latents: Int[np.ndarray, " own"]
    activations: csc_array

    def place(self, latent: int) -> int:
        """Which column is a latent's."""
        return int(np.searchsorted(self.latents, latent))


@dataclass(frozen=True)
class Held:
    """Activations in memory, positions × latents by column."""

    activations: csc_array

    @property
    def firings(self) -> Int[np.ndarray, " latent"]:
        """How often each latent fires."""
        return np.diff(self.activations.indptr)

    def take(self, latents: Int[np.ndarray, " chosen"]) -> csc_array:
        """All activations of some latents, positions × these, positions in order."""
        chosen = csc_array(self.activations[:, latents])
        return chosen if chosen.has_sorted_indices else chosen.sorted_indices()


@dataclass(frozen=True)
class Stored:
    """Activations in the shards of a split."""

    split: Split

    @cached_property
    def firings(self) -> Int[np.ndarray, " latent"]:
        """How often each latent fires: one pass over the text."""
        count = np.zeros(self.split.latents, dtype=np.int64)
        for shard in self.split.stretches(STRETCH):
            count += np.bincount(shard.activations.indices, minlength=len(count))
        return count

    def take(self, latents: Int[np.ndarray, " chosen"]) -> csc_array:
        """As `Held.take`: one pass over the text, each firing put where it belongs."""
        place = np.full(self.split.latents, -1, dtype=np.int32)
        place[latents] = np.arange(len(latents))
        ends = np.concatenate([[0], np.cumsum(self.firings[latents])])
        rows, values = np.empty(ends[-1], dtype=np.int32), np.empty(ends[-1], dtype=np.float32)
        free, begin = ends[:-1].copy(), 0
        for shard in self.split.stretches(STRETCH):
            matrix = shard.activations
            kept = np.flatnonzero(place[matrix.indices] >= 0)
            own = place[matrix.indices[kept]]
            kept = kept[np.argsort(own, kind="stable")]
            count = np.bincount(own, minlength=len(latents))
            target = np.repeat(free - np.cumsum(count) + count, count) + np.arange(len(kept))
            rows[target] = begin + np.searchsorted(matrix.indptr, kept, side="right") - 1
            values[target] = matrix.data[kept]
            free += count
            begin += matrix.shape[0]
        ends = ends if ends[-1] > np.iinfo(np.int32).max else ends.astype(np.int32)  # Else the rows are widened too.
        return csc_array((values, rows, ends), shape=(begin, len(latents)))


Source = Held | Stored
"""Where activations are read from."""


class Evidence:
    """The train split's text and the true activations on it, latent by latent.

    Rows of positions that are not counted are empty. Of `latents`, all where none are named, any may be asked for.
    """

    def __init__(
        self,
        text: Text,
        activations: csc_array | Source,
        latents: Latents | None = None,
        at_once: int | None = AT_ONCE,
    ) -> None:
        self.text = text
        self._source: Source = Held(activations) if isinstance(activations, csc_array) else activations
        every = np.arange(len(self.firings)) if latents is None else np.unique(np.asarray(latents, dtype=np.int64))
        self._blocks = cut_blocks(every, self.firings, at_once)
        self._block = Block(every[:0], csc_array((len(text.ids), 0), dtype=np.float32))

    @property
    def firings(self) -> Int[np.ndarray, " latent"]:
        """How often each latent of the coder fires."""
        return self._source.firings

    def block(self, latent: int) -> Block:
        """The block that a latent is in; it is held until another is asked for. Raises KeyError for a latent that was
        not to be asked for."""
        if latent not in self._block.latents:
            last = [latents[-1] for latents in self._blocks]
            number = int(np.searchsorted(last, latent))
            if number == len(last) or latent not in self._blocks[number]:
                raise KeyError(latent)
            self._block = Block(self._block.latents[:0], self._block.activations[:, :0])  # Never two at once.
            self._block = Block(self._blocks[number], self._source.take(self._blocks[number]))
        return self._block

    def column(self, latent: int) -> Column:
        """One latent's firings. Raises KeyError as `block` does."""
        own = self.block(latent)
        begin, end = own.activations.indptr[own.place(latent) :][:2]
        return Column(own.activations.indices[begin:end], own.activations.data[begin:end])

    @property
    def activations(self) -> csc_array:
        """All activations, positions × latents: in memory at once, which a long text does not allow."""
        return self._source.take(np.arange(len(self.firings)))


def cut_blocks(
    latents: Int[np.ndarray, " chosen"], firings: Int[np.ndarray, " latent"], at_once: int | None
) -> list[Int[np.ndarray, " own"]]:
    """Neighbours that fire at most so often together; one that alone fires more often stands alone."""
    if at_once is None or not len(latents):
        return [latents] if len(latents) else []
    blocks, begin, held = [], 0, 0
    for place, count in enumerate(firings[latents].tolist()):
        if held + count > at_once and place > begin:
            blocks.append(latents[begin:place])
            begin, held = place, 0
        held += count
    return [*blocks, latents[begin:]]


def gather_evidence(train: Split, latents: Latents | None = None, at_once: int | None = AT_ONCE) -> Evidence:
    """The train split as one text, and its activations by latent as they are asked for."""
    texts = list(train.texts())
    ids = np.concatenate([text.ids for text in texts])
    lengths = np.concatenate([np.diff(text.starts) for text in texts])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Evidence(Text(ids, starts, train.vocabulary, pieces=train.pieces), Stored(train), latents, at_once)
