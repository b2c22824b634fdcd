"""How numbers and foreign text are written, with the same digits on the page and in Markdown."""

from __future__ import annotations

from typing import Any

from rewrite.display import escaping
from rewrite.report.arms import name_plainly
from rewrite.report.figures import places as place_figures
from rewrite.statistics.losses import name_arm
from rewrite.statistics.verdict import format_p

WIDTH = 300
"""Longest cell of a Markdown table [characters]."""


def format_cell(value: object) -> str:
    """Any text as one cell of a Markdown table."""
    return escaping.markdown(value, WIDTH).strip() or escaping.NONE


def format_number(value: float | None, digits: int = 4) -> str:
    """A number with fixed digits, and no minus before a zero."""
    return escaping.NONE if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def format_significant(value: float | None, digits: int = 2) -> str:
    """A number of any size with a few digits that say something."""
    return escaping.NONE if value is None else f"{value:.{digits}g}"


def format_ends(ends: list[float] | None, scale: float = 1.0, digits: int = 4) -> str:
    """An interval in brackets, empty where there is none."""
    return "[" + ", ".join(format_number(scale * end, digits) for end in ends) + "]" if ends else ""


def format_percent(value: float | None) -> str:
    """A share in percent."""
    return escaping.NONE if value is None else f"{format_number(100 * value, 1)}%"


def format_share(value: float | None) -> str:
    """A share of any size in percent."""
    return escaping.NONE if value is None else f"{100 * value:.3g}%"


def format_p_cell(p: float) -> str:
    """As `rewrite.statistics.verdict.format_p`, without the letter that heads the column."""
    return format_p(p).removeprefix("p ").removeprefix("= ")


def format_count(value: int | None) -> str:
    """A whole number with its thousands apart."""
    return escaping.NONE if value is None else f"{value:,}"


FILTERS: dict[str, Any] = {
    "cell": format_cell,
    "nats": format_number,
    "significant": format_significant,
    "share": format_share,
    "ends": format_ends,
    "percent": format_percent,
    "p": format_p_cell,
    "count": format_count,
    "arm": name_arm,
    "plainly": name_plainly,
    "bin": place_figures.name_bin,
}
"""What a template may write after a bar."""
