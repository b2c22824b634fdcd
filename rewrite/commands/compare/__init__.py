"""`rewrite compare`: finished runs on the same test documents, side by side and pair by pair.

1. Read each run (`rewrite.run.finished`); refuse any two that were not scored on the same tokens
   (`rewrite.commands.compare.pairing`).
2. Set side by side what the full simulation of each run reached, by its own 6_stats.json, and what it cost.
3. Compare every pair, paired by document.
4. Set side by side what a judge says of their explanations, where one was asked (`rewrite.commands.compare.judged`).
5. List the settings in which the runs differ: what a difference may be due to.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from rewrite.commands.compare.judged import compare_judged, notes_on_judged, table_of_judged
from rewrite.commands.compare.pairing import Side, check_same, compare_pairs, hash_coder
from rewrite.commands.documents import read_documents
from rewrite.config import UserError
from rewrite.display import tables
from rewrite.display.escaping import NONE, public
from rewrite.display.tables import Page, Row, Table
from rewrite.engines.ledger import cost_of
from rewrite.explainers.explanations import load_explanations
from rewrite.patterns.grammar import count_words
from rewrite.report import damage
from rewrite.run.files import read_json
from rewrite.run.finished import Finished, open_finished
from rewrite.statistics.losses import Key, read_losses
from rewrite.statistics.verdict import find_headline

# Settings that change nothing of a result.
UNTOLD = ("calls.", "collect.shard", "device", "batch", "executor", "sweep.")


def compare(folders: Sequence[Path]) -> Page:
    """The comparison of some runs. Raises UserError where they cannot be set side by side."""
    runs = _open(folders)
    results: list[Row] = [read_json(run.path("6_stats.json")) for run in runs]
    sides = [read_side(run, result) for run, result in zip(runs, results, strict=True)]
    for one, other in combinations(sides, 2):
        check_same(one, other)
    described = [describe(side, result) for side, result in zip(sides, results, strict=True)]
    facts: Row = {
        "schema": 1,
        "unit": "document",
        "documents": len(sides[0].scored),
        "tokens": int(sides[0].tokens.sum()),
        "alpha": sides[0].alpha,
        "margin": sides[0].margin,
        "runs": described,
        "comparisons": compare_pairs(sides, sides[0].alpha),
        "judged": compare_judged(sides, sides[0].alpha),
        "settings": _differing_settings(runs),
    }
    shown = [_table_of_runs(described), _table_of_pairs(facts["comparisons"])]
    if facts["judged"]:
        shown.append(table_of_judged(facts["judged"]))
    if any(run["damage"] for run in described):
        shown.append(_table_of_damage(described))
    if facts["settings"]:
        shown.append(_table_of_settings(facts["settings"], [run.name for run in runs]))
    title = f"{len(runs)} runs on the same {facts['documents']:,} documents, {facts['tokens']:,} tokens"
    return Page(title, tuple(shown), _notes(facts), facts)


# --- reading ----------------------------------------------------------------------------------------------------------


def _open(folders: Sequence[Path]) -> list[Finished]:
    """The runs, each by as much of the end of its folder's path as tells it from the others."""
    if len(folders) < 2:
        raise UserError("compare: name two runs or more")
    places = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"{folder}: named twice; name different runs")
    return [open_finished(folder, _name(place, places)) for folder, place in zip(folders, places, strict=True)]


def _name(place: Path, places: Sequence[Path]) -> str:
    """The shortest end of a path that no other one has: more of it would only say of a home."""
    parts = place.parts[1:]
    others = [other.parts[1:] for other in places if other != place]
    ends = (parts[-length:] for length in range(1, len(parts)))
    return "/".join(next((end for end in ends if all(other[-len(end) :] != end for other in others)), parts))


def read_side(run: Finished, result: Row) -> Side:
    """What two runs are compared by."""
    losses = read_losses(run.path("5_losses.parquet"))
    scored = read_documents(run)
    latents = pq.read_table(run.path("5_latents.parquet"), columns=["latent"]).column("latent").to_pylist()
    headline = find_headline(result)
    simulated = losses.single[Key("simulated", headline["fraction"], "best", 0)]
    return Side(
        run=run,
        alpha=float(result["alpha"]),
        fraction=float(headline["fraction"]),
        judged=headline["verdict"] is not None,
        scored=tuple(scored[document] for document in losses.documents),
        tokens=losses.tokens,
        losses={arm: losses.find(arm) for arm in ("clean", "coder", "zero")} | {"simulated": simulated},
        coder=hash_coder(run),
        rewritten=tuple(sorted(latents)),
    )


# --- one run ----------------------------------------------------------------------------------------------------------


def describe(side: Side, result: Row) -> Row:
    """What a run reached and what it cost."""
    headline = find_headline(result)
    place = (headline["arm"], headline["fraction"], headline["order"])
    arm = next(row for row in result["arms"] if (row["arm"], row["fraction"], row["order"]) == place)
    return {
        "run": side.name,
        **{key: arm[key] for key in ("loss", "se", "recovered", "recovered_ci", "fraction")},
        "gap": result["gap"]["nats"],
        "verdict": headline["verdict"],
        "latents": result["latents"],
        "rewritten": result["rewritten"],
        "words": _count_words(side),
        "missing": result["missing"]["share"],
        "mass": (result.get("mass") or {}).get("median"),
        "damage": _read_damage(side.run),
        "calls": sum(stage["calls"] for stage in side.run.ledger.values()),
        "cost": cost_of(side.run.ledger),
        "seconds": round(sum(side.run.seconds.values()), 2),
    }


