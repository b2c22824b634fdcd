"""`report.md`: the facts as Markdown, for a terminal, a repository or a diff."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rewrite.facts import Facts
from rewrite.page.formats import FILTERS


def render_markdown(facts: Facts) -> str:
    """The report as Markdown; the filter `cell` escapes what was not written by us."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters.update(FILTERS)
    return environment.get_template("report.md.jinja").render(facts=facts)
