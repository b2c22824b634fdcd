"""What a study gives back: a latent with its windows, a text as it is read, a calibration, an arm's losses, a verdict.

Each holds its numbers for a program, and shows itself: a table or marked text in a notebook, plain text elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rewrite.arms.batches import Fitted
from rewrite.arms.calibrate import LEVELS
from rewrite.display.escaping import NONE, visible
from rewrite.display.notebook import Shown, show, table_html, tokens_html
from rewrite.display.tables import Page, Table
from rewrite.explainers.base import Explanation
from rewrite.explainers.exemplars import Exemplar
from rewrite.report.arms import cover, select_ladder
from rewrite.statistics.losses import name_arm

Row = dict[str, Any]

CURVE = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90)
"""The levels of strength that a calibration shows, of `LEVELS`."""


@dataclass(frozen=True, repr=False)
class Latent(Shown):
    """One latent on the train split: its strongest windows, and its explanation where that was written."""

    number: int
    density: float
    """Share of the counted positions at which it fires."""
    maximum: float
    """Its largest activation."""
    windows: tuple[Exemplar, ...]
    """By largest activation, strongest first."""
    explanation: Explanation | None = None

    @property
    def text(self) -> str | None:
        """The explanation's text; None where there is none."""
        return self.explanation.text if self.explanation else None

    def page(self) -> Page:
        """The explanation and the windows, tokens that fire in brackets."""
        rows = tuple((f"{w.activations.max(initial=0):.3g}", _bracket(w)) for w in self.windows)
        windows = Table("strongest windows of the train split", ("largest", "text"), rows)
        return Page(self._title, (windows,), (self._said,) if self._said else (), {})

    def _repr_html_(self) -> str:
        top = self.maximum or 1.0
        lines = []
        for window in self.windows:
            values = window.activations.tolist()
            told = [f"{v:.3g}" if v else "" for v in values]
            lines.append(tokens_html(window.tokens, [v / top for v in values], told))
        said = f"<p>{show(self._said)}</p>" if self._said else ""
        return f"<p><b>{show(self._title)}</b></p>{said}{''.join(lines)}"

    @property
    def _title(self) -> str:
        return f"latent {self.number}: fires at {self.density:.2%} of the positions, at most {self.maximum:.3g}"

    @property
    def _said(self) -> str:
        one = self.explanation
        return "" if one is None else one.text if one.text is not None else f"no explanation: {one.why}"


@dataclass(frozen=True, repr=False)
class Reading(Shown):
    """A text as a simulator reads it with one explanation; a number that is not known is NaN.

    A window's first position is context only: nothing is predicted or known there.
    """

    text: str
    """The explanation."""
    tokens: tuple[str, ...]
    strengths: np.ndarray
    """Predicted at each token, 0 to `scale`, [token]."""
    scale: float
    activations: np.ndarray | None = None
    """The latent's true activations, [token]; None where no latent was named."""

    def page(self) -> Page:
        """A row a token."""
        truth = [] if self.activations is None else [_numbers(self.activations)]
        columns = ([visible(token) for token in self.tokens], _numbers(self.strengths), *truth)
        heads = ("token", f"strength, 0 to {self.scale:g}", *(["true activation"] if truth else []))
        return Page(self.text, (Table("as it is read", heads, tuple(zip(*columns, strict=True))),), (), {})

    def _repr_html_(self) -> str:
        lines = [("predicted", self.strengths, self.scale)]
        if self.activations is not None:
            lines.append(("true", self.activations, float(np.nanmax(self.activations, initial=0)) or 1.0))
        told = []
        for name, values, top in lines:
            shares = [None if np.isnan(v) else max(v, 0.0) / top for v in values.tolist()]
            told.append(f"<p><i>{name}</i></p>{tokens_html(self.tokens, shares, _numbers(values))}")
        return f"<p>{show(self.text)}</p>{''.join(told)}"


