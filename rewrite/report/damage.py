"""Where the damage goes, as a report tells it: a sentence, rows for tables, names. From `5_diagnosis.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq

Row = dict[str, Any]

KINDS = {
    "direct": "direct: what is written reaches the output by itself",
    "values": "attention, what is moved",
    "pattern": "attention, where it looks",
    "attention": "attention",
    "mlp": "MLP",
    "block": "the whole layer",
}
"""The kinds of parts, as they are listed."""
SHOWN = 10
"""Heads listed."""
INDUCTION = 0.2
"""Attention, on random text said twice, to the token after the same one, from which on a head that copies is called an
induction head: some ten times what looking anywhere would give."""


PREVIOUS = 0.5
"""The same to the token before, from which on it is called a previous-token head."""


def find_way(diagnosis: Row, arm: str = "simulated") -> Row:
    """What an arm loses, step by step."""
    way: Row = next(row for row in diagnosis["way"] if row["arm"] == arm)
    return way


def sentence(diagnosis: Row) -> str:
    """The whole in a sentence or two."""
    way = find_way(diagnosis)
    documents = f"On {diagnosis['documents']:,} test documents"
    if way["ci"][1] < 0:
        return f"{documents} the simulation loses less than the coder: there is no damage to follow."
    if way["kinds"][0]["share"] is None:
        return f"{documents} it is not told whether the simulation loses anything against the coder."
    shares = {row["kind"]: row for row in way["kinds"]}
    said = {
        "direct": "reach the output directly",
        "mlp": "come by later MLPs",
        "values": "by what later attention moves",
        "pattern": "by where it looks",
        "attention": "by later attention",
        "block": "by later layers",
    }
    parts = [f"{_share(shares[kind])} {told}" for kind, told in said.items() if kind in shares]
    told = f"{documents} the simulation loses {way['nats']:.4f} nats more than the coder: {', '.join(parts)}."
    return told + _tell_head(diagnosis)


def _share(row: Row) -> str:
    low, high = row["share_ci"]
    return f"{100 * row['share']:.0f}% [{100 * low:.0f}, {100 * high:.0f}]"


def _tell_head(diagnosis: Row) -> str:
    """Of the heads that are told from 0 the one that carries most; else that which mends most; else what one does that
    is let go alone."""
    if not any("needed" in row for row in diagnosis["heads"]):
        return ""
    on = f"on {diagnosis['head_documents']:,} of them"
    needed, alone = (_list_told(diagnosis, bound) for bound in ("needed", "alone"))
    if needed and needed[-1]["needed"]["nats"] > 0:
        saved = f"{_size(needed[-1]['needed'])} nats less are lost {on}"
        return f" Of single heads {_call(diagnosis, needed[-1])} matters most: with it held as it was, {saved}."
    if needed:
        cost = f"{_size(needed[0]['needed'])} nats more are lost {on}"
        return f" Of single heads {_call(diagnosis, needed[0])} mends most: with it held as it was, {cost}."
    if alone:
        row = max(alone, key=lambda row: abs(float(row["alone"]["nats"])))
        lost = f"{_size(row['alone'])} nats {'more' if row['alone']['nats'] > 0 else 'less'} are lost"
        freed = f"with {_call(diagnosis, row)} let go alone, {lost}"
        return f" No single head is told from 0 where it is held, {on}; {freed}."
    return f" No single head is told from 0, {on}."


def _list_told(diagnosis: Row, bound: str) -> list[Row]:
    """The heads that are told from 0 by a bound, ascending."""
    told = [row for row in diagnosis["heads"] if bound in row and row[bound]["p_holm"] < diagnosis["alpha"]]
    return sorted(told, key=lambda row: float(row[bound]["nats"]))


def _call(diagnosis: Row, row: Row) -> str:
    """A head's name and, between commas, its kind."""
    kind = kind_of(diagnosis, row)
    return name_head(row) + (f", {kind}," if kind else "")


def _size(own: Row) -> str:
    """How much is lost, more or less, with its interval."""
    low, high = own["ci"] if own["nats"] > 0 else (-own["ci"][1], -own["ci"][0])
    return f"{abs(own['nats']):.4f} [{low:.4f}, {high:.4f}]"


def name_head(row: Row) -> str:
    """A head as it is called: its layer, a point, its number, from 0."""
    return f"{row['layer']}.{row['head']}"


def kind_of(diagnosis: Row, row: Row) -> str:
    """`an induction head`, `a previous-token head`, or nothing."""
    for own in (diagnosis["repeated"] or {}).get("heads", []):
        if (own["layer"], own["head"]) == (row["layer"], row["head"]):
            if own["induction"] >= INDUCTION and (row.get("copying") or 0) > 0:
                return "an induction head"
            return "a previous-token head" if own["previous"] >= PREVIOUS else ""
    return ""


