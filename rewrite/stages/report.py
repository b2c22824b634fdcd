"""The report: 7_report, from what the stages before it left.

1. Gather the facts (`rewrite.gathering`): every number comes from a file, nothing is estimated here.
2. Draw the figures, as PNG and SVG files and for the page (`rewrite.figures`, `place_figures`, `cost_figures`).
3. Write the tables as CSV, the facts as Markdown and as a page (`rewrite.page`).
4. Find for each latent the windows in which it is most wrong, in files that the page loads when a reader opens the
   latent (`rewrite.latent_files`).
"""

from __future__ import annotations

from pathlib import Path

from rewrite import cost_figures, figures, place_figures
from rewrite.config import Config
from rewrite.csvs import write_csv
from rewrite.facts import Facts
from rewrite.gathering import gather
from rewrite.latent_files import write_latent_files
from rewrite.page import write_page
from rewrite.page.markdown import render_markdown
from rewrite.pictures import Drawn, Picture, save_picture
from rewrite.store import Run


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


def draw_pictures(facts: Facts, folder: Path) -> dict[str, Picture]:
    """The figures that the facts allow, by name."""
    stats = facts.stats
    drawn: list[Drawn] = [figures.draw_ladder(stats), figures.draw_fractions(stats)]
    if stats["split"]:
        drawn.append(figures.draw_split(stats))
    if stats["places"]:
        drawn += [place_figures.draw_places(stats, by) for by in ("position", "frequency")]
    if stats["calibration"]:
        drawn.append(place_figures.draw_calibration(stats))
    drawn.append(cost_figures.draw_costs(facts.latent_costs, facts.costs["alpha"]))
    return {figure.name: save_picture(figure, folder) for figure in drawn}
