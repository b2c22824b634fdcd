"""`report.md`: the facts as Markdown, for a terminal, a repository or a diff."""

from __future__ import annotations

from rewrite.report.facts import Facts
from rewrite.report.page.templates import open_templates


def render_markdown(facts: Facts) -> str:
    """The report as Markdown; the filter `cell` escapes what was not written by us."""
    return open_templates(autoescape=False).get_template("report.md.jinja").render(facts=facts)
