"""The figure of where the damage goes: the loss as a river that grows from the hookpoint to the output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rewrite.report.damage import KINDS, find_way, sentence
from rewrite.report.figures.pictures import BLUE, GREEN, GREY, RULE, VERMILION, Drawn, draw_twice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
COLOURS = {
    "direct": GREY,
    "mlp": BLUE,
    "values": VERMILION,
    "pattern": GREEN,
    "attention": VERMILION,
    "block": BLUE,
}


def draw_damage(diagnosis: Row) -> Drawn:
    """What each kind of part has added by the end of each layer [nats], stacked; its last width is what is lost."""
    way = find_way(diagnosis)
    layers = [row["layer"] for row in way["layers"]]
    kinds = [kind for kind in COLOURS if any(row["kind"] == kind for row in way["steps"])]
    added = np.zeros((len(kinds), len(layers)))
    for row in way["steps"]:
        added[kinds.index(row["kind"]), layers.index(row["layer"])] += row["nats"]
    grown = added.cumsum(1)
    grown = np.concatenate([grown, grown[:, -1:]], 1)

    def paint(axes: Axes, narrow: bool) -> None:
        places = np.arange(len(layers) + 1)
        below = np.zeros(len(places))
        for kind, width in zip(kinds, grown, strict=True):
            label = KINDS[kind].partition(":")[0]
            axes.fill_between(places, below, below + width, color=COLOURS[kind], alpha=0.75, linewidth=0, label=label)
            below = below + width
        axes.plot(places, below, color="black", linewidth=1)
        names = [f"{layer}" for layer in layers]
        ends = ("hookpoint", "output")
        # Words have a line of their own, or they would run into the numbers beside them where layers are many.
        first, last = (f"{ends[0]}, {names[0]}", ends[1]) if narrow else (f"{names[0]}\n{ends[0]}", f"\n{ends[1]}")
        axes.set_xticks(places, [first, *names[1:], last])
        if narrow:
            axes.tick_params(axis="x", rotation=90)
        axes.set_xlabel("after layer")
        axes.set_ylabel("lost by then [nats]")
        axes.set_axisbelow(True)
        axes.grid(color=RULE)
        axes.legend(frameon=False, fontsize=9, loc="upper left")

    return draw_twice(
        "damage",
        "Where the damage goes: what the simulation loses against the coder, along its way to the output",
        sentence(diagnosis),
        (3.6, 4.2),
        paint,
    )
