"""The report's main figures, drawn from the content of 6_stats.json alone: each as wide as a page, and for a phone.

They show paired intervals: a document that is hard is hard for every arm, so the spread between documents, many times
wider than the error of a difference, says nothing about which arm is better. Colours are Okabe and Ito's, which readers
with any colour vision tell apart; markers and line styles say the same again. What a figure shows stands beside it in
words, for those who do not see it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rewrite.report.arms import CURVES, PARTS, cover, name_plainly, select_curve, select_ladder
from rewrite.report.figures.pictures import (
    BACKED,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RULE,
    SKY,
    VERMILION,
    Drawn,
    draw_twice,
)
from rewrite.statistics.losses import name_arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]

COLOURS = {"clean": GREEN, "coder": GREEN, "simulated": BLUE, "simulated_topk": BLUE}
COLOURS |= dict.fromkeys(("quantised", "true_active", "simulated_active", "matched", "hits"), SKY)
COLOURS |= dict.fromkeys(("shuffled", "random", "unread", "token_table", "linear_probe"), PURPLE)
STYLES = {
    ("simulated", "best"): (BLUE, "o", "-"),
    ("simulated", "random"): (ORANGE, "s", "-"),
    ("simulated_topk", "best"): (BLUE, "^", "--"),
    ("simulated_topk", "random"): (ORANGE, "v", "--"),
}
LEVELS = {"coder": (GREEN, "-", "coder: true latents"), "zero": (VERMILION, "-", "zero: no latents")}


def draw_ladder(stats: Row) -> Drawn:
    """Each arm's loss above the clean model's with its paired interval, and beside it the share of the gap."""
    rows = select_ladder(stats)

    def paint(axes: Axes, narrow: bool) -> None:
        for place, row in enumerate(rows):
            colour = COLOURS.get(row["arm"], VERMILION if row["arm"].startswith("zero") else GREY)
            low, high = row["increase_ci"]
            axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
            axes.plot(row["increase"], place, "o", color=colour, markersize=6)
            note = f"  {row['loss']:.3f}{_share_note(row)}"
            axes.annotate(note, (high, place), (5, 0), "data", "offset points", va="center", fontsize=9, color=GREY)
        _name_rows(axes, [name_plainly(row) for row in rows], narrow)
        axes.margins(x=0.05)
        _leave_room(axes, 0.5 if narrow else 0.28)
        axes.set_xlabel("loss above the clean model [nats per token]")
        axes.grid(axis="x", color=RULE)

    told = "; ".join(f"{name_plainly(row)} ({name_arm(row)}): {row['increase']:.3f}{_share_note(row)}" for row in rows)
    return draw_twice(
        "ladder",
        f"Loss of each arm with its {cover(stats)} paired interval, and in brackets the share of the gap recovered",
        f"Loss above the clean model in nats per token, and share of the gap, best first. {told}.",
        (0.7 + 0.235 * len(rows), 0.8 + 0.56 * len(rows)),
        paint,
    )


def _name_rows(axes: Axes, names: list[str], narrow: bool) -> None:
    """The rows' names, first row on top: beside the axes, or where there is little room above each row."""
    axes.set_yticks(range(len(names)), [""] * len(names) if narrow else names)
    axes.set_ylim(len(names) - 0.4, -0.9 if narrow else -0.6)
    if narrow:
        axes.tick_params(axis="y", length=0)
        for place, name in enumerate(names):
            where = (0.02, place - 0.42)
            axes.annotate(name, where, xycoords=("axes fraction", "data"), va="center", fontsize=9, bbox=BACKED)


def _leave_room(axes: Axes, share: float) -> None:
    """Room on the right, for what stands beside the values."""
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + share * (right - left))


def _share_note(row: Row) -> str:
    return f" ({100 * row['recovered']:.0f}%)" if row["recovered_ci"] is not None else ""


def draw_split(stats: Row) -> Drawn:
    """What the simulation lost, part after part from the coder's loss to its own, each with its paired interval."""
    rows = stats["split"]

    def paint(axes: Axes, narrow: bool) -> None:
        begin = 0.0
        for place, row in enumerate(rows):
            axes.barh(place, row["nats"], left=begin, color=(BLUE, ORANGE, VERMILION)[place], height=0.45)
            axes.plot([begin + end for end in row["ci"]], [place, place], color="black", linewidth=1.5)
            right = begin + max(0.0, *row["ci"])
            note = f" {row['nats']:+.3f}{_part_share(row)}"
            axes.annotate(note, (right, place), va="center", fontsize=9, color=GREY, bbox=BACKED)
            begin += row["nats"]
        axes.set_axisbelow(True)
        axes.axvline(0, color=GREEN, linewidth=1.5)
        axes.axvline(begin, color=BLUE, linewidth=1.5, linestyle="--")
        _name_rows(axes, [PARTS[row["part"]] for row in rows], narrow)
        _leave_room(axes, 0.45 if narrow else 0.25)
        axes.set_xlabel("loss above the coder's [nats per token]")
        axes.grid(axis="x", color=RULE)

    told = "; ".join(f"{PARTS[row['part']]}: {row['nats']:+.3f}{_part_share(row)}" for row in rows)
    return draw_twice(
        "split",
        f"What the simulation lost, from the coder (line at 0) to the simulation (dashed), with {cover(stats)} paired "
        "intervals",
        f"Nats per token lost, in three parts that add up. {told}.",
        (2.5, 2.7),
        paint,
    )