def _read_damage(run: Finished) -> Row | None:
    """What the simulation loses, by kind of part on the way; None where the run did not take it apart as it is now."""
    artefact = "5_diagnosis.json"
    if artefact not in run.manifest["artefacts"] or not run.setting("diagnose.documents", 0):
        return None
    try:
        finished = open_finished(run.folder, run.name, last=artefact)
    except UserError:  # Left by another setting: the verdict is not made from it.
        return None
    found: Row = read_json(finished.path(artefact))
    way = damage.find_way(found)
    kinds = {row["kind"]: {key: row[key] for key in ("nats", "share", "share_ci")} for row in way["kinds"]}
    return {"documents": found["documents"], "nats": way["nats"], "ci": way["ci"], "kinds": kinds}


def _count_words(side: Side) -> float | None:
    """Mean words of the rewritten latents' explanations."""
    kept = set(side.rewritten)
    found = load_explanations(side.run.path("3_explanations.jsonl"))
    words = [count_words(e.text) for e in found if e.text is not None and e.latent in kept]
    return float(np.mean(words)) if words else None


def _differing_settings(runs: Sequence[Finished]) -> dict[str, dict[str, Any]]:
    """Settings in which the runs differ: {key: {run: value}}; None where a run does not know the key."""
    keys = sorted({key for run in runs for key in run.settings if not key.startswith(UNTOLD)})
    found = {key: {run.name: _shorten(run.setting(key)) for run in runs} for key in keys}
    return {key: values for key, values in found.items() if len({str(value) for value in values.values()}) > 1}


def _shorten(value: Any) -> Any:
    return public(value) if isinstance(value, str) else value


# --- what is shown ----------------------------------------------------------------------------------------------------


def _table_of_runs(runs: Sequence[Row]) -> Table:
    heads = (
        "run",
        "loss [nats]",
        "recovered [%]",
        "against zero",
        "words",
        "missing [%]",
        "on digits [%]",
        "cost",
        "seconds",
    )
    rows = tuple(
        (
            run["run"],
            tables.number(run["loss"]),
            tables.ranged(run["recovered"], run["recovered_ci"], 1, 100.0),
            run["verdict"] or "no verdict",
            tables.number(run["words"], 1),
            tables.number(100.0 * run["missing"], 1),
            tables.number(None if run["mass"] is None else 100.0 * run["mass"], 1),
            tables.dollars(run["cost"]),
            tables.number(run["seconds"], 0),
        )
        for run in runs
    )
    return Table("The full simulation of each run", heads, rows)


def _table_of_pairs(rows: Sequence[Row]) -> Table:
    heads = ("run", "is", "against", "difference", "in", "p (Holm)", "margin", "p (equivalence)")
    return Table("Every pair, paired by document", heads, tuple(map(_cells, rows)))


def _cells(row: Row) -> tuple[str, ...]:
    unit, scale, digits = ("nats", 1.0, 4) if row["measure"] == "loss" else ("% recovered", 100.0, 1)
    return (
        row["a"],
        row["verdict"] or "not judged",
        row["b"],
        tables.ranged(row["delta"], row["ci"], digits, scale),
        unit,
        tables.chance(row["p_holm"]),
        tables.number(row["margin"] if row["margin"] is None else scale * row["margin"], digits),
        tables.chance(row["p_equivalence"]),
    )


def _table_of_damage(runs: Sequence[Row]) -> Table:
    kinds = [kind for kind in damage.KINDS if any(run["damage"] and kind in run["damage"]["kinds"] for run in runs)]
    heads = ("run", "documents", "lost [nats]", *(f"{damage.KINDS[kind].partition(':')[0]} [%]" for kind in kinds))
    rows = tuple(
        (
            run["run"],
            str(own["documents"]),
            tables.ranged(own["nats"], own["ci"]),
            *(_share(own["kinds"].get(kind)) for kind in kinds),
        )
        for run in runs
        if (own := run["damage"])
    )
    return Table("Where the damage goes: what the simulation loses against the coder", heads, rows)


def _share(row: Row | None) -> str:
    return tables.ranged(row["share"], row["share_ci"], 1, 100.0) if row else NONE


def _table_of_settings(settings: dict[str, dict[str, Any]], names: Sequence[str]) -> Table:
    rows = tuple((key, *(_cell(values[name]) for name in names)) for key, values in settings.items())
    return Table(f"Settings that differ ({NONE} is the default)", ("key", *names), rows)


def _cell(value: Any) -> str:
    return NONE if value is None else str(value)


def _notes(facts: Row) -> tuple[str, ...]:
    """How to read the tables, and what could not be compared."""
    notes = [
        f"Intervals cover {100 * (1 - facts['alpha']):.3g}%. Less nats is better, and more recovered; equivalent is "
        f"within {100 * facts['margin']:.3g}% of the gap."
    ]
    for row in facts["comparisons"]:
        if row["why"]:
            end = "" if row["verdict"] is None else ": shares recovered are compared, not losses"
            notes.append(f"{row['a']} against {row['b']}: {row['why']}{end}.")
        if row["caution"]:
            interval = tables.ranged(row["delta"], row["ci_bootstrap_t"]) if row["ci_bootstrap_t"] else ""
            shown = f" Bootstrap-t: {interval} nats." if interval else ""
            notes.append(f"{row['a']} against {row['b']}: {row['caution']}{shown}")
    return (*notes, *notes_on_judged(facts["judged"]))
