"""Text pooled into cells, and what each latent does in them.

1. `pool` reads a text a stretch at a time and keeps four numbers of a position: the word so far, the word before, the
   token, the places. Positions that agree in them are one cell, the finest group that an explainer's rule can tell.
2. `Summed` adds up a latent's activation over each cell, and over the cells of each candidate. What all latents'
   sums would take grows with text and latents alike, so they are made for a few latents at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import csc_array, csr_array

from rewrite.coder.evidence import Block, Evidence, cut_blocks
from rewrite.patterns.candidates import Sums
from rewrite.patterns.features import PLACES, read_features
from rewrite.text.windows import Text

CHUNK = 1 << 16
"""Text that is read at once [positions]."""
SUMMED = 1 << 15
"""Sums over cells that are added up to sums over candidates at once [sums]; of the latter there are twenty times as
many."""
NOTHING = csc_array((0, 0), dtype=np.float32)
"""What is put in the place of a matrix before the next one is made, so that there are never two."""

Ids = Int[np.ndarray, " cell"]


@dataclass(frozen=True)
class Pooled:
    """The distinct combinations of features, how many positions have each, and which each position has."""

    words: tuple[str, ...]
    tokens: tuple[str, ...]
    count: Int[np.ndarray, " cell"]
    word: Ids
    before: Ids
    token: Ids
    places: Bool[np.ndarray, "cell place"]
    of: Int[np.ndarray, " counted"]


def pool(text: Text) -> Pooled:
    """Read the counted positions, a stretch of the text at a time: of each four numbers are kept."""
    words: dict[str, int] = {}
    tokens: tuple[str, ...] = ()
    read = []
    for chunk in text.chunks(CHUNK):
        features, counted = read_features(chunk, words), chunk.counted()
        bits, tokens = features.places @ (1 << np.arange(len(PLACES))), features.tokens
        columns = np.stack([features.word, features.before, features.token, bits])
        read.append(columns[:, counted].astype(np.int32))
    sizes = (len(words), len(words), len(tokens), 1 << len(PLACES))
    code = np.concatenate([np.zeros(0, dtype=np.int64), *(np.ravel_multi_index(tuple(own), sizes) for own in read)])
    del read
    codes, of, count = np.unique(code, return_inverse=True, return_counts=True)
    word, before, token, bits = (column.astype(np.int64) for column in np.unravel_index(codes, sizes))
    places = (bits[:, None] >> np.arange(len(PLACES)) & 1).astype(bool)
    return Pooled(tuple(words), tokens, count, word, before, token, places, of.astype(np.int32))


class Summed:
    """Each latent's activation over cells and candidates, from the evidence, a few latents at a time.

    A block of the evidence is summed over cells at once; over candidates, which are many more, at most `SUMMED` of its
    sums at a time.
    """

    def __init__(self, evidence: Evidence, cells: Pooled, covers: csr_array) -> None:
        self.evidence, self.covers = evidence, covers
        positions = np.flatnonzero(evidence.text.counted()).astype(np.int32)
        ends = np.concatenate([[0], np.cumsum(cells.count)])
        member = (np.ones(len(positions), np.float32), positions[np.argsort(cells.of, kind="stable")], ends)
        self.member = csr_array(member, shape=(len(cells.count), len(evidence.text.ids)))
        self.latents = np.zeros(0, dtype=np.int64)
        self.sums = self.totals = NOTHING
        self.cuts: list[Int[np.ndarray, " own"]] = []
        self.first = self.end = 0

    def of(self, latent: int) -> Sums:
        """One latent's sums."""
        if latent not in self.latents:
            self.sums = self.totals = NOTHING
            self.first = self.end = 0
            self._add_up(self.evidence.block(latent))
        place = int(np.searchsorted(self.latents, latent))
        if not self.first <= place < self.end:
            own = next(cut for cut in self.cuts if cut[0] <= place <= cut[-1])
            self.first, self.end, self.totals = int(own[0]), int(own[-1]) + 1, NOTHING
            self.totals = csc_array(self.covers @ self.sums[:, self.first : self.end])
        return Sums(*_column(self.sums, place), *_column(self.totals, place - self.first))

    def _add_up(self, block: Block) -> None:
        """The sums of a block's latents over cells."""
        self.latents = block.latents
        self.sums = csc_array(self.member @ csr_array(block.activations))
        self.cuts = cut_blocks(np.arange(len(block.latents)), np.diff(self.sums.indptr), SUMMED)


def _column(matrix: csc_array, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a column has entries, and their values."""
    own = slice(matrix.indptr[number], matrix.indptr[number + 1])
    return matrix.indices[own], matrix.data[own]
