"""The report as one page that opens from disk: `index.html`, made from facts and pictures, with everything in it.

1. The templates beside this file say what the page says. Whatever is put into them is text: `visible` makes symbols of
   what cannot be seen, then it is escaped. Only the pictures, which we drew, are markup.
2. The style and the scripts are written into the page. Its policy (`find_policy`) lets a browser run these scripts, by
   their hashes, and files that lie beside the page; nothing else runs, and nothing is fetched.
3. What is large comes from `data/*.js`, which the scripts load when a reader gets there.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from rewrite.display.escaping import visible
from rewrite.report.facts import Facts
from rewrite.report.figures.pictures import Picture
from rewrite.report.page.templates import HERE, open_templates

STYLES = ("style.css", "latent.css")
SCRIPTS = ("page.js", "sketch.js", "listing.js", "table.js", "windows.js", "latent.js")


def write_page(facts: Facts, pictures: Mapping[str, Picture], folder: Path) -> None:
    """Write `index.html` into the folder of the report.

    A picture that is absent takes its place on the page with it.
    """
    page = render_page("index.html.jinja", SCRIPTS, facts=facts, pictures=pictures)
    (folder / "index.html").write_text(page, encoding="utf-8")


def render_page(template: str, scripts: tuple[str, ...], **content: object) -> str:
    """A page of this folder with the style and these scripts in it."""
    sources = [(HERE / name).read_text(encoding="utf-8") for name in scripts]
    style = "".join((HERE / name).read_text(encoding="utf-8") for name in STYLES)
    return (
        open_templates(autoescape=True, finalize=show)
        .get_template(template)
        .render(
            style=Markup(style),
            scripts=[Markup(source) for source in sources],
            policy=find_policy(sources),
            **content,
        )
    )


def show(value: object) -> object:
    """Every value is text, shown in full and escaped, unless the template says that it is markup."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def find_policy(sources: list[str]) -> str:
    """The page's Content-Security-Policy: these scripts and files beside the page may run, and nothing is fetched."""
    hashes = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in sources]
    known = " ".join(f"'sha256-{name}'" for name in hashes)
    return (
        f"default-src 'none'; script-src 'self' file: {known}; style-src 'unsafe-inline'; img-src 'self' file: data:; "
        "base-uri 'none'; form-action 'none'"
    )
