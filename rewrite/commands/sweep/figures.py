"""The figures of a sweep: recovered against what varies, a line for every combination of the rest; and seed by seed.

A cell has two intervals: the thick bar is over documents, for these very seeds; the thin one also counts that others
would give other coders. Of two seeds it is wide (Student's t with one degree of freedom), and what leaves the figure is
in the table. Where lines are many, markers tell them apart beside colours, and they stand a little beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rewrite.commands.sweep.curves import Told, is_seed
from rewrite.display.escaping import cut, public, visible
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = "osD^vPX"
NAMES = {"hookpoint": "layer", "coder.latents": "width of the coder [latents]"}
"""What a key is called on an axis."""
FARTHEST = (-50.0, 150.0)
"""Ends of the axis at most [%]."""
BESIDE = 0.012
"""Between the bars of two lines [share of the axis]."""
LONGEST = 28
"""Of a name on an axis [characters]."""


def draw_curves(cells: Sequence[Row], axes: Sequence[str], told: Sequence[Told]) -> list[Drawn]:
    """The figures that these cells and keys allow."""
    keys = [key for key in axes if not is_seed(key)]
    drawn = [_draw_axis(cells, key, [other for other in keys if other != key]) for key in keys]
    if any(key.startswith(("explainer", "explain.")) for key in keys) and any(cell["words"] for cell in cells):
        drawn.append(_draw_words(cells, keys))
    if any(is_seed(key) for key in axes):
        drawn.append(_draw_seeds(cells, keys, told))
    return drawn


def tell_value(value: Any) -> str:
    """A value of a key, short enough for a figure."""
    return cut(visible(public(value) if isinstance(value, str) else str(value)), LONGEST)


def name_cell(cell: Row, keys: Sequence[str]) -> str:
    """What tells a cell from others: its values of some keys."""
    return ", ".join(tell_value(cell[key]) for key in keys) or "all"


def _draw_axis(cells: Sequence[Row], key: str, others: Sequence[str]) -> Drawn:
    """Recovered against one key: on a scale where its values are numbers, else side by side."""
    place, ticks, label = _scale(cells, key)
    lines: dict[str, list[Row]] = {}
    for cell in cells:
        if cell["recovered"] is not None:
            lines.setdefault(name_cell(cell, others), []).append(cell)

    def paint(axes: Axes, narrow: bool) -> None:
        step = BESIDE * (max(map(place, cells)) - min(map(place, cells)))
        for number, (name, own) in enumerate(lines.items()):
            own = sorted(own, key=place)
            beside = step * (number - (len(lines) - 1) / 2)
            _plot(axes, number, [place(cell) + beside for cell in own], own, name if len(lines) > 1 else "")
        if ticks:
            turned = narrow and any(len(tick) > 6 for tick in ticks.values())
            axes.set_xticks(list(ticks), list(ticks.values()), rotation=30 if turned else 0)
        _finish(axes, label)

    title = f"Recovered against {label.partition(' [')[0]}"
    return draw_twice(f"by-{_slug(key)}", title, _tell(cells, [key, *others]), (3.8, 4.2), paint)


def _scale(cells: Sequence[Row], key: str) -> tuple[Callable[[Row], float], dict[float, str], str]:
    """Where a cell stands on the axis of a key, the ticks, and the axis' name."""
    values = list(dict.fromkeys(str(cell[key]) for cell in cells))
    label = NAMES.get(key, key)
    if key == "hookpoint":
        layers = {cell["layer"] for cell in cells}
        if None not in layers and len(layers) == len(values):
            return lambda cell: float(cell["layer"]), {float(layer): str(layer) for layer in sorted(layers)}, label
        label = key
    if all(isinstance(cell[key], int | float) and not isinstance(cell[key], bool) for cell in cells):
        return lambda cell: float(cell[key]), {float(cell[key]): f"{cell[key]:g}" for cell in cells}, label
    told = {float(place): tell_value(value) for place, value in enumerate(values)}
    return lambda cell: float(values.index(str(cell[key]))), told, label


