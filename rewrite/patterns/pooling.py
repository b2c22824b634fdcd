"""Text pooled into cells, and what each latent does in them.

1. `pool` reads a text a stretch at a time and keeps four numbers of a position: the word so far, the word before, the
   token, the places. Positions that agree in them are one cell, the finest group that an explainer's rule can tell.
2. `Summed` adds up a latent's activation over each cell, as it is asked for: what all latents' sums would take grows
   with text and latents alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from rewrite.coder.evidence import Evidence
from rewrite.patterns.candidates import Sums
from rewrite.patterns.features import PLACES, read_features
from rewrite.text.windows import Text

CHUNK = 1 << 14
"""Text that is read at once [positions]."""

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
    of: Int[np.ndarray, " position"]
    """-1 where a position is not counted."""


def pool(text: Text) -> Pooled:
    """Read the counted positions, a stretch of the text at a time: of each four numbers are kept, then one."""
    words: dict[str, int] = {}
    tokens: tuple[str, ...] = ()
    read = []
    for chunk in text.chunks(CHUNK):
        features, counted = read_features(chunk, words), chunk.counted()
        bits, tokens = features.places @ (1 << np.arange(len(PLACES))), features.tokens
        columns = np.stack([features.word, features.before, features.token, bits])
        read.append(columns[:, counted].astype(np.int32))
    sizes = (len(words), len(words), len(tokens), 1 << len(PLACES))
    for place, columns in enumerate(read):
        read[place] = np.ravel_multi_index(tuple(columns), sizes)
    codes = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *map(np.unique, read)]))
    of = np.full(len(text.ids), -1, dtype=np.int32)
    of[text.counted()] = np.concatenate([of[:0], *(np.searchsorted(codes, own).astype(np.int32) for own in read)])
    count = np.bincount(of[of >= 0], minlength=len(codes))
    word, before, token, bits = (column.astype(np.int32) for column in np.unravel_index(codes, sizes))
    places = (bits[:, None] >> np.arange(len(PLACES)) & 1).astype(bool)
    return Pooled(tuple(words), tokens, count, word, before, token, places, of)


class Summed:
    """Each latent's activation over cells, from the evidence, a block of latents at a time.

    `of` is the cell of each position, one of `cells`; -1 where it is not counted.
    """

    def __init__(self, evidence: Evidence, of: Int[np.ndarray, " position"], cells: int) -> None:
        self.evidence, self.cell_of = evidence, of
        self.scratch = np.zeros(cells, dtype=np.float32)

    def blocks(self, latents: Sequence[int]) -> Iterator[list[int]]:
        """The latents in their order, as many at a time as are neighbours in a block of the evidence, which is then in
        memory."""
        together: list[int] = []
        for latent in latents:
            if together and latent not in self.evidence.block(together[0]).latents:
                yield together
                together = []
            self.evidence.block(latent)
            together.append(latent)
        if together:
            yield together

    def of(self, latent: int) -> Sums:
        """One latent's sums, each added up in the order of the text."""
        column = self.evidence.column(latent)
        own = self.cell_of[column.positions]
        counted = own >= 0
        own = own[counted]
        np.add.at(self.scratch, own, column.values[counted])
        cells = np.unique(own)
        activation = self.scratch[cells]
        self.scratch[cells] = 0
        return Sums(cells[activation != 0], activation[activation != 0])
