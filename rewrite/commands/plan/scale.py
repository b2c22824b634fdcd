"""`rewrite plan RUN --scale`: what a run of another scale takes at most, by stage, from the seconds of a small one.

1. A stage has parts, each of which grows in proportion to some sizes (`GROWTH`): tokens of the train split, latents of
   the coder, latents that are rewritten, held-out documents. What share of its seconds a part took is not known, so the
   whole stage is taken to grow as that part does that grows most.
2. A run has one hookpoint. Runs at several layers take as many times as long; what a sweep makes once (one forward pass
   for all hookpoints in `collect`) is not taken off.
3. Calls, tokens and dollars grow as the stage that asks does; what lies on disk as `BYTES` says.

All else is as in the run: the subject, the device, the coder's k, words an explanation, arms, the documents' length.
What is measured of it: `python -m benchmarks growth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite, prod
from pathlib import Path

import pyarrow.parquet as pq

from rewrite.commands.documents import count_tokens, read_documents
from rewrite.commands.plan.spending import asked_elsewhere, scale_ledger, taken_over, tell_taken
from rewrite.config import UserError
from rewrite.display import tables
from rewrite.display.tables import Page, Row, Table
from rewrite.run.files import read_json
from rewrite.run.finished import ASKED, Finished, open_finished
from rewrite.stages import STAGES

Parts = tuple[tuple[str, ...], ...]
"""Of each part of something the sizes that it grows in proportion to; none where it does not grow."""

GROWTH: dict[str, Parts] = {
    "train": (("tokens", "latents"),),
    "collect": (("tokens", "latents"), ("documents", "latents")),
    "explain": (("tokens", "rewritten"),),
    "tune": (),
    "simulate": (("documents", "rewritten"),),
    "score": (("documents", "rewritten"), ("latents",)),
    "evaluate": (("documents", "latents"), ("tokens",)),
    "cost": (("documents", "latents"),),
    "diagnose": (),
    "analyse": (("documents",),),
    "report": (("rewritten",), ("documents",), ("tokens",)),
}
"""What a stage's seconds grow with. `tune` and `diagnose` take what their own settings say."""
BYTES: dict[str, Parts] = {
    "1_coder": (("latents",),),
    "2_activations": (("tokens",), ("documents",)),
    "3_explanations.jsonl": (("rewritten",),),
    "4_simulations": (("documents", "rewritten"),),
    "4_scores.parquet": (("latents",),),
    "5_latents.parquet": (("rewritten",),),
    "5_calibration.safetensors": (("latents",),),
    "5_losses.parquet": (("documents",),),
    "5_places.parquet": (("documents",),),
    "5_costs.parquet": (("rewritten",),),
    "7_report": (("rewritten",),),
}
"""What an artefact's bytes grow with; one that is not named does not grow."""


@dataclass(frozen=True)
class Scale:
    """How large a run is, and at how many layers there is one."""

    tokens: int = 0
    """Tokens of the train split whose activations are kept; 0 for as many as the run's, as for the others."""
    latents: int = 0
    """The coder's latents."""
    rewritten: int = 0
    """Latents that are rewritten; 0 for all where the run rewrote all, else for as many as it did."""
    documents: int = 0
    """Test documents that are simulated; those of the calibrate split are as many times more."""
    layers: int = 1

    def over(self, pilot: Scale, parts: Parts) -> float:
        """How many times what has these parts is at this scale, at most."""
        return max((prod(getattr(self, size) / getattr(pilot, size) for size in own) for own in parts), default=1.0)


def read_scale(words: Sequence[str]) -> Scale:
    """A scale as it is said at the command line: `latents=32768 layers=12`. Raises UserError for what is not one."""
    known, said = [one.name for one in fields(Scale)], dict[str, int]()
    for word in words:
        name, _, number = word.partition("=")
        try:
            value = float(number.replace("_", "").replace(",", ""))
        except ValueError:
            value = float("nan")
        if name not in known or not isfinite(value) or value < 1:
            raise UserError(f"--scale {word}: give a size of {', '.join(known)}, as in latents=32768")
        said[name] = round(value)
    return Scale(**said)


def measure_scale(run: Finished) -> Scale:
    """How large a run is."""
    latents = int(read_json(run.folder / "2_activations" / "documents.json")["latents"])
    rewritten = pq.read_metadata(run.path("5_latents.parquet")).num_rows
    documents = sum(document.positions > 0 for document in read_documents(run))
    return Scale(count_tokens(run, "train"), latents, rewritten, documents)


def fill_in(asked: Scale, pilot: Scale) -> Scale:
    """The scale that is asked for, with the run's own sizes where nothing is said. Raises UserError for one that cannot
    be."""
    scale = Scale(*(getattr(asked, one.name) or getattr(pilot, one.name) for one in fields(Scale)))
    if not asked.rewritten and pilot.rewritten == pilot.latents:
        scale = replace(scale, rewritten=scale.latents)
    if scale.rewritten > scale.latents:
        raise UserError(f"--scale rewritten={scale.rewritten}: the coder has {scale.latents} latents; ask for fewer")
    return scale


