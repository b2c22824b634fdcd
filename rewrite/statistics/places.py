"""Where in the text the loss is: by the position in the window, and by how frequent the next token is.

1. Every scored token stands in two bins: one for the position that predicts it, counted from the window's begin in
   powers of two (the first position of a window is never scored), and one for how often the token stands in the train
   split, per million tokens and by decades; tokens that never stand there have a bin of their own.
2. `Tally` sums each document's losses in every bin, for the few arms that tell why not more is recovered. Summed over
   the bins of one kind they are the losses of `5_losses.parquet`.
3. `describe` compares arms inside a bin as the analysis does over all tokens, by the documents that have tokens there;
   where they are too few for an interval there is none, and no share of the gap either.

`5_places.parquet` has a row per bin × arm × document: by, low, high, arm, document, nats, tokens. `low` is inside the
bin, `high` outside or null for no end; of frequencies, low 0 and high 0 is "never".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from rewrite.arms.controls import NEEDED
from rewrite.config import UserError
from rewrite.statistics import paired as stats
from rewrite.statistics.losses import read_columns

FREQUENCIES = ((0, 0), (0, 10), (10, 100), (100, 1_000), (1_000, 10_000), (10_000, None))
"""Per million tokens of the train split; the second is without the first."""
PLACED = ("clean", "coder", "zero", "mean")
"""Arms whose places are kept, beside the simulated one."""
COLUMNS = ("by", "low", "high", "arm", "document", "nats", "tokens")

Row = dict[str, Any]


@dataclass(frozen=True)
class Bin:
    """Some scored tokens: those whose `by`, "position" or "frequency", is at least `low` and below `high`."""

    by: str
    low: int
    high: int | None


BINS = (
    *(Bin("position", 1 << power, 2 << power) for power in range(32)),
    *(Bin("frequency", low, high) for low, high in FREQUENCIES),
)


def per_million(texts: Iterable[Int[np.ndarray, " _"]], tokens: int) -> Float[np.ndarray, " token"]:
    """How often each token stands in some texts, per million."""
    count = np.zeros(tokens, dtype=np.int64)
    for ids in texts:
        count += np.bincount(ids, minlength=tokens)
    shares: np.ndarray = count * 1e6 / max(count.sum(), 1)
    return shares


@dataclass(frozen=True)
class Located:
    """The scored tokens of some windows: which they are, and their two cells of bin × document."""

    scored: Bool[np.ndarray, "window position"]
    cells: Int[np.ndarray, "2 scored"]


class Tally:
    """Sums losses by bin, arm and document; `frequency` is `per_million`'s."""

    def __init__(self, arms: Sequence[str], documents: int, frequency: Float[np.ndarray, " token"]):
        self.arms, self.documents = tuple(arms), documents
        edges = [low for low, _ in FREQUENCIES[2:]]
        own = np.where(frequency > 0, 1 + np.searchsorted(edges, frequency, side="right"), 0)
        self._bin_of_token = len(BINS) - len(FREQUENCIES) + own
        self.tokens = np.zeros(len(BINS) * documents, dtype=np.int64)
        self.nats = np.zeros((len(self.arms), len(self.tokens)))

    def locate(self, targets: Int[np.ndarray, "window position"], documents: Int[np.ndarray, " window"]) -> Located:
        """Count the scored tokens of some windows, those that are not negative, and find their cells."""
        scored = targets >= 0
        window, position = np.nonzero(scored)
        by_position = np.frexp(position)[1] - 1
        bins = np.stack([by_position, self._bin_of_token[targets[scored]]])
        located = Located(scored, bins * self.documents + documents[window])
        self.tokens += np.bincount(located.cells.ravel(), minlength=len(self.tokens))
        return located

    def add(self, arm: str, located: Located, losses: Float[np.ndarray, "window position"]) -> None:
        """Add what an arm lost at each token of some windows."""
        nats = np.broadcast_to(losses[located.scored], located.cells.shape)
        self.nats[self.arms.index(arm)] += np.bincount(located.cells.ravel(), nats.ravel(), len(self.tokens))

    def tabulate(self) -> pa.Table:
        """The rows of `5_places.parquet`; a document without tokens in a bin has none there."""
        cells = np.flatnonzero(self.tokens)
        bins = [BINS[number] for number in cells // self.documents] * len(self.arms)
        return pa.table(
            {
                "by": pa.array([one.by for one in bins], pa.string()),
                "low": pa.array([one.low for one in bins], pa.int64()),
                "high": pa.array([one.high for one in bins], pa.int64()),
                "arm": pa.array([arm for arm in self.arms for _ in cells], pa.string()),
                "document": pa.array(np.tile(cells % self.documents, len(self.arms)), pa.int32()),
                "nats": pa.array(self.nats[:, cells].ravel(), pa.float64()),
                "tokens": pa.array(np.tile(self.tokens[cells], len(self.arms)), pa.int64()),
            }
        )


@dataclass(frozen=True)
class Place:
    """One bin's documents that have tokens there: their scored tokens, and their losses by arm."""

    bin: Bin
    documents: Int[np.ndarray, " document"]
    tokens: stats.Tokens
    nats: dict[str, stats.Documents]


def read_places(path: Path) -> list[Place]:
    """The bins that have tokens, positions first, each kind from low to high.

    Raises UserError naming the file where it is no such table, a loss is not a finite number, or arms were not scored
    on the same tokens.
    """
    found: dict[Bin, dict[str, list[tuple[int, float | None, int]]]] = {}
    for by, low, high, arm, *loss in zip(*read_columns(path, COLUMNS), strict=True):
        found.setdefault(Bin(by, low, high), {}).setdefault(arm, []).append(tuple(loss))
    places = sorted(found, key=lambda one: (one.by != "position", one.low, one.high is None, one.high or 0))
    return [_check_place(path, place, found[place]) for place in places]


def _check_place(path: Path, place: Bin, arms: dict[str, list[tuple[int, float | None, int]]]) -> Place:
    where = f"{path}: {place.by} {place.low} to {place.high}"
    for arm in NEEDED:
        if arm not in arms:
            raise UserError(f"{where} lacks arm {arm}; evaluate again")
    columns = {
        arm: np.array(sorted(losses, key=lambda loss: loss[0]), dtype=np.float64).T for arm, losses in arms.items()
    }
    documents, _, tokens = columns["clean"]
    for arm, (own, nats, counted) in columns.items():
        if not (np.array_equal(own, documents) and np.array_equal(counted, tokens)):
            raise UserError(f"{where}: arm {arm} has other documents or tokens than arm clean; evaluate again")
        if len(set(own)) < len(own) or not np.isfinite(nats).all() or (tokens <= 0).any():
            raise UserError(f"{where}: arm {arm} has a document twice, no token or no finite loss; evaluate again")
    nats = {arm: columns[arm][1] for arm in sorted(columns)}
    return Place(place, documents.astype(np.int64), tokens.astype(np.int64), nats)


def describe(places: Sequence[Place], alpha: float) -> list[Row]:
    """`places` of 6_stats.json."""
    return [
        {
            "by": place.bin.by,
            "low": place.bin.low,
            "high": place.bin.high,
            "tokens": int(place.tokens.sum()),
            "documents": len(place.documents),
            "arms": [_describe_arm(place, arm, alpha) for arm in place.nats],
        }
        for place in places
    ]


def _describe_arm(place: Place, arm: str, alpha: float) -> Row:
    """An arm's loss in a bin, what it adds to the clean model's, and the share of the gap there that it recovers: none
    where the gap is not told from 0, or documents are too few to tell."""
    tokens, nats = place.tokens, place.nats
    own, clean, coder, zero = (nats[name] for name in (arm, "clean", "coder", "zero"))
    total = tokens.sum()
    added: stats.Interval | None = None
    share = stats.Recovered(None, None)
    with suppress(UserError):  # too few documents, or no spread between them
        added = stats.difference(own, clean, tokens).interval(alpha)
    with suppress(UserError):
        share = stats.recovered(own, zero, coder, tokens, alpha)
    return {
        "arm": arm,
        "loss": float(own.sum() / total),
        "increase": float((own - clean).sum() / total),
        "increase_ci": [added.low, added.high] if added else None,
        "recovered": share.value,
        "recovered_ci": [share.interval.low, share.interval.high] if share.interval else None,
    }
