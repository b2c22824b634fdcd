"""Tables of words and numbers: on a terminal, as plain text, as Markdown, and the same facts as JSON.

1. A `Page` holds a title, tables, notes and a command for a reader, and `facts` for a program.
2. `Page.write` gives one of three forms. The plain form has no colours or rules, so it may be piped anywhere.
3. `show` prints a page: for a person at a terminal with colours, wrapped to its width, and plain otherwise.
4. Whatever a run or a file is called stays text in its cell (`rewrite.display.escaping`); no markup of any kind is
   obeyed.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rewrite.display.escaping import NONE, cut, markdown, one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table as RichTable
    from rich.text import Text

Form = Literal["table", "markdown", "json"]
Row = dict[str, Any]

WIDTH = 120
"""Longest cell of the plain form and of Markdown [characters]."""
WORD, GAP = 24, 2
"""On a terminal: a longer word may be broken, and the space between columns [characters]."""
NUMBER = re.compile(r"[+\-\d<≤$\[].*|–")
STYLES = {
    "better": "green",
    "fresh": "green",
    "worse": "red",
    "damaged": "red",
    "stale": "yellow",
    "interrupted": "yellow",
    "running": "cyan",
}
"""Colours on a terminal of cells that begin with a word."""


@dataclass(frozen=True)
class Table:
    """A table under a heading; every row has a cell for each of `heads`."""

    heading: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Page:
    """What a command says: for a reader, and as JSON."""

    title: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    facts: Row
    command: str = ""
    """What to type next; it is never wrapped or escaped, so that it can be copied."""

    def write(self, form: Form) -> str:
        """The page in one of its forms, without a last line break."""
        if form == "json":
            return json.dumps(self.facts, indent=1, ensure_ascii=False, allow_nan=False).encode(*LOSSY).decode()
        command = [f"    {one_line(self.command)}"] if self.command else []
        if form == "markdown":
            parts = [f"# {markdown(self.title)}", *map(_markdown, self.tables), *map(markdown, self.notes), *command]
        else:
            parts = [one_line(self.title), *map(_plain, self.tables), *map(one_line, self.notes), *command]
        return "\n\n".join(parts)


LOSSY = ("utf-8", "replace")


def show(page: Page) -> None:
    """Print a page, as suits where the output goes."""
    if sys.stdout.isatty():
        from rich.console import Console

        show_on(Console(markup=False, highlight=False, emoji=False), page)
    else:
        sys.stdout.write(page.write("table") + "\n")


def say(text: str) -> None:
    """Print what is long; a reader such as `head` may stop listening before its end."""
    try:
        print(text.rstrip(), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- on a terminal ----------------------------------------------------------------------------------------------------


def show_on(console: Console, page: Page) -> None:
    """The page with colours (none where NO_COLOR is set), nothing cut: what is too wide is wrapped."""
    console.print(_text(page.title, "bold"))
    for table in page.tables:
        console.print()
        console.print(_text(table.heading, "underline"))
        widths = _find_widths(table, console.width)
        console.print(_records(table) if widths is None else _grid(table, widths))
    for note in page.notes:
        console.print()
        console.print(_text(note))
    if page.command:
        console.print()
        console.print(_text(f"    {page.command}", "bold"), soft_wrap=True)


def _find_widths(table: Table, room: int) -> list[int] | None:
    """The columns' widths so that all fit into the room; None where they cannot.

    A number stands on one line; other cells break between words, or in a word that is very long.
    """
    widths, least = [], []
    for column, right in enumerate(numeric(table)):
        cells = [one_line(row[column]) for row in (table.heads, *table.rows)]
        words = [min(_width(word), WORD) for cell in cells for word in cell.split()]
        widths.append(min(max(map(_width, cells)), room))
        least.append(widths[-1] if right else max(words, default=1))
    room -= GAP * (len(widths) - 1)
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max((i for i in range(len(widths)) if widths[i] > least[i]), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _grid(table: Table, widths: list[int]) -> RichTable:
    """Row by row."""
    from rich.table import Table as RichTable

    grid = RichTable(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for head, right, width in zip(table.heads, numeric(table), widths, strict=True):
        grid.add_column(_text(head), justify="right" if right else "left", overflow="fold", width=width)
    for row in table.rows:
        grid.add_row(*_styled(row))
    return grid


def _records(table: Table) -> RenderableType:
    """A row's cells under each other, for a terminal that is too narrow for them side by side."""
    from rich.console import Group
    from rich.table import Table as RichTable

    records: list[RenderableType] = []
    for row in table.rows:
        record = RichTable.grid(padding=(0, GAP, 0, 0))
        record.add_column(overflow="fold")
        record.add_column(overflow="fold")
        for head, cell in zip(table.heads, _styled(row), strict=True):
            record.add_row(_text(head, "bold"), cell)
        records.extend(["", record])
    return Group(*records)


