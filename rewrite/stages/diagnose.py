"""Diagnose: where what a rewrite costs goes, along the later parts of the subject, and what becomes of its heads.

1. On drawn test documents the losses of `simulated` and of `zero` over `coder` are taken apart into steps
   (`rewrite.arms.circuits.mediation`), of all parts and of single heads.
2. From weights alone: which heads read what each latent writes (`rewrite.arms.circuits.channels`), held against what
   the latents cost (`5_costs.parquet`); which copy, which read each other, what they say
   (`rewrite.arms.circuits.composition`).
3. What heads look at, on the same documents and on random texts said twice (`rewrite.arms.circuits.heads`); through
   how many attention layers what the loss needs passes (`rewrite.arms.circuits.terms`).
4. What the stream is made of, at tokens of each class, and the routes of information back from a prediction
   (`rewrite.arms.circuits.routes`).
5. A task before and after, where one is set (`rewrite.arms.circuits.tasks`).

`5_diagnosis.json`: {"schema", "documents", "tokens", "alpha", "way": rows of `rewrite.statistics.mediation`, "heads",
"joined", "repeated", "terms", "routes", "closed", "task", "reading"}. `5_heads.parquet` has a row for each later head
and each rewritten latent: `layer`, `head`, `latent`, and the z of reading it by `query`, `key`, `value`; its metadata
`least` the z from which on one stands out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Int

from rewrite.arms.anywhere import Anywhere, Simulated, simulate_with
from rewrite.arms.circuits import composition
from rewrite.arms.circuits.channels import WAYS, Channels, close_channels, read_channels
from rewrite.arms.circuits.heads import Scores, repeat
from rewrite.arms.circuits.mediation import Mediated, mediate
from rewrite.arms.circuits.routes import follow
from rewrite.arms.circuits.tasks import read_task, try_task
from rewrite.arms.circuits.terms import take_terms
from rewrite.arms.drawn import Drawn, open_drawn
from rewrite.coder.activations import ActivationStore
from rewrite.coder.files import load_coder
from rewrite.config import Config
from rewrite.engines.calls import Calls
from rewrite.run import plugins
from rewrite.run.files import write_json
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.stages.diagnosis import (
    describe_paths,
    describe_repeated,
    describe_routes,
    describe_way_of,
    tabulate_heads,
    tabulate_reading,
    tell_closed,
    tell_joint,
)
from rewrite.stages.simulate import TrueActivations, open_own
from rewrite.statistics.costs import correlate
from rewrite.statistics.mediation import describe_task
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
    assert firings is not None, "the run's own tally keeps them"
    layers = composition.known_weights(clamp) if clamp.heads else {}
    later = {layer: weights for layer, weights in layers.items() if layer > clamp.subject.layer}
    channels = read_channels(later, coder.W_dec, np.asarray(firings.multiply(firings).sum(1)).ravel())
    content = describe_way_of(found, alpha)
    copies = copy_scores(clamp, later)
    seen, often = np.unique(np.concatenate([text.ids for text in store.train.texts()]), return_counts=True)
    content["heads"] = tabulate_heads(found, score_heads(found, drawn), channels, copies, alpha)
    add_sayings(content["heads"][:SAYING], drawn, later, seen[np.argsort(-often, kind="stable")[:FREQUENT]])
    content["joined"] = [tell_joint(joint) for joint in composition.join(layers, clamp.subject.layer, SAYING)]
    anywhere = Anywhere(coder, simulations.rewritten, simulate_new(config, run, store, drawn))
    content["repeated"] = describe_repeated(repeat(clamp, anywhere, seen, asked.seed), clamp)
    terms = take_terms(drawn, clamp, found.documents)
    content["terms"] = describe_paths(terms, alpha) if terms else []
    routes = follow(drawn, clamp, asked.routes, asked.seed) if asked.routes else None
    content["routes"] = describe_routes(routes, alpha) if routes else None
    few = drawn.documents(asked.heads, asked.seed)
    closed = close_channels(drawn, channels, few, asked.seed) if channels and asked.heads else None
    content["closed"] = tell_closed(closed, alpha) if closed else None
    content["task"] = tell_task(config, drawn, anywhere, channels) if asked.task else None
    content["reading"] = hold_against_costs(run.path("5_costs.parquet"), channels, alpha)
    with run.writing("5_heads.parquet") as path:
        pq.write_table(tabulate_reading(channels, drawn.simulated), path)
    with run.writing("5_diagnosis.json") as path:
        write_json(path, content)


def simulate_new(config: Config, run: Run, store: ActivationStore, drawn: Drawn) -> Simulated | None:
    """What `simulated` writes on texts that no stage has seen; None where reading them would ask a language model."""
    if getattr(plugins.chosen("simulator", config), "calls", True):
        return None
    with Calls(config, run, "diagnose") as calls:
        simulator = open_own(config, run, store, TrueActivations(store), calls)
    return simulate_with(drawn, lambda text: simulator.simulate(text).values)


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


def tell_task(config: Config, drawn: Drawn, anywhere: Anywhere, channels: Channels | None) -> Row:
    """How a task goes under each arm, and with the channel that is read most turned down and up."""
    asked = config.diagnose
    items = read_task(asked.task, asked.items, asked.seed)
    channel = basis = None
    if channels is not None:
        head, way, directions = channels.most
        basis = directions[:TURNED]
        channel = {"layer": head.layer, "head": head.head, "way": way, "directions": len(basis)}
    tried = try_task(drawn.subject, anywhere, items, basis, config.batch)
    arms = describe_task(tried.right, tried.margin, config.analyse.alpha)
    return {"task": Path(asked.task).name, "count": tried.items, "channel": channel, "arms": arms}


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
