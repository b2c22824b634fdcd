"""explanations and the strongest activations, in the format that Neuronpedia imports

    <model>/<layer>-<set>/   release.jsonl  model.jsonl  sourceset.jsonl  source.jsonl
                             features/  activations/  explanations/   batch-<number>.jsonl.gz

What is in the folder belongs under `v1/` of the bucket that an instance of Neuronpedia imports from.

1. A latent is a feature of the source `<layer>-<set>`; the set is called after the run. It has the windows of the train
   split in which it fires most strongly, and its explanation with its scores in `notes`.
2. Keys are those that both sides of Neuronpedia know: the records that its own converters write
   (`utils/neuronpedia-utils/neuronpedia_utils/db_models/`) and the columns that its importer fills
   (`apps/webapp/prisma/schema.prisma`, `lib/db/import.ts`, `app/api/admin/import/route.ts`), as of commit ebb8426f of
   August 2026. What has a default there and is not known here is left out.
3. Kinds of explanations and names of models that explain must be in Neuronpedia's own tables, so both go into `notes`.
4. PostgreSQL holds no NUL: it becomes the symbol for it. The importer puts a space where a line reads `\\u0000`, be it
   a backslash and five letters; there the backslash is written as a number.

Numbers and records do not depend on when the export is made: an import of the same export again changes nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float

from rewrite.coder.activations import ActivationStore
from rewrite.coder.evidence import gather_evidence
from rewrite.display.tables import number
from rewrite.explainers.base import Explanation
from rewrite.explainers.exemplars import Exemplar, Windows, by_maximum
from rewrite.explainers.explanations import load_explanations
from rewrite.exports.base import author, public, sound
from rewrite.run.finished import Finished

BATCH = 256
"""Latents in one file; an importer holds a file in memory."""
SHOWN = 20
"""Windows of each latent."""
BARS = 20
"""Bars of the histogram of a latent's activations."""
CREATOR = "clkht01d40000jv08hvalcvly"
"""Who owns what is imported: the user that the seed of every instance makes (`apps/webapp/prisma/seed.ts`)."""
PAPER = "https://arxiv.org/abs/2501.18838"
ESCAPES = re.compile(r"\\\\u0000|\\\\|\\u0000")
"""In a line of JSON, read from the left: a backslash before `u0000`, any other backslash, NUL."""
PLAIN = {r"\\u0000": r"\u005cu0000", r"\u0000": "␀"}
Row = dict[str, Any]


def write(run: Finished, folder: Path) -> list[str]:
    """Write the source with its features, activations and explanations."""
    place = Place.of(run)
    source = folder / place.model / place.source
    for kind in ("features", "activations", "explanations"):
        (source / kind).mkdir(parents=True)
    shown = Shown(run)
    for name, row in describe(run, place, shown).items():
        (source / f"{name}.jsonl").write_text(to_line(row), encoding="utf-8")
    said = load_explanations(run.path("3_explanations.jsonl"))
    notes = list_notes(run)
    counts = {"features": 0, "activations": 0, "explanations": 0}
    for batch, begin in enumerate(range(0, len(said), BATCH)):
        rows = gather_rows(place, shown, said[begin : begin + BATCH], notes)
        for kind, own in rows.items():
            counts[kind] += len(own)
            _write_batch(source / kind / f"batch-{batch}.jsonl.gz", own)
    written = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    return [f"{place.model}/{place.source}: {written}"]


def _write_batch(file: Path, rows: list[Row]) -> None:
    """A batch of nothing is no file: the importer reads its columns from the first line."""
    if rows:
        file.write_bytes(gzip.compress("".join(map(to_line, rows)).encode(), compresslevel=5, mtime=0))


def to_line(row: Row) -> str:
    """A record as its line says it, with text that PostgreSQL holds and the importer leaves as it is."""
    text = sound(json.dumps(row, ensure_ascii=False, allow_nan=False))
    return ESCAPES.sub(lambda found: PLAIN.get(found[0], found[0]), text) + "\n"


# --- where it is in Neuronpedia ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """The names that the run's latents get."""

    model: str
    set: str
    layer: int

    @classmethod
    def of(cls, run: Finished) -> Place:
        """The subject's name; the run's name with the coder's width; the hookpoint's layer."""
        hookpoint = str(run.setting("hookpoint"))
        layer = re.search(r"\.(\d+)(\.mlp)?$", hookpoint)
        assert layer is not None, f"{hookpoint} names no layer"
        module = "mlp" if layer[2] else "res"
        width = ActivationStore(run.path("2_activations"), ()).latents
        model = _slug(public(run, "subject").rpartition("/")[2], "._")
        return cls(model or "subject", f"{_slug(run.name) or 'run'}-{module}-{width}", int(layer[1]))

    @property
    def source(self) -> str:
        """The source's id; its layer is what stands before the first hyphen."""
        return f"{self.layer}-{self.set}"

    def keys(self, latent: int) -> Row:
        """What names a latent in every record of it."""
        return {"modelId": self.model, "layer": self.source, "index": str(latent)}

    def number(self, *parts: object) -> str:
        """The id of a record: the same for the same record, whenever it is made."""
        words = "\0".join(map(str, (self.model, self.source, *parts)))
        return "c" + hashlib.sha256(words.encode("utf-8", errors="surrogatepass")).hexdigest()[:24]


def _slug(text: str, more: str = "") -> str:
    """A name as Neuronpedia's addresses have them: small letters, digits and hyphens."""
    return re.sub(rf"[^a-z0-9{more}]+", "-", text.lower()).strip("-._")[:64]


