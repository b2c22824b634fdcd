"""The templates of this folder, with the filters that write numbers and foreign text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rewrite.report.page.formats import FILTERS

HERE = Path(__file__).parent


@cache
def open_templates(autoescape: bool, finalize: Callable[[object], object] | None = None) -> Environment:
    """The environment of all templates; a name that is not there is an error, never nothing. They are compiled once."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,
        finalize=finalize,
    )
    environment.filters.update(FILTERS)
    return environment
