"""What stands at the places that `rewrite.report.latents.windows` found: text, true and simulated activations, a latent
at a time.

1. An excerpt goes from `BEFORE` positions before its peak to `AFTER` behind it, and not beyond its window. The true
   activation is unknown at a window's first position, which is context; the simulated one where its prediction is
   missing, and there is none where the position was not simulated. Where no strength is stored it is the calibrator's
   at strength 0.
2. One pass over the shards cuts all excerpts out, and counts true activations and what the simulation fires, where both
   are known, in `BINS` equal bins from 0 to the larger of the two maxima.
3. `Sights.pages` tells each latent as plain data: the activations of its excerpts as whole thousandths of a unit of its
   own, so that they are short to write; one above 0 is never told as 0.

A latent without any prediction has nothing to be held against the truth: it has windows of the train split only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from rewrite.coder.activations import ActivationStore
from rewrite.report.latents.windows import KINDS, Best, Judged, Piece, Reader, find_places
from rewrite.report.scripts import NOT_SIMULATED, round_number
from rewrite.simulators.strengths import Simulations
from rewrite.statistics.curves import Curves
from rewrite.statistics.firings import Counts

BEFORE, AFTER = 16, 8
"""Positions that are shown before and after a peak."""
WIDTH = BEFORE + 1 + AFTER
BINS = 20
MOST = 999
"""The largest activation of a latent's excerpts, in thousandths of its unit: three digits at most."""
UNKNOWN = "no prediction on the test split"
AT_ONCE = 256
"""Latents whose excerpts are made Python numbers together."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Excerpts:
    """Windows around peaks, by latent, kind and rank; of `WIDTH` columns the first `length` count."""

    latent: Int[np.ndarray, " excerpt"]
    kind: Int[np.ndarray, " excerpt"]
    position: Int[np.ndarray, " excerpt"]
    """The peak, by its number in the split."""
    document: Int[np.ndarray, " excerpt"]
    at: Int[np.ndarray, " excerpt"]
    """The peak, by its number in the excerpt."""
    length: Int[np.ndarray, " excerpt"]
    ids: Int[np.ndarray, "excerpt width"]
    true: Float[np.ndarray, "excerpt width"]
    simulated: Float[np.ndarray, "excerpt width"]
    """NaN where a prediction is missing, -inf where the position was not simulated."""

    @property
    def inside(self) -> Bool[np.ndarray, "excerpt width"]:
        """The columns that count."""
        return np.arange(WIDTH) < self.length[:, None]

    def slice(self, begin: int, end: int) -> Excerpts:
        """Some that stand together."""
        return Excerpts(*(values[begin:end] for values in vars(self).values()))

    def units(self, latents: int) -> Float[np.ndarray, " latent"]:
        """A thousandth part of which is each latent's unit: its largest activation shown is `MOST` of them."""
        largest = np.fmax(self.true, self.simulated).astype(np.float64)
        most = np.zeros(latents)
        np.maximum.at(most, self.latent, np.where(self.inside, np.nan_to_num(largest), 0).max(1, initial=0))
        return most * 1000 / MOST

    def of(self, split: str, piece: Piece) -> Int[np.ndarray, " own"]:
        """The excerpts whose peak is in a stretch of a split."""
        begin, end = piece.begin, piece.begin + len(piece.text.ids)
        train = self.kind == KINDS.index("train")
        return np.flatnonzero((train == (split == "train")) & (self.position >= begin) & (self.position < end))

    def cut(self, own: Int[np.ndarray, " own"], piece: Piece) -> Int[np.ndarray, "own width"]:
        """Fill in the text and the truth of some excerpts; returns the rows of the stretch that they show."""
        starts, row = piece.text.starts, self.position[own] - piece.begin
        window = piece.window_of[row]
        begin, end = np.maximum(starts[window], row - BEFORE), np.minimum(starts[window + 1], row + AFTER + 1)
        rows: np.ndarray = np.minimum(begin[:, None] + np.arange(WIDTH), end[:, None] - 1)
        self.document[own], self.at[own], self.length[own] = piece.documents[window], row - begin, end - begin
        self.ids[own] = piece.text.ids[rows]
        context = np.zeros(len(piece.text.ids), dtype=bool)
        context[starts[:-1]] = True
        true = piece.truth.look_up(rows, self.latent[own][:, None], np.zeros(1, dtype=np.float32))
        self.true[own] = np.where(context[rows], np.nan, true)
        return rows

    def set_against(
        self, own: Int[np.ndarray, " own"], rows: Int[np.ndarray, "own width"], judged: Judged, rest: np.ndarray
    ) -> None:
        """Fill in what the simulation says of some excerpts."""
        latent = self.latent[own][:, None]
        simulated = judged.predicted.look_up(rows, latent, rest[latent])
        self.simulated[own] = np.where(judged.counted[rows], simulated, -np.inf)