@dataclass(frozen=True)
class Damage:
    """The rows of a diagnosis, table by table; a table that was not asked for, or is an older run's, has none."""

    diagnosis: Row
    shown: ClassVar[int] = SHOWN
    kinds: ClassVar[dict[str, str]] = KINDS

    @property
    def way(self) -> Row:
        """What the simulation loses, step by step."""
        return find_way(self.diagnosis)

    @property
    def told(self) -> str:
        """The same in a sentence."""
        return sentence(self.diagnosis)

    @cached_property
    def heads(self) -> list[Row]:
        """The later heads, those that carry most first."""
        return list_heads(self.diagnosis) if self.diagnosis else []

    @property
    def sayings(self) -> list[Row]:
        """What the heads that carry most say, a row a component: the tokens at both ends of what it writes."""
        return [
            {
                "layer": row["layer"],
                "head": row["head"],
                "component": number,
                "one_end": list(up),
                "other_end": list(down),
            }
            for row in self.diagnosis.get("heads", [])
            for number, (up, down) in enumerate(row.get("writes", []))
        ]

    @property
    def trigrams(self) -> list[Row]:
        """Skip-trigrams of the same heads."""
        ends = ("layer", "head")
        heads = self.diagnosis.get("heads", [])
        return [{key: row[key] for key in ends} | one for row in heads for one in row.get("trigrams", [])]

    @property
    def joined(self) -> list[Row]:
        """Later heads that read a component of an earlier one."""
        rows: list[Row] = self.diagnosis.get("joined", [])
        return rows

    @property
    def repeated(self) -> list[Row]:
        """Losses on random text said twice, by arm."""
        found = (self.diagnosis.get("repeated") or {}).get("losses", {})
        return [{"arm": arm, "first": a, "second": b, "learned": a - b} for arm, (a, b) in found.items()]

    @property
    def terms(self) -> list[Row]:
        """Losses with paths cut by the number of attention layers that they pass, by arm and order."""
        rows: list[Row] = self.diagnosis.get("terms", [])
        return rows

    @property
    def alike(self) -> list[Row]:
        """How much of the clean model's routes an arm keeps."""
        return self._of("routes", "alike")

    @property
    def classes(self) -> list[Row]:
        """What attention and MLP make up at tokens of each class, flat."""
        rows: list[Row] = []
        for row in self._of("routes", "classes"):
            flat = {key: row[key] for key in ("class", "part", "positions")}
            for arm, own in row["arms"].items():
                flat |= {arm: own["value"]} | ({f"{arm}_ci": own["ci"]} if "ci" in own else {})
            rows.append(flat)
        return rows

    @property
    def closed(self) -> list[Row]:
        """What it costs to lose a channel, by its rank."""
        return self._of("closed", "ranks")

    @property
    def task(self) -> list[Row]:
        """How a task goes, by arm."""
        return self._of("task", "arms")

    @property
    def reading(self) -> list[Row]:
        """How being read goes with what latents cost."""
        rows: list[Row] = self.diagnosis.get("reading", [])
        return rows

    def _of(self, part: str, table: str) -> list[Row]:
        rows: list[Row] = (self.diagnosis.get(part) or {}).get(table, [])
        return rows

    @property
    def tables(self) -> dict[str, list[Row]]:
        """Every table by the name of its file."""
        ways = self.diagnosis.get("way", [])
        return {
            "way": [{"arm": way["arm"]} | row for way in ways for row in way["steps"]],
            "heads": self.heads,
            "joined": self.joined,
            "sayings": [{key: _joined(value) for key, value in row.items()} for row in self.sayings],
            "trigrams": self.trigrams,
            "repeated": self.repeated,
            "terms": self.terms,
            "reading": self.reading,
            "task": self.task,
            "routes": self.alike,
            "classes": self.classes,
            "closed": self.closed,
            "importance": self._of("routes", "parts"),
        }


def _joined(value: Any) -> Any:
    return " | ".join(value) if isinstance(value, list) else value


READERS = 3
"""Heads named on a latent's page."""


def find_readers(path: Path) -> dict[int, str]:
    """By latent the heads that read it most, in words, from `5_heads.parquet`: those above what the best of all heads
    and ways reaches by chance for one latent in twenty. Latents that are not in the file are left out."""
    table = pq.read_table(path)
    ways = ("query", "key", "value")
    z = np.stack([table.column(way).to_numpy() for way in ways], 1)
    layers, heads, latents = (table.column(name).to_numpy() for name in ("layer", "head", "latent"))
    # A head's rows stand together, in the order of its thresholds; a loop over rows would be one over millions.
    least = np.array([own for _, _, *own in json.loads(table.schema.metadata[b"least"])]).reshape(-1, len(ways))
    where, which = np.nonzero(z >= least.repeat(len(z) // max(len(least), 1), 0))
    order = np.argsort(-z[where, which], kind="stable")
    told: dict[int, list[str]] = {int(latent): [] for latent in latents}
    for row, way in zip(where[order], which[order], strict=True):
        said = told.setdefault(int(latents[row]), [])
        if len(said) < READERS:
            said.append(f"{layers[row]}.{heads[row]} by its {ways[way]} ({z[row, way]:.1f} sd)")
    return {latent: ", ".join(said) or "none that stands out" for latent, said in told.items()}


def list_heads(diagnosis: Row) -> list[Row]:
    """The later heads that carry most, flat."""
    rows = []
    for row in diagnosis["heads"]:
        flat = {"layer": row["layer"], "head": row["head"], "kind": kind_of(diagnosis, row), "copying": row["copying"]}
        for bound in ("alone", "needed"):
            own = row.get(bound)
            flat |= {f"{bound}_{key}": own[key] if own else None for key in ("nats", "ci", "p_holm")}
        for score in ("previous", "induction"):
            own = row.get(score, {})
            flat |= {f"{score}_{arm}": own[arm]["value"] if arm in own else None for arm in ("clean", "simulated")}
        flat |= {f"reads_{way}": row["reads"][way] if "reads" in row else None for way in ("query", "key", "value")}
        rows.append(flat)
    return rows
