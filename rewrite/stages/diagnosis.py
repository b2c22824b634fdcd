"""What a diagnosis found → the rows of `5_diagnosis.json` and `5_heads.parquet` (`rewrite.stages.diagnose`)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from rewrite.arms.circuits import composition
from rewrite.arms.circuits.channels import RANKS, WAYS, Channels, Closed
from rewrite.arms.circuits.classes import CLASSES
from rewrite.arms.circuits.heads import KINDS, SCORED, Repeated, Scores, all_heads
from rewrite.arms.circuits.mediation import BOUNDS, Mediated
from rewrite.arms.circuits.routes import THRESHOLDS, Routes
from rewrite.arms.circuits.terms import Terms
from rewrite.statistics.mediation import (
    describe_alike,
    describe_closed,
    describe_heads,
    describe_scores,
    describe_terms,
    describe_way,
)
from rewrite.subject.clamping import Clamp, Head

Row = dict[str, Any]


def describe_way_of(found: Mediated, alpha: float) -> Row:
    """What was taken apart, on what, and the steps."""
    clamp = found.clamp
    names = [(clamp.subject.layer, "direct"), *((part.layer, part.kind) for part in clamp.parts)]
    steps = {key: found.steps(*key) for key in found.runs}
    return {
        "schema": 2,
        "documents": len(found.documents),
        "head_documents": int((~np.isnan(found.heads[0, 0])).sum()) if clamp.heads else 0,
        "tokens": int(found.tokens.sum()),
        "alpha": alpha,
        "way": describe_way(found.losses, steps, names, found.tokens, alpha),
    }


def tell_joint(joint: composition.Joint) -> Row:
    ends = {"layer": joint.later.layer, "head": joint.later.head, "way": joint.way}
    earlier = {"earlier_layer": joint.earlier.layer, "earlier_head": joint.earlier.head, "component": joint.component}
    return ends | earlier | {"z": joint.z, "least": joint.least, "whole": joint.whole}


def tabulate_heads(
    found: Mediated, scores: Scores, channels: Channels | None, copying: dict[Head, float], alpha: float
) -> list[Row]:
    """A row for each later head: what it carries, what it is, what it reads; by what it carries, most first."""
    heads = found.clamp.heads
    if not heads:
        return []
    rows: list[Row] = [{"layer": head.layer, "head": head.head, "copying": copying.get(head)} for head in heads]
    if not np.isnan(found.heads).all():
        for bound, each in zip(BOUNDS, describe_heads(found.heads, found.tokens, alpha), strict=True):
            for row, one in zip(rows, each, strict=True):
                row[bound] = one
    for kind, name in enumerate(KINDS):
        described = describe_scores(scores.paid[:, kind], scores.counts[kind], alpha)
        for arm, each in zip(SCORED, described, strict=False):
            for row, one in zip(rows, each, strict=True):
                row.setdefault(name, {})[arm] = one
    if channels is not None:
        for head, z in zip(channels.heads, channels.coder, strict=True):
            known = (float(way) if np.isfinite(way) else None for way in z)
            rows[heads.index(head)]["reads"] = dict(zip(WAYS, known, strict=True))
    return sorted(rows, key=lambda row: -sum(abs(row[bound]["nats"]) for bound in BOUNDS if bound in row))


def describe_repeated(found: Repeated, clamp: Clamp) -> Row:
    """Losses by arm and half, and each head's scores."""
    own = [
        {"layer": head.layer, "head": head.head}
        | {kind: float(found.own[number, place]) for number, kind in enumerate(KINDS)}
        for place, head in enumerate(all_heads(clamp))
    ]
    later = [
        {"layer": head.layer, "head": head.head}
        | {arm: float(found.later[number, KINDS.index("induction"), place]) for number, arm in enumerate(found.arms)}
        for place, head in enumerate(clamp.heads)
    ]
    losses = {arm: [float(half) for half in found.losses[number]] for number, arm in enumerate(found.arms)}
    return {"losses": losses, "heads": own, "induction": later}


def describe_paths(found: Terms, alpha: float) -> list[Row]:
    """A row for each arm and order, the run that cuts nothing last: its loss, what its paths are worth beyond those of
    the order before, and what the arm loses against `coder` there."""
    return [row for arm in found.losses for row in describe_terms(found.losses, arm, found.tokens, alpha)]


def tell_closed(found: Closed, alpha: float) -> Row:
    """What it costs to lose the channel by which most of what the coder writes is read, a row a rank."""
    rows = describe_closed(found.tokens, found.coder, found.own, found.random, alpha)
    shares = [{"own_removed": float(own), "random_removed": float(random)} for own, random in found.removed]
    ranks = [{"rank": rank} | row | share for rank, row, share in zip(RANKS, rows, shares, strict=True)]
    return {"layer": found.head.layer, "head": found.head.head, "way": found.way, "ranks": ranks}


def describe_routes(found: Routes, alpha: float) -> Row:
    """How alike routes are to the clean model's, and what the stream is made of, by layer and part under each arm."""
    positions = found.positions.sum()
    heads, mlp = found.heads.sum(3) / positions, found.mlp.sum(2) / positions
    parts: list[Row] = []
    for place, layer in enumerate(found.layers):
        under = {arm: float(mlp[number, place]) for number, arm in enumerate(SCORED)}
        parts.append({"layer": layer, "part": "mlp"} | under)
        for head in range(heads.shape[2]):
            under = {arm: float(heads[number, place, head]) for number, arm in enumerate(SCORED)}
            parts.append({"layer": layer, "part": f"head {head}"} | under)
    return {
        "documents": len(found.documents),
        "windows": int(found.windows.sum()),
        "positions": int(found.positions.sum()),
        "alike": describe_alike(found.alike, found.windows, SCORED, THRESHOLDS, alpha),
        "classes": describe_classes(found, alpha),
        "parts": parts,
    }


def describe_classes(found: Routes, alpha: float) -> list[Row]:
    """What attention and the MLP make up at tokens of each class, the mean over later layers, under each arm."""
    rows: list[Row] = []
    for number, name in enumerate(CLASSES):
        counts = found.of_class[number]
        for part, shares in zip(("attention", "mlp"), found.shares, strict=True):
            described = describe_scores(shares[:, [number]], counts, alpha)
            if described:
                under = {arm: own[0] for arm, own in zip(SCORED, described, strict=True)}
                rows.append({"class": name, "part": part, "positions": int(counts.sum()), "arms": under})
    return rows


def tabulate_reading(channels: Channels | None, simulated: np.ndarray) -> pa.Table:
    """A row for each later head and each rewritten latent; the metadata say from which z on one stands out."""
    latents = np.flatnonzero(simulated)
    heads = channels.heads if channels is not None else ()
    ways: Float[np.ndarray, "head way latent"] = (
        channels.latents[:, :, latents] if channels is not None else np.zeros((0, len(WAYS), len(latents)))
    )
    least = channels.least if channels is not None else np.zeros((0, len(WAYS)))
    table = pa.table(
        {
            "layer": pa.array(np.repeat([head.layer for head in heads], len(latents)), pa.int32()),
            "head": pa.array(np.repeat([head.head for head in heads], len(latents)), pa.int32()),
            "latent": pa.array(np.tile(latents, len(heads)), pa.int32()),
            **{name: pa.array(ways[:, way].ravel(), pa.float32()) for way, name in enumerate(WAYS)},
        }
    )
    told = [[head.layer, head.head, *(float(z) for z in own)] for head, own in zip(heads, least, strict=True)]
    return table.replace_schema_metadata({"least": json.dumps(told)})