def lay_out(best: dict[str, Best]) -> Excerpts:
    """Room for every place that was found."""
    values = np.stack([best[kind].value for kind in KINDS], axis=1)
    positions = np.stack([best[kind].position for kind in KINDS], axis=1)
    latent, kind, rank = np.nonzero(values > -np.inf)
    at, length, document = (np.zeros(len(latent), dtype=np.int32) for _ in range(3))
    ids = np.zeros((len(latent), WIDTH), dtype=np.int32)
    unknown = np.full(ids.shape, np.nan, dtype=np.float32)
    return Excerpts(latent, kind, positions[latent, kind, rank], document, at, length, ids, unknown, unknown.copy())


class Histogram:
    """Values above 0 of each latent in `BINS` equal bins from 0 to its `most`."""

    def __init__(self, most: Float[np.ndarray, " latent"]) -> None:
        self.width = np.where(most > 0, most, 1).astype(np.float64) / BINS
        self.count = np.zeros((len(most), BINS), dtype=np.int64)

    def add(self, latent: Int[np.ndarray, " value"], value: Float[np.ndarray, " value"]) -> None:
        """Count values; the largest falls into the last bin."""
        number = np.minimum((value / self.width[latent]).astype(np.int64), BINS - 1)
        self.count += np.bincount(latent * np.int64(BINS) + number, minlength=self.count.size).reshape(self.count.shape)


@dataclass(frozen=True)
class Sights:
    """What there is to see of every rewritten latent."""

    latents: Int[np.ndarray, " rewritten"]
    why: dict[int, str]
    """Latents without any prediction on the test split, and why."""
    excerpts: Excerpts
    counts: Counts
    most: Float[np.ndarray, " latent"]
    true: Histogram
    simulated: Histogram
    curves: Curves
    used: Int[np.ndarray, " used"]
    """The vocabulary's tokens that stand in excerpts, the most frequent first: their indices are the shortest."""
    vocabulary: tuple[str, ...]

    @property
    def tokens(self) -> list[str]:
        """The tokens that pages name by index."""
        return [self.vocabulary[i] for i in self.used.tolist()]

    def pages(self) -> Iterator[Row]:
        """Each rewritten latent in turn: {"latent", "why", "top", "histogram", "curve", "firings", "windows"}."""
        number = np.zeros(len(self.vocabulary), dtype=np.int32)
        number[self.used] = np.arange(len(self.used))
        for begin in range(0, len(self.latents), AT_ONCE):
            own = self.latents[begin : begin + AT_ONCE]
            first, last = np.searchsorted(self.excerpts.latent, [own[0], own[-1] + 1])
            excerpts = self.excerpts.slice(int(first), int(last))
            unit = excerpts.units(len(self.most))
            windows = describe(excerpts, unit, number)
            for latent in own.tolist():
                page = self._page(latent)
                yield page | {"top": round_number(float(unit[latent])), "windows": windows.get(latent, [])}

    def _page(self, latent: int) -> Row:
        test, judged = self.curves.test, latent not in self.why
        count = test.count[latent]
        known = np.where(count > 0, count, 1)
        means = {
            name: [
                round_number(m) if n else None for m, n in zip((total / known).tolist(), count.tolist(), strict=True)
            ]
            for name, total in (("true", test.truth[latent]), ("predicted", test.predicted[latent]))
        }
        counts = {"positions": self.counts.known, "true": self.counts.true}
        counts |= {"hits": self.counts.hits, "false": self.counts.false}
        return {
            "latent": latent,
            "why": self.why.get(latent, ""),
            "histogram": {
                "most": round_number(float(self.most[latent])),
                "true": self.true.count[latent].tolist(),
                "simulated": self.simulated.count[latent].tolist() if judged else None,
            },
            "curve": {"count": count.tolist()} | means,
            "firings": {name: int(values[latent]) for name, values in counts.items()} if judged else None,
        }