@dataclass(frozen=True, repr=False)
class Calibration(Shown):
    """What the calibrate split says that strengths are worth, latent by latent."""

    fitted: Fitted
    kind: str
    """The calibrator, as the config names it."""

    def apply(self, latent: int, strengths: Sequence[float] | np.ndarray) -> np.ndarray:
        """The activation that each of some strengths of a latent stands for; NaN stays NaN."""
        given = np.asarray(strengths, dtype=np.float32)
        return self.fitted.calibrator.apply(given, np.full(given.shape, latent, dtype=np.int64))

    def curve(self, latent: int) -> pa.Table:
        """A latent's calibration: `strength`, the `positions` that had it, their mean `activation`, `calibrated`."""
        tally = self.fitted.tally
        strengths = np.arange(LEVELS, dtype=np.float32) / (LEVELS - 1) * tally.scale
        count = tally.count[latent]
        mean = np.where(count > 0, tally.total[latent] / np.maximum(count, 1), np.nan)
        columns = {"strength": strengths, "positions": count, "activation": mean}
        return pa.table(columns | {"calibrated": self.apply(latent, strengths)})

    def page(self) -> Page:
        """All latents' levels pooled, activations in units of each latent's largest."""
        tally = self.fitted.tally
        alive = tally.maximum > 0
        count, total = tally.count[alive], tally.total[alive] / tally.maximum[alive, None]
        rows = []
        for low, high in pairwise(CURVE):
            own = slice(low, high + (high == LEVELS - 1))
            positions = int(count[:, own].sum())
            mean = f"{total[:, own].sum() / positions:.4f}" if positions else NONE
            ends = f"{tally.scale * low / (LEVELS - 1):g} to {tally.scale * high / (LEVELS - 1):g}"
            rows.append((ends, f"{positions:,}", mean))
        heads = ("strength", "predictions", "mean true activation, share of the latent's largest")
        title = f"calibrator {self.kind}, fitted on {tally.positions:,} positions of the calibrate split"
        return Page(title, (Table("all latents pooled", heads, tuple(rows)),), (), {})


@dataclass(frozen=True, repr=False)
class Scored(Shown):
    """What some arms lose on the test split: `table` has the rows of `5_losses.parquet`."""

    table: pa.Table

    @property
    def loss(self) -> float:
        """Nats per token over all documents, of one arm. Raises ValueError where there are several."""
        rows = self.means.to_pylist()
        if len(rows) != 1:
            raise ValueError(f"{len(rows)} arms were scored; see `means`")
        return float(rows[0]["loss"])

    @property
    def means(self) -> pa.Table:
        """A row an arm: `arm`, `fraction`, `order`, `seed`, its summed `nats` and `tokens`, its `loss` per token."""
        keys = ["arm", "fraction", "order", "seed"]
        sums = self.table.group_by(keys, use_threads=False).aggregate([("nats", "sum"), ("tokens", "sum")])
        sums = sums.rename_columns([*keys, "nats", "tokens"])
        return sums.append_column("loss", pc.divide(sums["nats"], pc.cast(sums["tokens"], pa.float64())))

    def page(self) -> Page:
        """Each arm's loss."""
        rows = tuple((_name(row), f"{row['loss']:.4f}", f"{row['tokens']:,}") for row in self.means.to_pylist())
        return Page("what arms lose", (Table("on the test split", ("arm", "nats per token", "tokens"), rows),), (), {})


@dataclass(frozen=True, repr=False)
class Verdict(Shown):
    """What the tests say of a run; `stats` is the content of `6_stats.json`."""

    stats: Row

    @property
    def word(self) -> str:
        """`better`, `worse`, `equivalent` or `inconclusive`."""
        return str(self.stats["verdict"]["verdict"])

    @property
    def sentence(self) -> str:
        """The verdict in a sentence, with its numbers."""
        return str(self.stats["verdict"]["sentence"])

    @property
    def ladder(self) -> list[Row]:
        """The arms, best loss first, as `6_stats.json` has them: `arm`, `loss`, `se`, `recovered`, `recovered_ci`."""
        return select_ladder(self.stats)

    def page(self) -> Page:
        """The sentence, the ladder, the cautions."""
        return Page(self.sentence, (self._table,), tuple(self.stats["warnings"]), {})

    @property
    def _table(self) -> Table:
        heads = ("arm", "nats per token", "recovered", f"{cover(self.stats)} interval")
        rows = tuple(
            (name_arm(row), f"{row['loss']:.4f}", f"{100 * row['recovered']:.1f}%", _ends(row["recovered_ci"]))
            for row in self.ladder
        )
        return Table("the ladder: what is written at the layer, and what it costs", heads, rows)

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{show(note)}</p>" for note in self.stats["warnings"])
        bars = [float(row["recovered"]) for row in self.ladder]
        return f"<p><b>{show(self.sentence)}</b></p>{table_html(self._table, bars)}{notes}"


def _name(row: Row) -> str:
    """An arm with its seed, where its order or itself is drawn."""
    drawn = row["order"] == "random" or row["seed"]
    return name_arm(row) + (f", seed {row['seed']}" if drawn else "")


def _bracket(window: Exemplar) -> str:
    """The window's text with each run of tokens at which the latent fires in brackets."""
    told, inside = "", False
    for token, activation in zip(window.tokens, window.activations.tolist(), strict=True):
        if (activation > 0) != inside:
            told, inside = told + ("]" if inside else "["), not inside
        told += token
    return visible(told + ("]" if inside else ""))


def _numbers(values: np.ndarray) -> list[str]:
    return [NONE if np.isnan(value) else f"{value:.3g}" for value in values.tolist()]


def _ends(interval: Sequence[float] | None) -> str:
    return f"[{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]" if interval else NONE