def describe(run: Finished, place: Place, shown: Shown) -> dict[str, Row]:
    """The records of the release, the model, the set and the source, by the names of their files."""
    who = {"creatorId": CREATOR, "visibility": "PUBLIC"}
    by = {"creatorName": "rewrite"}
    title = f"Latents of {place.model} rewritten in natural language: {run.name}"
    how = f"explainer {author(run, 'explainer')}, simulator {author(run, 'simulator')}; {PAPER}"
    release = f"rewrite-{place.set}"
    model = {"displayName": public(run, "subject"), "displayNameShort": place.model, "owner": "", "layers": 0}
    model |= {"neuronsPerLayer": 0, "inferenceEnabled": False, "instruct": False}
    text = {"dataset": public(run, "corpus.source"), "num_prompts": len(shown.windows)}
    text |= {"num_tokens_in_prompt": run.setting("corpus.window")}
    return {
        "release": {"name": release, "description": title, "descriptionShort": title, "urls": [PAPER]} | who | by,
        "model": {"id": place.model} | model | who,
        "sourceset": {"modelId": place.model, "name": place.set, "description": title, "releaseName": release}
        | {"urls": [PAPER]}
        | who
        | by,
        "source": {"id": place.source, "modelId": place.model, "setName": place.set, "notes": how} | text | who,
    }


# --- what is there ----------------------------------------------------------------------------------------------------


class Shown:
    """The train split in the windows that the corpus was cut into."""

    def __init__(self, run: Finished) -> None:
        self.train = ActivationStore(run.path("2_activations"), ("train",)).train
        evidence = gather_evidence(self.train)
        self.windows = Windows(evidence, int(np.diff(evidence.text.starts).max()))
        self.corpus = public(run, "corpus.source")

    @cached_property
    def documents(self) -> list[str]:
        """Whose each window is."""
        return [self.train.names[i] for _, shard in self.train.walk() for i in shard.documents]

    @cached_property
    def positions(self) -> int:
        """Positions at which a latent may fire."""
        return int(self.windows.text.counted().sum())

    def values(self, latent: int) -> Float[np.ndarray, " firing"]:
        """All of a latent's activations above 0."""
        values = self.windows.evidence.column(latent).values
        return values[values > 0]

    def strongest(self, latent: int) -> Iterator[tuple[int, Exemplar]]:
        """The windows in which a latent fires most strongly, by their numbers."""
        for window in by_maximum(self.windows.firings(latent), SHOWN).tolist():
            yield window, self.windows.show(latent, window)


def gather_rows(place: Place, shown: Shown, said: Iterable[Explanation], notes: dict[int, str]) -> dict[str, list[Row]]:
    """The records of some latents."""
    rows: dict[str, list[Row]] = {"features": [], "activations": [], "explanations": []}
    for explanation in said:
        latent = explanation.latent
        rows["features"].append(tell_feature(place, shown, latent))
        for window, exemplar in shown.strongest(latent):
            whose = {"dataSource": f"{shown.corpus} (train split)", "dataIndex": shown.documents[window]}
            rows["activations"].append(tell_activation(place, latent, window, exemplar) | whose)
        if explanation.text and explanation.text.strip():
            own = {"id": place.number(latent, "explanation"), "description": explanation.text, "authorId": CREATOR}
            rows["explanations"].append(place.keys(latent) | own | {"notes": notes.get(latent, "")})
    return rows


def tell_feature(place: Place, shown: Shown, latent: int) -> Row:
    """A latent: how often and how strongly it fires on the train split."""
    values = shown.values(latent)
    heights, edges = np.histogram(values, BARS) if len(values) else (np.zeros(0), np.zeros(1))
    return place.keys(latent) | {
        "creatorId": CREATOR,
        "sourceSetName": place.set,
        "maxActApprox": plain(values.max(initial=0)),
        "frac_nonzero": len(values) / max(shown.positions, 1),
        "freq_hist_data_bar_heights": [int(height) for height in heights],
        "freq_hist_data_bar_values": [plain(value) for value in (edges[:-1] + edges[1:]) / 2],
    }


def tell_activation(place: Place, latent: int, window: int, exemplar: Exemplar) -> Row:
    """A window with a latent's activations."""
    values = [0.0] * len(exemplar.tokens)
    for position in np.flatnonzero(exemplar.activations).tolist():
        values[position] = plain(exemplar.activations[position])
    return place.keys(latent) | {
        "id": place.number(latent, window),
        "creatorId": CREATOR,
        "tokens": list(exemplar.tokens),
        "values": values,
        "maxValue": max(values),
        "maxValueTokenIndex": int(np.argmax(exemplar.activations)),
        "minValue": min(values),
    }


def plain(value: np.floating[Any]) -> float:
    """The shortest number that is this one in its own precision."""
    return float(str(value))


def list_notes(run: Finished) -> dict[int, str]:
    """What stands beside each explanation: who wrote it, its scores and its cost."""
    scores = pq.read_table(run.path("4_scores.parquet")).to_pylist()
    costs = {row["latent"]: row["cost"] for row in pq.read_table(run.path("5_costs.parquet")).to_pylist()}
    named = [name for name in ("simulation", "r2", "detection", "fuzz") if scores and name in scores[0]]
    who = f"explainer {author(run, 'explainer')}, simulator {author(run, 'simulator')}"
    notes = {}
    for row in scores:
        said = [f"{name} {number(row[name])}" for name in named]
        cost = costs.get(row["latent"])
        notes[row["latent"]] = "; ".join([who, *said, f"cost {number(cost, 6)} nats per token"])
    return notes
