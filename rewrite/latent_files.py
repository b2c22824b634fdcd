"""The files that the page loads when a reader comes to the latents: the facts, and what there is to see of each.

The table has a row for each rewritten latent, by number; a latent's own page joins its excerpts, histogram and curve
(`rewrite.excerpts`) with what was said of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rewrite.activations import ActivationStore
from rewrite.curves import load_curves
from rewrite.escaping import cut
from rewrite.excerpts import Sights, find_sights
from rewrite.facts import Facts, Latent
from rewrite.sidefiles import Number, write_side_files
from rewrite.simulations import Simulations
from rewrite.store import Run

Row = dict[str, Any]

LONGEST = 1000
"""Most that is shown of a language model's answer [characters]; `3_explanations.jsonl` has all of it."""
COSTS = {
    "cost": "cost",
    "q": "q",
    "alone": "alone",
    "precision": "precision",
    "recall": "recall",
    "false": "false_per_token",
    "missed": "missed_per_token",
}
"""Columns of the table that 5_costs.parquet has."""


def write_latent_files(facts: Facts, run: Run, folder: Path) -> None:
    """Find what there is to see of every latent, and write it with what is known of it."""
    store = ActivationStore(run.path("2_activations"))
    simulations = Simulations(run.path("4_simulations"), store.latents)
    sights = find_sights(store, simulations, load_curves(run.path("5_calibration.safetensors")))
    write_side_files(
        folder,
        columns=list_columns(facts),
        documents=[name for shard in store.names("test") for name in shard],
        texts=[latent.text or None for latent in facts.latents],
        tokens=sights.tokens,
        latents=_describe(facts, sights),
    )


def list_columns(facts: Facts) -> dict[str, list[Number]]:
    """The numbers of the table, a row for each latent."""
    judged = {row["latent"]: row for row in facts.latent_scores}
    costs = {row["latent"]: row for row in facts.latent_costs}
    none: Row = {}
    columns: dict[str, list[Number]] = {
        "latent": [latent.number for latent in facts.latents],
        "simulation": [latent.correlation for latent in facts.latents],
        "r2": [latent.r2 for latent in facts.latents],
    }
    columns |= {name: [judged[latent.number][name] for latent in facts.latents] for name in facts.scorers}
    columns |= {"density": [latent.density for latent in facts.latents]}
    columns |= {"maximum": [latent.maximum for latent in facts.latents]}
    for name, source in COSTS.items():
        columns[name] = [costs.get(latent.number, none).get(source) for latent in facts.latents]
    return columns | {"missing": [latent.missing_share for latent in facts.latents]}


def _describe(facts: Facts, sights: Sights) -> Iterator[Row]:
    """A latent's page after the other, in the order of the table."""
    for latent, page in zip(facts.latents, sights.pages(), strict=True):
        yield page | _say(latent, facts.scorers)


def _say(latent: Latent, scorers: tuple[str, ...]) -> Row:
    said: Row = {"scores": dict(zip(scorers, latent.scores, strict=True))}
    if latent.missing:
        said["why"] = latent.missing
    return said | ({"answer": cut(latent.answer, LONGEST)} if latent.answer else {})
