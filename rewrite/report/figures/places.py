"""Where the loss is: by the position in the window, by how frequent the next token is, and by what was predicted.

Drawn from `places` and `calibration` of 6_stats.json. Bins are of equal width in the figure: they double, or grow ten
times, from one to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rewrite.report.arms import cover
from rewrite.report.figures.pictures import BLUE, GREEN, GREY, RULE, VERMILION, Drawn, draw_twice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]

ARMS = {
    "zero": (VERMILION, "v", "--", "zero: no latents"),
    "simulated": (BLUE, "o", "-", "simulated"),
    "coder": (GREEN, "s", "-", "coder: true latents"),
}
LABELS = {
    "position": "position in the window [tokens]",
    "frequency": "next token in the train split [per million]",
}
TITLES = {"position": "Loss by the position in the window", "frequency": "Loss by how frequent the next token is"}


def name_bin(row: Row) -> str:
    """A bin as a reader meets it: `1`, `2–3`, `never`, `below 10`, `10–100`, `10,000 or more`."""
    low, high = row["low"], row["high"]
    if high is None:
        return f"{low:,} or more"
    if row["by"] == "position":
        return f"{low:,}–{high - 1:,}" if high > low + 1 else f"{low:,}"
    if low == 0:
        return f"below {high:,}" if high else "never"
    return f"{low:,}–{high:,}"


def draw_places(stats: Row, by: str) -> Drawn:
    """Loss above the clean model's in each bin, an arm a line, with paired intervals."""
    bins = [row for row in stats["places"] if row["by"] == by]

    def paint(axes: Axes, narrow: bool) -> None:
        for arm, (colour, marker, style, label) in ARMS.items():
            found = [(place, own) for place, row in enumerate(bins) for own in row["arms"] if own["arm"] == arm]
            places = [place for place, _ in found]
            axes.plot(places, [own["increase"] for _, own in found], marker, linestyle=style, color=colour, label=label)
            # Where there is no interval there is no band, and none across it.
            ends = np.array([own["increase_ci"] or (np.nan, np.nan) for _, own in found], dtype=np.float64)
            axes.fill_between(places, *ends.reshape(-1, 2).T, color=colour, alpha=0.2, linewidth=0)
        axes.set_xticks(range(len(bins)), [name_bin(row) for row in bins])
        if narrow or by == "frequency":
            axes.tick_params(axis="x", rotation=90 if narrow else 20)
        axes.set_xlabel(LABELS[by])
        axes.set_ylabel("loss above the clean model [nats]")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.grid(color=RULE)
        if narrow:
            axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.0, 1.0))
        else:
            axes.legend(frameon=False, fontsize=9)

    told = "; ".join(
        f"{name_bin(row)}: "
        + ", ".join(f"{own['arm']} {own['increase']:.3f}" for own in row["arms"] if own["arm"] in ARMS)
        for row in bins
    )
    return draw_twice(
        by,
        f"{TITLES[by]}, above the clean model's, with {cover(stats)} paired intervals",
        f"Loss above the clean model in nats per token. {told}.",
        (3.6, 4.6),
        paint,
    )


def draw_calibration(stats: Row) -> Drawn:
    """Mean true against mean predicted activation on the test split, a point for each strength that was said."""
    rows = [row for row in stats["calibration"] if row["predictions"]]

    def paint(axes: Axes, narrow: bool) -> None:
        predicted, true = ([row[name] for row in rows] for name in ("predicted", "true"))
        most = 1.08 * max([*predicted, *true], default=1.0)
        axes.plot([0, most], [0, most], color=GREY, linewidth=1, linestyle="--", label="as predicted")
        axes.plot(predicted, true, "o-", color=BLUE, label="by strength")
        for row in rows:
            if row["strength"]:
                place = (row["predicted"], row["true"])
                axes.annotate(f"{row['strength']}", place, (5, -10), "data", "offset points", fontsize=9, color=GREY)
        axes.set_xlim(0, most)
        axes.set_ylim(0, most)
        axes.set_aspect("equal")
        axes.set_xlabel("predicted activation, share of maximum")
        axes.set_ylabel("true activation, share of maximum")
        axes.grid(color=RULE)
        axes.legend(frameon=False, fontsize=9, loc="upper left")

    told = "; ".join(f"strength {row['strength']}: {row['predicted']:.3f}, {row['true']:.3f}" for row in rows)
    return draw_twice(
        "calibration",
        "Calibration on the test split: mean true activation where each strength (0 to 9) was predicted",
        f"Mean predicted and mean true activation as shares of the latent's maximum. {told}.",
        (4.2, 4.0),
        paint,
    )
