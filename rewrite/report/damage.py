"""Where the damage goes, as a report tells it: a sentence, rows for tables, names. From `5_diagnosis.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
"""Attention, on random text said twice, to the token after the same one, from which on a head is called an induction
head: some ten times what looking anywhere would give."""


def find_way(diagnosis: Row, arm: str = "simulated") -> Row:
    """What an arm loses, step by step."""
    way: Row = next(row for row in diagnosis["way"] if row["arm"] == arm)
    return way


def sentence(diagnosis: Row) -> str:
    """The whole in a sentence or two."""
    way = find_way(diagnosis)
    documents = f"On {diagnosis['documents']:,} test documents"
    if way["kinds"][0]["share"] is None:
        return f"{documents} the simulation is not told from the coder: there is no damage to follow."
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
    sure = [row for row in diagnosis["heads"] if "needed" in row and row["needed"]["p_holm"] < diagnosis["alpha"]]
    if not sure:
        return " No single head is told from the others' noise." if diagnosis["head_documents"] else ""
    row = max(sure, key=lambda row: abs(row["needed"]["nats"]))
    kind = f", {told}," if (told := kind_of(diagnosis, row)) else ""
    return f" Head {name_head(row)}{kind} carries most: held as it was, {row['needed']['nats']:.4f} nats are not lost."


def name_head(row: Row) -> str:
    """A head as it is called: its layer, a point, its number, from 0."""
    return f"{row['layer']}.{row['head']}"


def kind_of(diagnosis: Row, row: Row) -> str:
    """`an induction head`, `a previous-token head`, or nothing."""
    for own in (diagnosis["repeated"] or {}).get("heads", []):
        if (own["layer"], own["head"]) == (row["layer"], row["head"]):
            if own["induction"] >= INDUCTION:
                return "an induction head"
            return "a previous-token head" if own["previous"] >= 0.5 else ""
    return ""


READERS, FROM = 3, 3.0
"""Heads named on a latent's page, and from how many standard deviations above chance on."""


def find_readers(path: Path) -> dict[int, str]:
    """By latent the heads that read it most, in words, from `5_heads.parquet`; those that none reads are left out."""
    table = pq.read_table(path)
    ways = ("query", "key", "value")
    z = np.stack([table.column(way).to_numpy() for way in ways], 1)
    layers, heads, latents = (table.column(name).to_numpy() for name in ("layer", "head", "latent"))
    where, which = np.nonzero(z >= FROM)
    order = np.argsort(-z[where, which], kind="stable")
    told: dict[int, list[str]] = {}
    for row, way in zip(where[order], which[order], strict=True):
        said = told.setdefault(int(latents[row]), [])
        if len(said) < READERS:
            said.append(f"{layers[row]}.{heads[row]} by its {ways[way]} ({z[row, way]:.1f} sd)")
    return {latent: ", ".join(said) for latent, said in told.items()}


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
