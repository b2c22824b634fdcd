"""Tables of words and numbers as plain text, as Markdown, and the same facts as JSON.

1. A `Page` holds a title, tables and notes for a reader, and `facts` for a program.
2. `Page.write` gives one of three forms. The plain form has no colours or rules, so it may be piped anywhere.
3. Whatever a run or a file is called stays text in its cell: no control characters, no Markdown, no HTML.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal

Form = Literal["table", "markdown", "json"]
Row = dict[str, Any]

WIDTH = 120
"""Longest cell [characters]."""
NONE = "–"
"""What stands for a value that is not known; a missing value is never 0."""

# Whitespace of every kind, control characters, and marks that turn the direction of writing.
UNSEEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
MARKUP = re.compile(r"([\\`*_\[\]|~$#])")
NUMBER = re.compile(r"[+\-\d<≤$\[].*|–")


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

    def write(self, form: Form) -> str:
        """The page in one of its forms, without a last line break."""
        if form == "json":
            return json.dumps(self.facts, indent=1, ensure_ascii=False, allow_nan=False).encode(*LOSSY).decode()
        if form == "markdown":
            parts = [f"# {escape(self.title)}", *map(_markdown, self.tables), *map(escape, self.notes)]
        else:
            parts = [clean(self.title), *map(_plain, self.tables), *map(clean, self.notes)]
        return "\n\n".join(parts)


LOSSY = ("utf-8", "replace")


def clean(value: object) -> str:
    """Any text on one line, without anything that a terminal would obey."""
    return UNSEEN.sub(" ", str(value)).encode(*LOSSY).decode()


def escape(value: object) -> str:
    """Any text on one line of Markdown that shows the text itself."""
    text = clean(value).replace("&", "&amp;").replace("<", "&lt;")
    return MARKUP.sub(r"\\\1", text)


def _cut(value: str) -> str:
    text = clean(value).strip() or NONE
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def _markdown(table: Table) -> str:
    cells = [[escape(_cut(cell)) for cell in row] for row in (table.heads, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    rule = "|" + "|".join("---:" if right else "---" for right in _rights(table)) + "|"
    return "\n".join([f"## {escape(table.heading)}", "", lines[0], rule, *lines[1:]])


def _plain(table: Table) -> str:
    cells = [[_cut(cell) for cell in row] for row in (table.heads, *table.rows)]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(table.heads))]
    rights = _rights(table)
    lines = [
        "  ".join(_pad(cell, width, right) for cell, width, right in zip(row, widths, rights, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([clean(table.heading), *("  " + line for line in lines)])


def _rights(table: Table) -> list[bool]:
    """The columns of numbers, which stand to the right; the first names its row."""
    return [i > 0 and all(NUMBER.fullmatch(row[i]) for row in table.rows) for i in range(len(table.heads))]


def _pad(text: str, width: int, right: bool) -> str:
    gap = " " * (width - _width(text))
    return gap + text if right else text + gap


def _width(text: str) -> int:
    """Columns of a terminal that a text takes: wide characters take two, marks on a letter none."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


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
