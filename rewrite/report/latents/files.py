"""`7_report/data/*.js`: what the page loads when a reader comes to the latents, the facts and what there is to see of
each.

A page opened from disk may fetch nothing, but it may add a script tag; so large data stands in scripts, each one
statement `rewrite.receive("NAME",JSON);`.

table          {"latents": latents in a file, "documents": [names], "columns": {name: [numbers]}}, a row a latent
texts          [explanation, or null where there is none], by row of the table
tokens         [token strings], which windows name by their index
latents-<n>    [all else of a latent], for the rows n · `PER_FILE` to (n + 1) · `PER_FILE`: a click needs one such file

The table has a row for each rewritten latent, by number; a latent's own page joins its excerpts, histogram and curve
(`rewrite.report.latents.excerpts`) with what was said of it. Activations in windows are whole thousandths of the
latent's unit "top", 1 for all that is above 0 and less than 1.5 of them; of simulated ones null is a prediction that is
missing, and `NOT_SIMULATED` a position that nobody asked about.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

from rewrite.coder.activations import ActivationStore
from rewrite.display.escaping import cut
from rewrite.report.damage import find_readers
from rewrite.report.facts import Facts, Latent
from rewrite.report.latents.excerpts import Sights, find_sights
from rewrite.report.scripts import Number, encode, round_number
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.statistics.curves import load_curves

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
    store = ActivationStore(run.path("2_activations"), ("train", "calibrate", "test"))
    simulations = Simulations(run.path("4_simulations"), store.latents)
    sights = find_sights(store, simulations, load_curves(run.path("5_calibration.safetensors")))
    write_side_files(
        folder,
        columns=list_columns(facts),
        documents=store.test.names,
        texts=[latent.text or None for latent in facts.latents],
        tokens=sights.tokens,
        latents=_describe(facts, sights, find_readers(run.path("5_heads.parquet")) if facts.diagnosis else {}),
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


def _describe(facts: Facts, sights: Sights, readers: Mapping[int, str]) -> Iterator[Row]:
    """A latent's page after the other, in the order of the table; `readers` says which heads read a latent."""
    for latent, page in zip(facts.latents, sights.pages(), strict=True):
        read = {"readers": readers.get(latent.number, "not measured")} if readers else {}
        yield page | _say(latent, facts.scorers) | read


def _say(latent: Latent, scorers: tuple[str, ...]) -> Row:
    said: Row = {"scores": dict(zip(scorers, latent.scores, strict=True))}
    if latent.missing:
        said["why"] = latent.missing
    return said | ({"answer": cut(latent.answer, LONGEST)} if latent.answer else {})


PER_FILE = 64
"""Latents in one file: a few hundred kilobytes, so that a click is answered at once."""


def write_side_files(
    folder: Path,
    columns: Mapping[str, Sequence[float | int | None]],
    documents: Sequence[str],
    texts: Sequence[str | None],
    tokens: Sequence[str],
    latents: Iterable[Row],
) -> None:
    """Write all side files into a folder that is not there yet.

    `columns`, `texts` and `latents` have one entry for each row of the table, in its order. `latents` is read as it is
    written, so that a generator need never hold more than the `PER_FILE` latents of one file.
    """
    folder.mkdir(parents=True)
    table = {name: [round_number(value) for value in values] for name, values in columns.items()}
    _write(folder, "table", encode({"latents": PER_FILE, "documents": documents, "columns": table}))
    _write(folder, "texts", encode(texts))
    _write(folder, "tokens", encode(tokens))
    rows = iter(latents)
    with _uncollected():
        for file in count():
            own = list(islice(rows, PER_FILE))
            if not own:
                return
            _write(folder, f"latents-{file}", encode(own))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for circles: millions of lists have none, and looking takes longer than writing them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.js").write_text(f'rewrite.receive("{name}",{text});\n', encoding="ascii")
