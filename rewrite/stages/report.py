"""The report: 7_report, from what the stages before it left.

1. Gather the facts (`rewrite.report.gathering`): every number comes from a file, nothing is estimated here.
2. Draw the figures, as PNG and SVG files and for the page (`rewrite.report.figures.arms`, `place_figures`,
   `cost_figures`).
3. Write the tables as CSV, the facts as Markdown and as a page (`rewrite.report.page`).
4. Find for each latent the windows in which it is most wrong, in files that the page loads when a reader opens the
   latent (`rewrite.report.latents.files`).
"""

from __future__ import annotations

from pathlib import Path

from rewrite.config import Config
from rewrite.display.csvs import write_csv
from rewrite.report.facts import Facts
from rewrite.report.figures import draw_pictures
from rewrite.report.gathering import gather
from rewrite.report.latents.files import write_latent_files
from rewrite.report.page import write_page
from rewrite.report.page.markdown import render_markdown
from rewrite.run.store import Run


def run(config: Config, run: Run) -> None:
    """Write 7_report."""
    facts = gather(config, run)
    with run.writing("7_report") as folder:
        folder.mkdir()
        write_facts(facts, folder)
        write_latent_files(facts, run, folder / "data")


def write_facts(facts: Facts, folder: Path) -> None:
    """Write the page, the Markdown, the figures and the tables into an empty folder."""
    pictures = draw_pictures(facts, folder)
    for name, rows in facts.tables.items():
        write_csv(rows, folder / f"{name}.csv")
    (folder / "report.md").write_text(render_markdown(facts), encoding="utf-8", errors="replace")
    write_page(facts, pictures, folder)
