"""What the forms share: names and texts of a run as others may read them."""

from __future__ import annotations

import re
from typing import Literal

from rewrite.display import escaping
from rewrite.run.finished import Finished

HALVES = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs, which no UTF-8 file can hold."""


def sound(text: str) -> str:
    """The text as UTF-8 can hold it, U+FFFD in the place of what it cannot."""
    return HALVES.sub("\ufffd", text)


def public(run: Finished, key: str) -> str:
    """A setting that names a model or a corpus: a hub name as it is, of a path on this machine the last part alone."""
    return escaping.public(str(run.setting(key, "")))


def author(run: Finished, kind: Literal["explainer", "simulator"]) -> str:
    """Who wrote the explanations or read them: a backend, with its language model where it has one, or a file."""
    if kind == "explainer" and run.setting("explain.file"):
        return f"file {public(run, 'explain.file')}"
    name = str(run.setting(kind))
    model = public(run, f"{kind}s.{name}.model")
    return f"{name} with {model}" if model else name