def _styled(row: tuple[str, ...]) -> list[Text]:
    """A row's cells; the first is a name, which may be any word."""
    first, *others = (one_line(cell).strip() or NONE for cell in row)
    return [_text(first), *(_text(cell, STYLES.get(cell.split(":")[0], "")) for cell in others)]


def _text(text: str, style: str = "") -> Text:
    """Text as it is: rich would obey brackets in a plain string."""
    from rich.text import Text

    return Text(one_line(text), style=style, overflow="fold")


# --- as plain text and Markdown ---------------------------------------------------------------------------------------


def _cut(value: str) -> str:
    return cut(one_line(value).strip() or NONE, WIDTH)


def _markdown(table: Table) -> str:
    cells = [[markdown(_cut(cell)) for cell in row] for row in (table.heads, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    rule = "|" + "|".join("---:" if right else "---" for right in numeric(table)) + "|"
    return "\n".join([f"## {markdown(table.heading)}", "", lines[0], rule, *lines[1:]])


def _plain(table: Table) -> str:
    cells = [[_cut(cell) for cell in row] for row in (table.heads, *table.rows)]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(table.heads))]
    rights = numeric(table)
    lines = [
        "  ".join(_pad(cell, width, right) for cell, width, right in zip(row, widths, rights, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([one_line(table.heading), *("  " + line for line in lines)])


def numeric(table: Table) -> list[bool]:
    """Which columns are numbers and stand to the right; the first names its row."""
    return [i > 0 and all(NUMBER.fullmatch(row[i]) for row in table.rows) for i in range(len(table.heads))]


def _pad(text: str, width: int, right: bool) -> str:
    gap = " " * (width - _width(text))
    return gap + text if right else text + gap


def _width(text: str) -> int:
    """Columns of a terminal that a text takes: wide characters take two, marks on a letter none."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


# --- words for numbers ------------------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 4) -> str:
    """A number with fixed digits and no minus before a zero."""
    return NONE if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """The same with its sign."""
    return NONE if value is None else f"{round(value, digits) + 0.0:+.{digits}f}"


def ranged(value: float | None, ends: list[float] | None, digits: int = 4, scale: float = 1.0) -> str:
    """A value with its interval in brackets."""
    if value is None:
        return NONE
    interval = "" if ends is None else " [" + ", ".join(number(scale * end, digits) for end in ends) + "]"
    return number(scale * value, digits) + interval


def chance(p: float | None) -> str:
    """A p value."""
    if p is None:
        return NONE
    return "< 1e-15" if p < 1e-15 else f"{p:.2g}"


def count(value: int | None) -> str:
    """A whole number with its thousands apart."""
    return NONE if value is None else f"{value:,}"


def dollars(value: float | None) -> str:
    """Money; small sums keep two digits that say something."""
    if value is None:
        return NONE
    return f"${value:,.2f}" if value == 0 or value >= 0.1 else f"${value:.2g}"


def size(count: int | None) -> str:
    """Bytes in the unit that they fill."""
    if count is None:
        return NONE
    units = ("B", "KB", "MB", "GB", "TB")
    step = min(int(math.log(count, 1000)), len(units) - 1) if count else 0
    return f"{count / 1000**step:.{1 if step else 0}f} {units[step]}"