def _draw_words(cells: Sequence[Row], keys: Sequence[str]) -> Drawn:
    """Recovered against the words that explanations came to, a mark a cell."""
    known = [cell for cell in cells if cell["words"] is not None and cell["recovered"] is not None]

    def paint(axes: Axes, narrow: bool) -> None:
        for number, cell in enumerate(known):
            _plot(axes, number, [cell["words"]], [cell], name_cell(cell, keys) if len(known) < 12 else "")
        _finish(axes, "mean words of an explanation")

    told = "; ".join(f"{name_cell(cell, keys)}: {cell['words']:.1f} words, {_share(cell)}" for cell in known)
    title = "Recovered against the words of an explanation"
    return draw_twice("by-words", title, f"{title}. {told}.", (3.8, 4.2), paint)


def _draw_seeds(cells: Sequence[Row], keys: Sequence[str], told: Sequence[Told]) -> Drawn:
    """Every seed's share with its interval over documents, and below them the cell's."""
    known = [cell for cell in cells if cell["recovered"] is not None]
    rows = {one.point.name: one.row for one in told}

    def paint(axes: Axes, narrow: bool) -> None:
        for place, cell in enumerate(known):
            own = [rows[name] for name in cell["points"]]
            for number, row in enumerate(own):
                at = place - 0.2 + 0.4 * (number / max(len(own) - 1, 1))
                axes.plot([100 * end for end in row["recovered_ci"]], [at, at], color=SKY, linewidth=2)
                axes.plot(100 * row["recovered"], at, "o", color=SKY, markersize=4)
            for key, width in (("recovered_ci", 1.0), ("documents_ci", 3.5)):
                axes.plot([100 * end for end in cell[key]], [place + 0.35] * 2, color=BLUE, linewidth=width)
            axes.plot(100 * cell["recovered"], place + 0.35, "D", color=BLUE, markersize=6)
            if narrow:
                where = (0.0, place - 0.42)
                axes.annotate(
                    name_cell(cell, keys),
                    where,
                    xycoords=("axes fraction", "data"),
                    va="center",
                    fontsize=9,
                    bbox=BACKED,
                )
        names = [name_cell(cell, keys) for cell in known]
        axes.set_yticks(range(len(known)), [""] * len(known) if narrow else names)
        axes.set_ylim(len(known) - 0.4, -0.7)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, FARTHEST[0]), min(high, FARTHEST[1]))
        axes.set_xlabel("recovered [%]")
        axes.grid(axis="x", color=RULE)

    height = 1.0 + 0.75 * len(known)
    title = "Seed by seed (dots, over documents), and all together (diamonds, over seeds and documents)"
    return draw_twice("by-seed", title, _tell(cells, keys), (height, height), paint)


def _plot(axes: Axes, number: int, places: Sequence[float], cells: Sequence[Row], name: str) -> None:
    """A line of cells, each with both intervals."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    for place, cell in zip(places, cells, strict=True):
        for key, width in (("recovered_ci", 1.0), ("documents_ci", 3.5)):
            axes.plot([place] * 2, [100 * end for end in cell[key]], color=colour, linewidth=width, alpha=0.7)
    shares = [100 * cell["recovered"] for cell in cells]
    axes.plot(places, shares, color=colour, marker=marker, markersize=6, linewidth=1.5, label=name or None)


def _finish(axes: Axes, label: str) -> None:
    axes.axhline(0, color=GREY, linewidth=1)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, FARTHEST[0]), min(high, FARTHEST[1]))
    axes.set_xlabel(label)
    axes.set_ylabel("recovered [%]")
    axes.grid(color=RULE)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=9)


def _tell(cells: Sequence[Row], keys: Sequence[str]) -> str:
    told = "; ".join(f"{name_cell(cell, keys)}: {_share(cell)}" for cell in cells)
    return f"Share of the gap recovered, with its interval. {told}."


def _share(cell: Row) -> str:
    if cell["recovered"] is None:
        return "gap not told from 0"
    low, high = cell["recovered_ci"]
    return f"{100 * cell['recovered']:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"


def _slug(key: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in key)
