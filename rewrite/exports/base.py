"""What the forms share: names and texts of a run as others may read them, and cards that tell of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rewrite import DISTRIBUTION, __version__
from rewrite.display import escaping
from rewrite.run.files import read_json
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


def render(template: str, run: Finished, **more: object) -> str:
    """A card in Markdown from a template of this folder: whatever comes from the run is text in it."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters["text"] = escaping.markdown
    return environment.get_template(template).render(
        run=run,
        public=lambda key: public(run, key),
        explainer=author(run, "explainer"),
        simulator=author(run, "simulator"),
        verdict=read_json(run.path("6_stats.json"))["verdict"]["sentence"],
        package=f"{DISTRIBUTION} {__version__}",
        **more,
    )
