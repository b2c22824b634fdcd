"""Text that others wrote, shown as text wherever it lands: a terminal, Markdown, a page, a spreadsheet.

1. `visible` keeps every character and makes those that cannot be seen, or that turn the direction of writing, symbols.
2. `one_line` puts a space in their place: for a terminal and for Markdown, where a symbol would only disturb.
3. `markdown` and `csv_cell` go on to take away what the format itself would obey: markup and formulas.
"""

from __future__ import annotations

import math
import re
from pathlib import PurePath

NONE = "–"
"""What stands for a value that is not known; a missing value is never 0."""

# Whitespace of every kind, control characters, letters and marks that are not seen or turn the direction of writing,
# and halves of surrogate pairs, which no file can hold. Variation selectors stay: they belong to many an emoji.
UNSEEN = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\u2800\u3164\uffa0\ufff9-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
NAMED = {"\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡"}
MARKUP = re.compile(r"([\\`*_\[\]|~$#])")
LINK = re.compile(r":(?=//)|(?<=www)\.", re.IGNORECASE)
FORMULA = re.compile(r"\s*[=+\-@|%\uff1d\uff0b\uff0d\uff20]")


def visible(text: object) -> str:
    """The text with a symbol for every character that is not seen: `⏎`, `⇥`, `␀`, `⟨U+202E⟩`. Spaces stay."""
    return UNSEEN.sub(lambda found: _symbol(found[0]), str(text))


def _symbol(letter: str) -> str:
    if letter == " ":
        return letter
    if letter in NAMED:
        return NAMED[letter]
    number = ord(letter)
    return chr(0x2400 + number) if number < 0x20 else f"⟨U+{number:04X}⟩"


def one_line(text: object) -> str:
    """The text on one line, without anything that a terminal would obey."""
    return UNSEEN.sub(" ", str(text))


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, an ellipsis at the end of what was longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def markdown(text: object, limit: int = 0) -> str:
    """The text on one line of Markdown that shows the text itself: no markup, HTML or link; cut to `limit`, if any."""
    plain = one_line(text)
    plain = (cut(plain, limit) if limit else plain).replace("&", "&amp;").replace("<", "&lt;")
    # An address would become a link by itself.
    return LINK.sub(lambda found: f"&#{ord(found[0])};", MARKUP.sub(r"\\\1", plain))


def public(source: str) -> str:
    """A hub name as it is, of a path on this machine the last part alone: what is shown says nothing of a home."""
    return PurePath(source).name if PurePath(source).is_absolute() or source.startswith(".") else source


def csv_cell(value: object) -> str:
    """A cell that a spreadsheet shows and does not run: numbers in full, what is not known empty, text that begins like
    a formula behind an apostrophe (OWASP, CSV injection)."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool | int | float):
        return repr(value)
    text = visible(value)
    return f"'{text}" if FORMULA.match(text) else text