def describe(excerpts: Excerpts, unit: np.ndarray, number: np.ndarray) -> dict[int, list[Row]]:
    """The windows of each latent as plain data; `number` is what a token is called."""
    unit = unit[excerpts.latent][:, None]
    true, simulated = to_thousandths(excerpts.true, unit), to_thousandths(excerpts.simulated, unit)
    columns = (excerpts.latent, excerpts.kind, excerpts.document, excerpts.at, excerpts.length, number[excerpts.ids])
    found: dict[int, list[Row]] = {}
    for latent, kind, document, at, length, ids, a, said in zip(
        *(column.tolist() for column in columns), true, simulated, strict=True
    ):
        window = {"kind": KINDS[kind], "document": document, "at": at, "tokens": ids[:length], "true": a[:length]}
        other = {"document": None} if KINDS[kind] == "train" else {"simulated": said[:length]}
        found.setdefault(latent, []).append(window | other)
    return found


def to_thousandths(values: Float[np.ndarray, "excerpt width"], unit: Float[np.ndarray, "excerpt 1"]) -> list[list[Any]]:
    """Activations as whole thousandths of a unit, None where they are not known; what is above 0 is at least 1.

    What was not simulated (-inf) is `NOT_SIMULATED`.
    """
    known = ~np.isnan(values)
    share = np.where(known, values, 0) / unit * 1000
    rest = np.where(np.isneginf(values), NOT_SIMULATED, 0)
    whole = np.where(share > 0, np.maximum(np.rint(share), 1), rest).astype(np.int64)
    rows: list[list[Any]] = whole.tolist()
    for row in np.flatnonzero(~known.all(1)).tolist():
        rows[row] = [value if there else None for value, there in zip(rows[row], known[row].tolist(), strict=True)]
    return rows


def find_sights(store: ActivationStore, simulations: Simulations, curves: Curves) -> Sights:
    """Both passes over the test and the train split."""
    everywhere = store.calibrate.shards + store.test.shards
    why, rewritten = simulations.missing(everywhere), simulations.rewritten
    reader = Reader(store.train, store.test, simulations, curves, rewritten & ~simulations.absent(everywhere))
    found = find_places(reader)
    latents = np.flatnonzero(rewritten)
    why = {
        latent: why.get(latent, UNKNOWN)
        for latent in latents.tolist()
        if latent in why or not found.counts.known[latent]
    }
    excerpts, histograms = lay_out(found.best), (Histogram(found.most), Histogram(found.most))
    for held in reader.judge():
        truth, predicted = held.piece.truth, held.predicted
        own = excerpts.of("test", held.piece)
        excerpts.set_against(own, excerpts.cut(own, held.piece), held, curves.threshold.rest)
        histograms[0].add(truth.latent[held.known], truth.value[held.known])
        histograms[1].add(predicted.latent[held.fired], predicted.value[held.fired])
    for piece in reader.learned():
        excerpts.cut(excerpts.of("train", piece), piece)
    used = order_tokens(excerpts.ids[excerpts.inside], len(store.vocabulary))
    return Sights(latents, why, excerpts, found.counts, found.most, *histograms, curves, used, store.vocabulary)


def order_tokens(ids: Int[np.ndarray, " token"], size: int) -> Int[np.ndarray, " used"]:
    """The tokens that occur, the most frequent first."""
    count = np.bincount(ids, minlength=size)
    return np.lexsort((np.arange(size), -count))[: np.count_nonzero(count)]