def _part_share(row: Row) -> str:
    return f" ({100 * row['share']:.0f}%)" if row["share"] is not None else ""


def draw_fractions(stats: Row) -> Drawn:
    """Loss against the share of latents simulated, a curve for each order, between the coder's and zero's lines."""
    curves = {place: rows for place in CURVES if (rows := select_curve(stats, *place))}

    def paint(axes: Axes, narrow: bool) -> None:
        _paint_levels(axes, stats)
        for place, rows in curves.items():
            _paint_curve(axes, stats, place, rows)
        _scale_fractions(axes, sorted({row["fraction"] for rows in curves.values() for row in rows}), narrow)
        axes.set_xlabel("share of the latents that are simulated")
        axes.set_ylabel("loss [nats per token]")
        axes.grid(color=RULE)
        if stats["gap"]["ci"][0] > 0:
            _add_share_axis(axes, _single(stats, "zero")["loss"], stats["gap"]["nats"])
        if narrow:
            axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.0, 1.0))
        else:
            axes.legend(frameon=False, fontsize=9, loc="best")

    told = "; ".join(
        f"{CURVES[place]}: " + ", ".join(f"{100 * row['fraction']:.3g}% {row['loss']:.3f}" for row in rows)
        for place, rows in curves.items()
    )
    return draw_twice(
        "fractions",
        f"Loss against the share of the latents that are simulated, the others true; bands are {cover(stats)} paired "
        "intervals",
        f"Loss in nats per token at each share of latents simulated. {told}.",
        (4.4, 4.6),
        paint,
    )


def _single(stats: Row, arm: str) -> Row:
    """The row of an arm that stands once."""
    return next(row for row in stats["arms"] if row["arm"] == arm and row["fraction"] is None)


def _paint_levels(axes: Axes, stats: Row) -> None:
    clean = _single(stats, "clean")["loss"]
    for name, (colour, style, label) in LEVELS.items():
        row = _single(stats, name)
        low, high = (clean + end for end in row["increase_ci"])
        axes.axhspan(low, high, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(row["loss"], color=colour, linestyle=style, linewidth=1.5, label=label)


def _paint_curve(axes: Axes, stats: Row, place: tuple[str, str], rows: list[Row]) -> None:
    colour, marker, style = STYLES[place]
    clean, shares = _single(stats, "clean")["loss"], [row["fraction"] for row in rows]
    bands = [[clean + row["increase_ci"][end] for row in rows] for end in (0, 1)]
    axes.fill_between(shares, bands[0], bands[1], color=colour, alpha=0.2, linewidth=0)
    front = 3 if place[1] == "best" else 2
    losses = [row["loss"] for row in rows]
    axes.plot(shares, losses, marker, color=colour, linestyle=style, label=CURVES[place], markersize=5, zorder=front)


def _add_share_axis(axes: Axes, zero: float, gap: float) -> None:
    """The same losses as shares of the gap, on the right."""

    def to_share(loss: Any) -> Any:
        return 100 * (zero - loss) / gap

    def to_loss(share: Any) -> Any:
        return zero - share * gap / 100

    right = axes.secondary_yaxis("right", functions=(to_share, to_loss))
    right.set_ylabel("share of the gap recovered [%]")


def _scale_fractions(axes: Axes, fractions: list[float], narrow: bool) -> None:
    """A logarithmic axis with a mark for every fraction that leaves its neighbours room; linear next to 0."""
    positive = [fraction for fraction in fractions if fraction > 0]
    if len(positive) > 1 and fractions[0] > 0:
        axes.set_xscale("log")
    elif len(positive) > 1:
        axes.set_xscale("symlog", linthresh=positive[0])
    kept: list[float] = []
    for fraction in reversed(fractions):
        if not kept or fraction == 0 or kept[-1] / fraction >= (2.6 if narrow else 1.45):
            kept.append(fraction)
    axes.set_xticks(kept, [f"{100 * fraction:.3g}%" for fraction in kept])
    axes.minorticks_off()