def scale_run(folder: Path, words: Sequence[str]) -> Page:
    """What a run like the one in `folder` takes at another scale. Raises UserError where it is not finished."""
    run, asked = open_finished(folder), read_scale(words)
    pilot = measure_scale(run)
    scale = fill_in(asked, pilot)
    sizes = {path: _size_of(run.folder / path) for path in run.seconds}
    taken, elsewhere = taken_over(run), asked_elsewhere(run)
    rows = []
    for stage in STAGES:
        if any(path in run.seconds for path in stage.writes):
            row = _stage(run, stage.name, stage.writes, pilot, scale, sizes)
            # What was taken over from another run took its seconds, and was paid for, there.
            row |= dict.fromkeys(("pilot_seconds", "layer_hours", "hours") if stage.name in taken else ())
            rows.append(row | dict.fromkeys(("calls", "tokens", "dollars") if stage.name in elsewhere else ()))
    facts: Row = {"schema": 1, "run": run.name, "pilot": asdict(pilot), "scale": asdict(scale), "stages": rows}
    facts |= {"taken_over": taken, "asked_elsewhere": elsewhere}
    facts["total"] = {key: _sum([row[key] for row in rows]) for key in SUMMED}
    title = f"What a run like {run.name} takes at another scale"
    return Page(title, (_sizes(pilot, scale), _table(facts)), _notes(run, facts), facts)


def _size_of(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _stage(
    run: Finished, name: str, writes: Sequence[str], pilot: Scale, scale: Scale, sizes: Mapping[str, int]
) -> Row:
    """What a stage takes at one layer and at all, and what it took."""
    own = [path for path in writes if path in run.seconds]
    took = sum(run.seconds[path] for path in own)
    factor = _count_times(run, name, pilot, scale)
    ledger = {stage: spent for stage, spent in run.ledger.items() if stage == name and stage in ASKED}
    calls, tokens, dollars = scale_ledger(ledger, {name: factor * scale.layers})
    held = sum(sizes[path] * scale.over(pilot, BYTES.get(path, ())) for path in own)
    return {
        "stage": name,
        "pilot_seconds": took,
        "factor": factor,
        "layer_hours": took * factor / 3600,
        "hours": took * factor * scale.layers / 3600,
        "calls": calls,
        "tokens": tokens,
        "dollars": dollars,
        "bytes": round(held * scale.layers),
    }


def _count_times(run: Finished, name: str, pilot: Scale, scale: Scale) -> float:
    """How many times as long a stage takes at one layer."""
    if name == "train" and run.setting("coder.path"):
        return scale.over(pilot, (("documents", "latents"),))  # It is only measured, on held-out documents.
    if name == "cost" and (most := int(run.setting("cost.documents", 0))):
        pilot, scale = (replace(one, documents=min(one.documents, most)) for one in (pilot, scale))
    return scale.over(pilot, GROWTH[name])


SUMMED = ("pilot_seconds", "layer_hours", "hours", "calls", "tokens", "dollars", "bytes")


def _sum(values: Sequence[float | int | None]) -> float | int | None:
    """None where one of them is not known."""
    return None if None in values else sum(value for value in values if value is not None)


# --- what is shown ----------------------------------------------------------------------------------------------------


def _sizes(pilot: Scale, scale: Scale) -> Table:
    names = [one.name for one in fields(Scale)]
    rows = tuple((name, *(tables.count(getattr(one, name)) for one in (pilot, scale))) for name in names)
    return Table("Sizes", ("size", "the run", "at scale"), rows)


def _table(facts: Row) -> Table:
    layers = facts["scale"]["layers"]
    heads = ("stage", "run [s]", "times", "a layer [h]", f"{layers:,} layers [h]", "calls", "tokens", "dollars", "disk")
    rows = [*facts["stages"], facts["total"] | {"stage": "in all", "factor": None}]
    return Table("Stages", heads, tuple(_cells(row) for row in rows))


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row["stage"],
        tables.number(row["pilot_seconds"], 0),
        tables.number(row["factor"], 1),
        *(tables.number(row[key], 2) for key in ("layer_hours", "hours")),
        *(tables.count(row[key]) for key in ("calls", "tokens")),
        tables.dollars(row["dollars"]),
        tables.size(row["bytes"]),
    )


def _notes(run: Finished, facts: Row) -> tuple[str, ...]:
    """What is assumed, in words."""
    told = "; ".join(f"{row['stage']} {_tell(GROWTH[row['stage']])}" for row in facts["stages"] if GROWTH[row["stage"]])
    notes = [
        f"Assumes the run's subject, device ({run.setting('device', 'cpu')}), speed, arms, k and documents' length, "
        "and at every layer what its own layer took.",
        f"Seconds grow in proportion, at most, to the larger of: {told}.",
    ]
    notes += tell_taken(facts["taken_over"])
    if facts["total"]["calls"] is None and not facts["asked_elsewhere"]:
        notes.append("The cache answered all that a stage of this run asked, so what it would cost cannot be told.")
    elif facts["total"]["calls"] and facts["total"]["dollars"] is None:
        notes.append("No price: set calls.price_in and calls.price_out.")
    return tuple(notes)


def _tell(parts: Parts) -> str:
    """`tokens × latents or documents`."""
    return " or ".join(" × ".join(own) for own in parts)
