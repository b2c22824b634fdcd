"""Text pooled into cells, and what each latent does in them.

1. `pool` reads a text a stretch at a time and keeps four numbers of a position: the word so far, the word before, the
   token, the places. Positions that agree in them are one cell, the finest group that an explainer's rule can tell.
2. `Summed` adds up a latent's activation over each cell. What all latents' sums would take grows with text and latents
   alike, so they are made for a block of latents at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import csc_array, csr_array

from rewrite.coder.evidence import Evidence
from rewrite.patterns.candidates import Sums
from rewrite.patterns.features import PLACES, read_features
from rewrite.text.windows import Text

CHUNK = 1 << 16
"""Text that is read at once [positions]."""
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
    """Each latent's activation over cells, from the evidence, a block of latents at a time."""

    def __init__(self, evidence: Evidence, cells: Pooled) -> None:
        self.evidence = evidence
        positions = np.flatnonzero(evidence.text.counted()).astype(np.int32)
        ends = np.concatenate([[0], np.cumsum(cells.count)])
        member = (np.ones(len(positions), np.float32), positions[np.argsort(cells.of, kind="stable")], ends)
        self.member = csr_array(member, shape=(len(cells.count), len(evidence.text.ids)))
        self.latents = np.zeros(0, dtype=np.int64)
        self.sums = NOTHING

    def blocks(self, latents: Sequence[int]) -> Iterator[list[int]]:
        """The latents in their order, as many at a time as are neighbours in a block, whose sums are then in memory."""
        together: list[int] = []
        for latent in latents:
            if together and latent not in self.latents:
                yield together
                together = []
            self._hold(latent)
            together.append(latent)
        if together:
            yield together

    def _hold(self, latent: int) -> None:
        """Add up the block that a latent is in, if it is not the one that is held."""
        if latent not in self.latents:
            self.sums = NOTHING
            block = self.evidence.block(latent)
            self.latents = block.latents
            self.sums = csc_array(self.member @ csr_array(block.activations))

    def of(self, latent: int) -> Sums:
        """One latent's sums."""
        self._hold(latent)
        place = int(np.searchsorted(self.latents, latent))
        own = slice(self.sums.indptr[place], self.sums.indptr[place + 1])
        return Sums(self.sums.indices[own], self.sums.data[own])
