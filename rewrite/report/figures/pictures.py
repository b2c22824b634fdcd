"""A figure in the three forms that a reader meets: a PNG and an SVG file, and a drawing within a page.

The drawing within a page is the same SVG, made to live there:

1. its text stays text, so that it can be searched, read aloud and set in the page's own type;
2. its colours become CSS variables, with the file's colours to fall back on, so that they follow light and dark;
3. its identifiers are its own, and those that nothing refers to go; so does its style sheet, which would be the page's.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#595959"
SKY, PURPLE, RULE = "#56B4E9", "#CC79A7", "#dddddd"
BACKED = {"facecolor": "white", "linewidth": 0, "pad": 1}
"""The ground behind words that stand on a line."""
WIDE, NARROW = 7.6, 3.9
"""Widths of a figure [inches]."""

DPI = 150
VARIABLES = {
    "#000000": "ink",
    "#ffffff": "paper",
    "#dddddd": "rule",
    "#0072b2": "blue",
    "#e69f00": "orange",
    "#009e73": "green",
    "#d55e00": "vermilion",
    "#595959": "grey",
    "#56b4e9": "sky",
    "#cc79a7": "purple",
}
"""The colours of `rewrite.report.figures.arms`, as the page's style sheet names them."""


@dataclass(frozen=True)
class Drawn:
    """A figure as it was drawn, once as wide as a page and once as narrow as a phone; `told` says in words what it
    shows, for those who do not see it."""

    name: str
    title: str
    told: str
    wide: Figure
    narrow: Figure


@dataclass(frozen=True)
class Picture:
    """A figure within a page: two `<svg>` elements, of which the page shows one."""

    name: str
    title: str
    told: str
    wide: str
    narrow: str


def save_picture(drawn: Drawn, folder: Path) -> Picture:
    """Write `<name>.png` and `<name>.svg` and return the drawing for the page."""
    drawn.wide.savefig(folder / f"{drawn.name}.png", dpi=DPI)
    drawn.wide.set_layout_engine(None)  # It was laid out just now, which takes as long as drawing does.
    wide, narrow = _to_svg(drawn.wide, drawn.name), _to_svg(drawn.narrow, f"{drawn.name}-narrow")
    (folder / f"{drawn.name}.svg").write_text(wide, encoding="utf-8")
    texts = [inline(svg, name) for svg, name in ((wide, drawn.name), (narrow, f"{drawn.name}-narrow"))]
    return Picture(drawn.name, drawn.title, drawn.told, *texts)


def _to_svg(figure: Figure, salt: str) -> str:
    """The same figure gives the same bytes: no date, and identifiers that only its name decides."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", dpi=DPI, metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def inline(svg: str, name: str) -> str:
    """A stand-alone SVG as an element of a page, whose label and description the page gives."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda found: _variable(found[0]), svg)
    used = set(re.findall(r"(?:url\(#|href=\"#)([\w-]+)", svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r"(url\(#|href=\"#)([\w-]+)", rf"\1{name}-\2", svg)
    # The page sizes it by its viewBox.
    head = re.sub(r' (?:width|height|version)="[^"]*"', "", svg[: svg.index(">")])
    return f'{head} aria-hidden="true" focusable="false" stroke-linejoin="round"{svg[svg.index(">") :]}'.strip()


def _variable(colour: str) -> str:
    return f"var(--{VARIABLES[colour]}, {colour})" if colour in VARIABLES else colour


def draw_twice(
    name: str, title: str, told: str, height: tuple[float, float], paint: Callable[[Axes, bool], None]
) -> Drawn:
    """A figure in both widths, `height` [inches] of each; `paint` is told whether it is the narrow one."""
    figures = []
    for width, tall, narrow in ((WIDE, height[0], False), (NARROW, height[1], True)):
        figure = open_figure(width, tall)
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        paint(axes, narrow)
        figures.append(figure)
    return Drawn(name, title, told, *figures)


def open_figure(width: float, height: float) -> Figure:
    """A figure of its own, without pyplot's global state, so that nothing depends on a display.

    Matplotlib is imported here, told beforehand to keep to itself that it builds its cache of fonts.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.set_facecolor("white")
    return figure
