"""The report's figures, drawn from the content of 6_stats.json alone.

Both figures show paired intervals: a document that is hard is hard for every arm, so the spread between documents, many
times wider than the error of a difference, says nothing about which arm is better. Colours are Okabe and Ito's, which
readers with any colour vision tell apart; markers and line styles say the same again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#595959"
SKY, PURPLE = "#56B4E9", "#CC79A7"
COLOURS = {"clean": GREEN, "coder": GREEN, "simulated": BLUE, "simulated_topk": BLUE}
COLOURS |= dict.fromkeys(("quantised", "true_active", "simulated_active", "matched", "hits"), SKY)
COLOURS |= dict.fromkeys(("shuffled", "random", "token_table", "linear_probe"), PURPLE)
PARTS = {
    "magnitude": "magnitude: wrong strength where both fire",
    "sensitivity": "sensitivity: firings missed",
    "specificity": "specificity: firings added, and rest",
}
CURVES = {
    ("simulated", "best"): (BLUE, "o", "-", "best-explained latents first"),
    ("simulated", "random"): (ORANGE, "s", "-", "random order"),
    ("simulated_topk", "best"): (BLUE, "^", "--", "best first, k strongest kept"),
    ("simulated_topk", "random"): (ORANGE, "v", "--", "random order, k strongest kept"),
}
LEVELS = {"coder": (GREEN, "-", "coder: true latents"), "zero": (VERMILION, "-", "zero: no latents")}
DPI = 150


def select_ladder(stats: Row) -> list[Row]:
    """The arms that stand once, the drawn controls, and the simulated ones at the largest fraction; best loss first."""
    best = [row for row in stats["arms"] if row["order"] == "best"]
    largest = max(row["fraction"] for row in best)
    rows = [row for row in stats["arms"] if row["fraction"] is None]
    rows += [row for row in stats["averages"] if row["order"] == ""]
    rows += [row for row in best if row["fraction"] == largest]
    return sorted(rows, key=lambda row: (row["loss"], row["arm"]))


def name_arm(row: Row) -> str:
    """An arm as a reader meets it: `simulated, 40% best`, `shuffled, mean of 5 draws`."""
    if row["fraction"] is None:
        return str(row["arm"])
    if row["order"] == "":
        return f"{row['arm']}, mean of {row['seeds']} draws" if "seeds" in row else str(row["arm"])
    return f"{row['arm']}, {100 * row['fraction']:.3g}%" + (f" {row['order']}" if row["fraction"] < 1 else "")


def draw_ladder(stats: Row, path: Path) -> None:
    """Each arm's loss above the clean model's with its paired interval, and above it the share of the gap."""
    rows = select_ladder(stats)
    figure = open_figure(7.6, 1.7 + 0.42 * len(rows))
    axes = figure.subplots()
    for place, row in enumerate(rows):
        colour = COLOURS.get(row["arm"], VERMILION if row["arm"].startswith("zero") else GREY)
        low, high = row["increase_ci"]
        axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot(row["increase"], place, "o", color=colour, markersize=7)
        note = f"  {row['loss']:.3f}" + _share_note(row)
        ink = GREY if colour in (SKY, PURPLE) else colour
        axes.annotate(note, (high, place), (5, 0), "data", "offset points", va="center", fontsize=9, color=ink)
    axes.set_yticks(range(len(rows)), [name_arm(row) for row in rows])
    axes.invert_yaxis()
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.05)
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + 0.28 * (right - left))
    axes.set_xlabel(f"loss above the clean model [nats per token], {_cover(stats)} paired interval")
    axes.grid(axis="x", color="#dddddd")
    axes.set_title("Loss of each arm, and in brackets the share of the gap recovered", loc="left", fontsize=11)
    figure.savefig(path, dpi=DPI)


def _share_note(row: Row) -> str:
    return f"  ({100 * row['recovered']:.0f}%)" if row["recovered_ci"] is not None else ""


def draw_split(stats: Row, path: Path) -> None:
    """What the simulation lost, part after part from the coder's loss to its own, each with its paired interval."""
    figure = open_figure(7.6, 2.9)
    axes = figure.subplots()
    begin = 0.0
    for place, row in enumerate(stats["split"]):
        axes.barh(place, row["nats"], left=begin, color=(BLUE, ORANGE, VERMILION)[place], height=0.55)
        axes.plot([begin + end for end in row["ci"]], [place, place], color="black", linewidth=1.5)
        share = f" ({100 * row['share']:.0f}%)" if row["share"] is not None else ""
        axes.annotate(
            f"  {row['nats']:+.3f}{share}", (begin + max(0.0, *row["ci"]), place), va="center", fontsize=9, color=GREY
        )
        begin += row["nats"]
    axes.set_axisbelow(True)
    axes.axvline(0, color=GREEN, linewidth=1.5)
    axes.axvline(begin, color=BLUE, linewidth=1.5, linestyle="--")
    axes.set_yticks(range(len(stats["split"])), [PARTS[row["part"]] for row in stats["split"]])
    axes.invert_yaxis()
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + 0.25 * (right - left))
    axes.set_xlabel(f"loss above the coder's [nats per token], {_cover(stats)} paired interval")
    axes.grid(axis="x", color="#dddddd")
    axes.set_title("From the coder to the simulation (dashed)", loc="left", fontsize=11)
    figure.savefig(path, dpi=DPI)


