"""Diagnose: where what a rewrite costs goes, along the later parts of the subject, and what becomes of its heads.

1. On drawn test documents the losses of `simulated` and of `zero` over `coder` are taken apart into steps
   (`rewrite.arms.circuits.mediation`), of all parts and of single heads.
2. From weights alone: which heads read what each latent writes (`rewrite.arms.circuits.channels`), held against what
   the latents cost (`5_costs.parquet`); which copy, which read each other, what they say
   (`rewrite.arms.circuits.composition`).
3. What heads look at, on the same documents and on random texts said twice (`rewrite.arms.circuits.heads`).
4. What the stream is made of, at tokens of each class, and the routes of information back from a prediction
   (`rewrite.arms.circuits.routes`).
5. A task before and after, where one is set (`rewrite.arms.circuits.tasks`).

`5_diagnosis.json`: {"schema", "documents", "tokens", "alpha", "way": rows of `rewrite.statistics.mediation`, "heads",
"joined", "repeated", "routes", "closed", "task", "reading"}. `5_heads.parquet` has a row for each later head and each
rewritten latent: `layer`, `head`, `latent`, and the z of reading it by `query`, `key`, `value`; its metadata `least`
the z from which on one stands out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int

from rewrite.arms.circuits import composition
from rewrite.arms.circuits.channels import RANKS, WAYS, Channels, Closed, close_channels, read_channels
from rewrite.arms.circuits.classes import CLASSES
from rewrite.arms.circuits.heads import KINDS, SCORED, UNREAD, Repeated, Scores, all_heads, repeat
from rewrite.arms.circuits.mediation import BOUNDS, Mediated, mediate
from rewrite.arms.circuits.routes import THRESHOLDS, Routes, follow
from rewrite.arms.circuits.tasks import read_task, try_task
from rewrite.arms.drawn import Drawn, open_drawn
from rewrite.coder.activations import ActivationStore
from rewrite.coder.coder import Coder
from rewrite.coder.files import load_coder
from rewrite.config import Config
from rewrite.run.files import write_json
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.statistics.costs import correlate
from rewrite.statistics.mediation import (
    describe_alike,
    describe_closed,
    describe_heads,
    describe_scores,
    describe_task,
    describe_way,
)
from rewrite.subject.clamping import Clamp, Head
from rewrite.subject.weights import HeadWeights, unembedding

Row = dict[str, Any]
TURNED = 4
"""Directions of the channel that is turned up and down in a task."""
SAYING, FREQUENT = 10, 1000
"""Heads of which it is told what they say, and pairs of heads that read each other; tokens of skip-trigrams."""


def run(config: Config, run: Run) -> None:
    """Write `5_diagnosis.json` and `5_heads.parquet`."""
    store = ActivationStore(run.path("2_activations"), ("train", "calibrate", "test"))
    simulations = Simulations(run.path("4_simulations"), store.latents)
    coder = load_coder(run.path("1_coder"), config.hookpoint).to(torch.device(config.device))
    drawn = open_drawn(config, store, simulations, coder)
    alpha, asked = config.analyse.alpha, config.diagnose
    found = mediate(drawn, asked.documents, asked.heads, asked.seed)
    clamp = found.clamp
    firings = drawn.fitted.tally.firings
    layers = composition.known_weights(clamp) if clamp.heads else {}
    later = {layer: weights for layer, weights in layers.items() if layer > clamp.subject.layer}
    channels = read_channels(later, coder.W_dec, np.asarray(firings.multiply(firings).sum(1)).ravel())
    content = describe_way_of(found, alpha)
    copies = copy_scores(clamp, later)
    seen, often = np.unique(np.concatenate([shard.text.ids for _, shard in store.train.walk()]), return_counts=True)
    content["heads"] = tabulate_heads(found, score_heads(found, drawn), channels, copies, alpha)
    add_sayings(content["heads"][:SAYING], drawn, later, seen[np.argsort(-often, kind="stable")[:FREQUENT]])
    content["joined"] = [tell_joint(joint) for joint in composition.join(layers, clamp.subject.layer, SAYING)]
    content["repeated"] = describe_repeated(repeat(clamp, coder, seen, asked.seed, simulations.rewritten), clamp)
    routes = follow(drawn, clamp, asked.routes, asked.seed) if asked.routes else None
    content["routes"] = describe_routes(routes, alpha) if routes else None
    few = drawn.documents(asked.heads, asked.seed)
    closed = close_channels(drawn, channels, few, asked.seed) if channels and asked.heads else None
    content["closed"] = tell_closed(closed, alpha) if closed else None
    content["task"] = tell_task(config, drawn, coder, channels) if asked.task else None
    content["reading"] = hold_against_costs(run.path("5_costs.parquet"), channels, alpha)
    with run.writing("5_heads.parquet") as path:
        pq.write_table(tabulate_reading(channels, drawn.simulated), path)
    with run.writing("5_diagnosis.json") as path:
        write_json(path, content)


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


def score_heads(found: Mediated, drawn: Drawn) -> Scores:
    """Where heads look on the documents that were taken apart."""
    scores = Scores(found.clamp.heads, found.documents)
    if found.clamp.heads:
        for batch in drawn.batches(found.documents, "diagnose heads"):
            scores.add(drawn, batch)
    return scores


def copy_scores(clamp: Clamp, later: Mapping[int, HeadWeights]) -> dict[Head, float]:
    """The copying score of every later head whose weights are known."""
    scores: dict[Head, float] = {}
    if not later:
        return scores
    through = composition.whole_circuit(clamp.subject)
    for layer, weights in later.items():
        own = composition.copying(weights, through)
        scores |= {Head(layer, head): float(score) for head, score in enumerate(own) if np.isfinite(score)}
    return scores


def add_sayings(
    rows: Sequence[Row], drawn: Drawn, later: Mapping[int, HeadWeights], tokens: Int[np.ndarray, " token"]
) -> None:
    """Add what these heads say: tokens at the ends of what they write, and skip-trigrams of frequent tokens."""
    model: Any = drawn.subject.model
    embed = model.get_input_embeddings().weight.detach().float()
    unembed = unembedding(drawn.subject) if later else embed
    # A model's vocabulary may be larger than its tokenizer's.
    names = (*drawn.vocabulary, *("",) * (len(unembed) - len(drawn.vocabulary)))
    written = {
        layer: composition.write_components(later[layer]) for layer in {row["layer"] for row in rows} & later.keys()
    }
    for row in rows:
        if row["layer"] in later:
            weights, head = later[row["layer"]], row["head"]
            said = composition.say(written[row["layer"]][head], unembed)
            ends = [[[names[token] for token in end.tolist()] for end in pair] for pair in said]
            found = composition.skip_trigrams(weights, head, embed, unembed, tokens)
            told = [
                {"source": names[one.source], "end": names[one.end], "next": names[one.next], "sd": one.strength}
                for one in found
            ]
            row |= {"writes": ends, "trigrams": told}


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
        | {arm: float(found.later[number, KINDS.index("induction"), place]) for number, arm in enumerate(UNREAD)}
        for place, head in enumerate(clamp.heads)
    ]
    losses = {arm: [float(half) for half in found.losses[number]] for number, arm in enumerate(UNREAD)}
    return {"losses": losses, "heads": own, "induction": later}


def tell_closed(found: Closed, alpha: float) -> Row:
    """What it costs to lose the channel by which most of what the coder writes is read, a row a rank."""
    rows = describe_closed(found.tokens, found.coder, found.own, found.random, alpha)
    shares = [{"own_removed": float(own), "random_removed": float(random)} for own, random in found.removed]
    ranks = [{"rank": rank} | row | share for rank, row, share in zip(RANKS, rows, shares, strict=True)]
    return {"layer": found.head.layer, "head": found.head.head, "way": found.way, "ranks": ranks}


def tell_task(config: Config, drawn: Drawn, coder: Coder, channels: Channels | None) -> Row:
    """How a task goes under each arm, and with the channel that is read most turned down and up."""
    asked = config.diagnose
    items = read_task(asked.task, asked.items, asked.seed)
    channel = basis = None
    if channels is not None:
        head, way, directions = channels.most
        basis = directions[:TURNED]
        channel = {"layer": head.layer, "head": head.head, "way": way, "directions": len(basis)}
    tried = try_task(drawn.subject, coder, drawn.simulations.rewritten, items, basis, config.batch)
    arms = describe_task(tried.right, tried.margin, config.analyse.alpha)
    return {"task": Path(asked.task).name, "count": tried.items, "channel": channel, "arms": arms}


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


def hold_against_costs(path: Path, channels: Channels | None, alpha: float) -> list[Row]:
    """Spearman's ρ of what a latent costs with how much it is read: by the head that reads it most, and on average."""
    if channels is None:
        return []
    table = pq.read_table(path)
    latents = table.column("latent").to_numpy()
    costs = table.column("cost").to_numpy(zero_copy_only=False).astype(np.float64)
    rows = []
    for way, name in enumerate(WAYS):
        z = channels.latents[:, way][:, latents]
        for how, value in (("most", z.max(0)), ("mean", z.mean(0))):
            found, signed = (correlate(value, against, alpha) for against in (np.abs(costs), costs))
            row = {"way": name, "how": how, "n": found["n"], "rho": found["value"], "ci": found["ci"]}
            rows.append(row | {"rho_signed": signed["value"], "ci_signed": signed["ci"]})
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
