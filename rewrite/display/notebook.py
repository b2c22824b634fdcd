"""What objects show of themselves in a notebook: pages as tables, strengths behind a text's tokens, shares as bars.

Whatever comes from a run is escaped (`rewrite.display.escaping`); colours are washes over the notebook's own ground, so
that they read by day and by night.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from rewrite.display.escaping import visible
from rewrite.display.tables import Page, Table, numeric

CELL = "padding:2px 10px;white-space:pre-wrap;vertical-align:top;text-align:"
WASH = "rgba(255,140,0,{:.2f})"
TOKENS = "font-family:monospace;line-height:1.9;white-space:pre-wrap;margin:2px 0"
TRACK = "display:inline-block;width:120px;height:9px;background:linear-gradient(to right,{0} {1:.0f}%,{2} {1:.0f}%)"


class Shown:
    """Something that tells itself as a `Page`: a table in a notebook, plain text elsewhere."""

    def page(self) -> Page:
        """All that is shown."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.page().write("table")

    def _repr_html_(self) -> str:
        return page_html(self.page())


def page_html(page: Page) -> str:
    """A page's title, tables and notes."""
    parts = [f"<p><b>{show(page.title)}</b></p>", *(table_html(table) for table in page.tables)]
    return "\n".join([*parts, *(f"<p>{show(note)}</p>" for note in page.notes)])


def table_html(table: Table, bars: Sequence[float | None] = ()) -> str:
    """A table under its heading, maybe with a bar for a share of each row at its end."""
    sides = ["right" if right else "left" for right in numeric(table)]
    heads, rows = _cells("th", table.heads, sides), []
    for number, row in enumerate(table.rows):
        last = f"<td>{bar_html(bars[number])}</td>" if bars else ""
        rows.append(f"<tr>{_cells('td', row, sides)}{last}</tr>")
    caption = f'<caption style="text-align:left">{show(table.heading)}</caption>' if table.heading else ""
    return f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cells(tag: str, row: Sequence[str], sides: Sequence[str]) -> str:
    return "".join(f'<{tag} style="{CELL}{side}">{show(cell)}</{tag}>' for cell, side in zip(row, sides, strict=True))


def bar_html(share: float | None) -> str:
    """A bar that is full at 1, cut at both ends; empty where the share is not known."""
    if share is None:
        return ""
    style = TRACK.format(WASH.format(0.9), 100 * min(max(share, 0.0), 1.0), "rgba(128,128,128,.25)")
    return f'<span style="{style}"></span>'


def tokens_html(tokens: Sequence[str], shares: Sequence[float | None], told: Sequence[str]) -> str:
    """A line of tokens; behind each a wash as strong as its share of the top, 0 to 1, and what is told on hovering.

    None is a value that is not known or not asked for: such a token is dim.
    """
    spans = []
    for token, share, title in zip(tokens, shares, told, strict=True):
        style = "opacity:.5" if share is None else f"background:{WASH.format(0.9 * min(share, 1.0))}" if share else ""
        spans.append(f'<span style="{style}" title="{html.escape(title)}">{show(token)}</span>')
    return f'<div style="{TOKENS}">{"".join(spans)}</div>'


def show(text: object) -> str:
    """Any text as text."""
    return html.escape(visible(text))