def draw_fractions(stats: Row, path: Path) -> None:
    """Loss against the share of latents simulated, a curve for each order, between the coder's and zero's lines."""
    figure = open_figure(7.6, 4.6)
    axes = figure.subplots()
    single = {row["arm"]: row for row in stats["arms"] if row["fraction"] is None}
    clean = single["clean"]["loss"]
    for name, (colour, style, label) in LEVELS.items():
        low, high = (clean + end for end in single[name]["increase_ci"])
        axes.axhspan(low, high, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(single[name]["loss"], color=colour, linestyle=style, linewidth=1.5, label=label)
    shown: set[float] = set()
    for (arm, order), (colour, marker, style, label) in CURVES.items():
        rows = select_curve(stats, arm, order)
        if rows:
            places = [row["fraction"] for row in rows]
            shown.update(places)
            bands = [[clean + row["increase_ci"][end] for row in rows] for end in (0, 1)]
            axes.fill_between(places, bands[0], bands[1], color=colour, alpha=0.2, linewidth=0)
            losses = [row["loss"] for row in rows]
            front = 3 if order == "best" else 2
            axes.plot(places, losses, marker, color=colour, linestyle=style, label=label, markersize=5, zorder=front)
    _scale_fractions(axes, sorted(shown))
    axes.set_xlabel("share of the latents that are simulated, the others keep their true activations")
    axes.set_ylabel("loss [nats per token]")
    axes.set_title(f"Loss against the share simulated (bands: {_cover(stats)} paired)", loc="left", fontsize=11)
    axes.grid(color="#dddddd")
    if stats["gap"]["ci"][0] > 0:
        _add_share_axis(axes, single["zero"]["loss"], stats["gap"]["nats"])
    axes.legend(frameon=False, fontsize=9, loc="best")
    figure.savefig(path, dpi=DPI)


def _add_share_axis(axes: Axes, zero: float, gap: float) -> None:
    """The same losses as shares of the gap, on the right."""

    def to_share(loss: Any) -> Any:
        return 100 * (zero - loss) / gap

    def to_loss(share: Any) -> Any:
        return zero - share * gap / 100

    right = axes.secondary_yaxis("right", functions=(to_share, to_loss))
    right.set_ylabel("share of the gap recovered [%]")


def select_curve(stats: Row, arm: str, order: str) -> list[Row]:
    """One row per fraction, ascending; a random order ends in the fraction 1 that it shares with the best order."""
    source = stats["averages"] if order == "random" else stats["arms"]
    rows = [row for row in source if (row["arm"], row["order"]) == (arm, order)]
    if rows and order == "random":
        rows += [row for row in stats["arms"] if (row["arm"], row["fraction"], row["order"]) == (arm, 1.0, "best")]
    return sorted(rows, key=lambda row: float(row["fraction"]))


def _scale_fractions(axes: Axes, fractions: list[float]) -> None:
    """A logarithmic axis with a mark for every fraction that leaves its neighbours room; linear next to 0."""
    positive = [fraction for fraction in fractions if fraction > 0]
    if len(positive) > 1 and fractions[0] > 0:
        axes.set_xscale("log")
    elif len(positive) > 1:
        axes.set_xscale("symlog", linthresh=positive[0])
    kept: list[float] = []
    for fraction in reversed(fractions):
        if not kept or fraction == 0 or kept[-1] / fraction >= 1.45:
            kept.append(fraction)
    axes.set_xticks(kept, [f"{100 * fraction:.3g}%" for fraction in kept])
    axes.minorticks_off()


def _cover(stats: Row) -> str:
    return f"{100 * (1 - stats['alpha']):.3g}%"


def open_figure(width: float, height: float) -> Figure:
    """A figure of its own, without pyplot's global state, so that nothing depends on a display.

    Matplotlib is imported here, told beforehand to keep to itself that it builds its cache of fonts.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.set_facecolor("white")
    return figure
