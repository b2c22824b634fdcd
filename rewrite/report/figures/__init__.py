"""The report's figures, a file each kind: every one wide, narrow, and told in words."""

from __future__ import annotations

from pathlib import Path

from rewrite.report.facts import Facts
from rewrite.report.figures import arms, costs, damage, learned, places
from rewrite.report.figures.pictures import Drawn, Picture, save_picture
from rewrite.run.forking import count_processes, in_order


def draw_pictures(facts: Facts, folder: Path) -> dict[str, Picture]:
    """The figures that the facts allow, by name."""
    stats = facts.stats
    drawn: list[Drawn] = [arms.draw_ladder(stats), arms.draw_fractions(stats)]
    if stats["split"]:
        drawn.append(arms.draw_split(stats))
    if stats["places"]:
        drawn += [places.draw_places(stats, by) for by in ("position", "frequency")]
    if stats["calibration"]:
        drawn.append(places.draw_calibration(stats))
    if facts.learned:
        drawn.append(learned.draw_learned(facts.learned))
    if facts.diagnosis:
        drawn.append(damage.draw_damage(facts.diagnosis))
    drawn.append(costs.draw_costs(facts.latent_costs, facts.costs["alpha"]))

    def save(figure: Drawn) -> Picture:
        return save_picture(figure, folder)

    return {figure.name: saved for figure, saved in zip(drawn, in_order(save, drawn, count_processes()), strict=True)}
