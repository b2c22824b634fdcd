"""Which places of the held-out text to look at: where a latent's simulation is right or wrong, worst errors first.

On the test split, at the positions that were simulated, with a the true activation and â the calibrated one:

1. A *false* firing is where the simulation fires (`rewrite.arms.controls.fires`) and a is 0, the worst where â is
   largest; a *missed* one where a is above 0 and the simulation does not fire, the worst where a is largest; a *right*
   one where both fire, the best where the smaller of the two is largest. Where a prediction is missing there is none of
   these.
2. For each latent and kind there are `SHOWN` places, and as many of the train split, where a is largest. A window has
   at most one of a kind, the one that comes first; of equals the earlier in the text comes first.
3. One pass over the shards keeps the places of all latents so far (`Best`), and counts. An entry below its latent's
   third is dropped before anything is sorted, so that few are. `rewrite.report.latents.excerpts` then cuts out what
   stands there.

How a split is cut into shards changes nothing. Memory is one shard's of the test split, a stretch of the train
split, and a few hundred bytes for each latent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from rewrite.arms.controls import fires
from rewrite.coder.activations import Shard, Split
from rewrite.simulators.strengths import Simulations
from rewrite.statistics.curves import Curves
from rewrite.statistics.firings import Counts, sum_marks
from rewrite.text.windows import Text

KINDS = ("false", "missed", "right", "train")
SHOWN = 3
"""Places of each kind."""
AT_ONCE = 1 << 13
"""Positions of the train split that are looked at together, at most [positions]."""


# --- sparse matrices by their entries ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entries:
    """Entries of positions × latents, ordered by row and latent, so that a place is found by bisection."""

    latents: int
    row: Int[np.ndarray, " entry"]
    latent: Int[np.ndarray, " entry"]
    value: Float[np.ndarray, " entry"]

    @cached_property
    def _keys(self) -> Int[np.ndarray, " entry_and_end"]:
        return np.append(self.row * self.latents + self.latent, -1)

    def select(self, kept: Bool[np.ndarray, " entry"]) -> Entries:
        """Some of them."""
        return Entries(self.latents, self.row[kept], self.latent[kept], self.value[kept])

    def find(self, row: np.ndarray, latent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each pair stands among the entries, and whether it does; rows and latents are broadcast."""
        key = row * self.latents + latent
        place = np.searchsorted(self._keys[:-1], key)
        return place, self._keys[place] == key

    def look_up(self, row: np.ndarray, latent: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        """The value of each pair, and what stands there where none is stored."""
        place, there = self.find(row, latent)
        return np.where(there, np.append(self.value, np.float32(0))[place], otherwise)


def list_entries(matrix: csr_array) -> Entries:
    """All that a matrix stores."""
    matrix = matrix if matrix.has_sorted_indices else matrix.sorted_indices()
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return Entries(matrix.shape[1], row, matrix.indices, matrix.data)


@dataclass(frozen=True)
class Piece:
    """A stretch of a split: its text, whose each window is, and where a latent is truly active."""

    begin: int
    """The number of its first position in the split."""
    text: Text
    documents: Int[np.ndarray, " window"]
    truth: Entries

    @property
    def window_of(self) -> Int[np.ndarray, " position"]:
        """The window of each position, numbered in the stretch."""
        return np.repeat(np.arange(len(self.documents)), np.diff(self.text.starts))


@dataclass(frozen=True)
class Judged:
    """A shard of the test split with what the simulation says of it at the simulated positions."""

    piece: Piece
    counted: Bool[np.ndarray, " position"]
    predicted: Entries
    """Calibrated activations, NaN where one is missing; rest where nothing is stored."""
    actual: Float[np.ndarray, " prediction"]
    """The true activation at each of them."""
    fired: Bool[np.ndarray, " prediction"]
    known: Bool[np.ndarray, " truth"]
    """Whether the position was simulated and the prediction there is not missing."""
    missed: Bool[np.ndarray, " truth"]
    """Whether there is a prediction, and it is no firing."""

    def count(self, latents: int) -> Counts:
        """As `rewrite.statistics.firings.count_firings` counts."""
        said = self.predicted.latent
        lost = sum_marks(said, np.isnan(self.predicted.value), latents)
        true = sum_marks(self.piece.truth.latent, self.known, latents)
        hits = sum_marks(said, self.fired & (self.actual > 0), latents)
        false = sum_marks(said, self.fired & (self.actual <= 0), latents)
        return Counts(self.counted.sum() - lost, true, hits, false)


@dataclass(frozen=True)
class Reader:
    """Reads shards and holds them against each other; `judged` latents have predictions."""

    train: Split
    test: Split
    simulations: Simulations
    curves: Curves
    judged: Bool[np.ndarray, " latent"]

    def learned(self) -> Iterator[Piece]:
        """The train split, a stretch at a time: nothing stands beside it that would ask for a whole shard."""
        begin = 0
        for shard in self.train.stretches(AT_ONCE):
            yield self._look(begin, shard)
            begin += len(shard.text.ids)

    def judge(self) -> Iterator[Judged]:
        """The shards of the test split."""
        threshold, begin = self.curves.threshold, 0
        for name, shard in self.test.walk():
            piece = self._look(begin, shard)
            begin += len(shard.text.ids)
            piece = replace(piece, text=self.simulations.show(name, piece.text))
            counted = piece.text.counted()
            said = list_entries(self.simulations.strengths(name, len(counted)))
            said = said.select(counted[said.row] & self.judged[said.latent])
            strengths = said.value.astype(np.float32)
            predicted = replace(said, value=self.curves.calibrator.apply(strengths, said.latent))
            fired = fires(strengths, predicted.value, said.latent, threshold)
            yield _hold_against(piece, counted, predicted, fired, self.judged)

    def _look(self, begin: int, shard: Shard) -> Piece:
        """Only rewritten latents are looked at."""
        truth = list_entries(shard.activations)
        truth = truth.select((truth.value > 0) & self.simulations.rewritten[truth.latent])
        return Piece(begin, shard.text, shard.documents, truth)


def _hold_against(
    piece: Piece,
    counted: Bool[np.ndarray, " position"],
    predicted: Entries,
    fired: Bool[np.ndarray, " prediction"],
    judged: Bool[np.ndarray, " latent"],
) -> Judged:
    truth = piece.truth
    place, there = truth.find(predicted.row, predicted.latent)
    actual = np.zeros_like(predicted.value)
    actual[there] = truth.value[place[there]]
    unknown, known = np.isnan(predicted.value), counted[truth.row]
    known[place[there & unknown]] = False
    missed = known & judged[truth.latent]
    missed[place[there & fired]] = False
    return Judged(piece, counted, predicted, actual, fired, known, missed)


# --- the first pass: which places -------------------------------------------------------------------------------------


class Best:
    """The places of each latent with the largest values so far, at most `SHOWN` and one a window; -inf where none."""

    def __init__(self, latents: int) -> None:
        self.value = np.full((latents, SHOWN), -np.inf, dtype=np.float32)
        self.position = np.full((latents, SHOWN), -1, dtype=np.int64)

    def offer(self, piece: Piece, entries: Entries) -> None:
        """Take what is better of a shard's entries. Shards come in order, so one that is equal comes too late."""
        entries = entries.select(entries.value > self.value[entries.latent, -1])
        if not len(entries.row):
            return
        window = piece.window_of[entries.row]
        order = np.lexsort((entries.row, -entries.value, window, entries.latent))
        change = (np.diff(entries.latent[order]) != 0) | (np.diff(window[order]) != 0)
        order = order[np.concatenate([[True], change])]
        touched = np.unique(entries.latent[order])
        latent = np.concatenate([np.repeat(touched, SHOWN), entries.latent[order]])
        value = np.concatenate([self.value[touched].ravel(), entries.value[order]])
        position = np.concatenate([self.position[touched].ravel(), piece.begin + entries.row[order]])
        order = np.lexsort((position, -value, latent))
        first = np.searchsorted(latent[order], touched)
        order = order[first[:, None] + np.arange(SHOWN)]
        self.value[touched], self.position[touched] = value[order], position[order]


@dataclass
class Found:
    """What the first pass keeps: the best places of each kind, counts, and the largest value of each latent."""

    best: dict[str, Best]
    counts: Counts
    most: Float[np.ndarray, " latent"]


def find_places(reader: Reader) -> Found:
    """The first pass over the test and the train split."""
    latents = reader.test.latents
    none = np.zeros(latents)
    found = Found(
        {kind: Best(latents) for kind in KINDS}, Counts(none, none, none, none), np.zeros(latents, np.float32)
    )
    for judged in reader.judge():
        piece, truth, predicted = judged.piece, judged.piece.truth, judged.predicted
        found.counts += judged.count(latents)
        np.maximum.at(found.most, truth.latent, np.where(judged.known, truth.value, 0))
        np.maximum.at(found.most, predicted.latent, np.where(judged.fired, predicted.value, 0))
        smaller = replace(predicted, value=np.minimum(predicted.value, judged.actual))
        found.best["false"].offer(piece, predicted.select(judged.fired & (judged.actual <= 0)))
        found.best["right"].offer(piece, smaller.select(judged.fired & (judged.actual > 0)))
        found.best["missed"].offer(piece, truth.select(judged.missed))
    for piece in reader.learned():
        found.best["train"].offer(piece, piece.truth)
    return found
