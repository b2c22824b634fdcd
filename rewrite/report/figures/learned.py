"""The learning curves of a run's readers: how well each reads latents that it must not learn from, as it learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rewrite.report.figures.pictures import BLUE, GREY, RULE, VERMILION, Drawn, draw_twice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
LINES = (("auc", "area under the curve", BLUE), ("correlation", "correlation", VERMILION))


def draw_learned(rows: Sequence[Row]) -> Drawn:
    """The area under the curve and the correlation against tokens, a line for each reader, from `Facts.learned`."""
    readers = {reader: [row for row in rows if row["reader"] == reader] for reader in {row["reader"] for row in rows}}

    def paint(axes: Axes, narrow: bool) -> None:
        for number, (_, own) in enumerate(sorted(readers.items())):
            for name, label, colour in LINES:
                told = [np.nan if row[name] is None else row[name] for row in own]
                axes.plot([row["tokens"] for row in own], told, "o-", color=colour, label="" if number else label, ms=3)
        axes.axhline(0.5, color=GREY, linewidth=1, linestyle="--", label="area of a guess")
        axes.set_xlabel("tokens learned from")
        axes.set_ylim(top=1.0)
        axes.grid(color=RULE)
        axes.legend(frameon=False, fontsize=9, loc="lower right")

    ends = "; ".join(_tell(reader, own) for reader, own in sorted(readers.items()))
    return draw_twice(
        "learned",
        "How the readers learned: latents of the train split that a reader must not learn from",
        f"Area under the curve and correlation against the tokens learned from. {ends}.",
        (3.6, 4.0),
        paint,
    )


def _tell(reader: str, rows: Sequence[Row]) -> str:
    first, last = rows[0], rows[-1]
    told = [
        f"{label} from {first[name]:.2f} to {last[name]:.2f}"
        for name, label, _ in LINES
        if first[name] is not None and last[name] is not None
    ]
    return f"{reader}: {', '.join(told) or 'nothing to tell apart'} after {last['tokens']:,} tokens"
