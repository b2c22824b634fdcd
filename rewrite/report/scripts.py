"""Data in a script that a page loads: numbers short to write, JSON that no text can end.

It is plain ASCII, has no `<` that could end a script, and gives every string back as it was, halves of surrogate pairs
too. What is not known is null, never NaN and never 0."""

from __future__ import annotations

import json
import math

DIGITS = 5


NOT_SIMULATED = -1
"""Stands for a simulated activation where nothing was simulated: no prediction is missing there."""


Number = int | float | None


def round_number(value: float | int | None) -> float | int | None:
    """A number with `DIGITS` significant digits; whole numbers stay as they are, and what is not finite is unknown."""
    if value is None or isinstance(value, int):
        return value
    # Adding 0 takes the minus from a zero; the largest numbers of all round to infinity.
    found = float(f"{value + 0.0:.{DIGITS}g}")
    return found if math.isfinite(found) else None


def encode(value: object) -> str:
    """JSON in ASCII that a script may hold. Raises ValueError for NaN and infinities, which are no JSON."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # Outside of strings JSON has no such sign.
    return text.replace("<", "\\u003c")
