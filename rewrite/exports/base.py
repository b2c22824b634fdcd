"""What the forms share: names and texts of a run as others may read them."""

from __future__ import annotations

import re
from pathlib import PurePath

from rewrite.finished import Finished

HALVES = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs, which no UTF-8 file can hold."""


def sound(text: str) -> str:
    """The text as UTF-8 can hold it, U+FFFD in the place of what it cannot."""
    return HALVES.sub("\ufffd", text)


def public(run: Finished, key: str) -> str:
    """A setting that names a model or a corpus: a hub name as it is, of a path on this machine the last part alone."""
    value = str(run.setting(key, ""))
    path = PurePath(value)
    return path.name if path.is_absolute() or value.startswith(".") else value
