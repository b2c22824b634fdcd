"""Cost: what each rewritten latent's simulation costs in loss, and how often it fires falsely or not at all.

1. A few of the test documents are drawn; on them integrated gradients give every latent's cost (`rewrite.attribution`),
   and the two ends of their line, `coder` and `simulated`, say by how much the costs fail to add up.
2. Some latents are also measured alone, all others true, and both ways are compared (`rewrite.costs`).
3. False and missed firings are counted on all simulated positions of the test split (`rewrite.firings`).

`5_costs.parquet` has a row per rewritten latent: `cost`, `cost_low`, `cost_high` [nats per token], `p`, `q`, `alone`
with its ends, the scores it may be predicted from, the counts and the rates; null is what there is none of.
`5_costs.json`: {"schema", "documents", "tokens", "steps", "loss": {"coder", "simulated"}, "sum", "completeness_error",
"completeness_share", "costly", "tested", "check", "predictors", "firings"}.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from rewrite.activations import ActivationStore
from rewrite.attribution import Errors, alone_losses, attribute, integrate
from rewrite.coder import load_coder
from rewrite.config import Config, UserError
from rewrite.controls import find_threshold
from rewrite.costs import PREDICTORS, Costs, check_costs, draw_check, predict, summarise
from rewrite.firings import Firings, count_firings, pool, rate_latents
from rewrite.hookpoint import Batch, Fitted, document_pairs, fit, losses_of, splice, walk_batches, walk_shards
from rewrite.simulations import Simulations
from rewrite.splice import Arm, Splicer
from rewrite.store import Run, write_json
from rewrite.subject import Subject, load_subject

Row = dict[str, Any]


def run(config: Config, run: Run) -> None:
    """Write `5_costs.parquet` and `5_costs.json`."""
    store = ActivationStore(run.path("2_activations"))
    simulations = Simulations(run.path("4_simulations"), store.latents)
    fitted = fit(config, store, simulations)
    rewritten = simulations.rewritten
    left_out = fitted.absent if config.evaluate.missing == "leave_out" else np.zeros_like(fitted.absent)
    coder = load_coder(run.path("1_coder"), config.hookpoint).to(torch.device(config.device))
    splicer = splice(store, simulations, fitted, coder)
    meter = Meter(config, load_subject(config), splicer, store, simulations, rewritten & ~left_out)
    ledger = meter.attribute()
    value = ledger.nats.sum(0) / ledger.tokens.sum()
    check = draw_check(value, meter.simulated, config.cost.check, config.cost.seed)
    measured = meter.measure_alone(np.concatenate([check["most"], check["drawn"]]), ledger)
    alpha = config.analyse.alpha
    costs, alone = summarise(ledger.nats, ledger.tokens, alpha), summarise(measured, ledger.tokens, alpha)
    firings = count_test_firings(store, simulations, fitted)
    scores = read_scores(run.path("4_scores.parquet")) | {"density": fitted.tally.density, "size": ledger.sizes()}
    with run.writing("5_costs.parquet") as path:
        columns = _cost_columns(costs, alone) | scores | _firing_columns(firings)
        pq.write_table(tabulate(columns, rewritten), path)
    with run.writing("5_costs.json") as path:
        known = costs.q[~np.isnan(costs.q)]
        content = ledger.describe(config.cost.steps)
        content |= {"alpha": alpha, "costly": int((known < alpha).sum()), "tested": len(known)}
        content["check"] = check_costs(costs.value, alone.value, check["drawn"], alpha)
        content["predictors"] = predict(costs.value, scores, alpha)
        content["firings"] = pool(firings, alpha)
        write_json(path, content)


@dataclass
class Ledger:
    """What the drawn documents gave: costs [nats], NaN for what is not simulated, and the losses at the line's ends."""

    documents: Int[np.ndarray, " document"]
    nats: Float[np.ndarray, "document latent"]
    tokens: Int[np.ndarray, " document"]
    weight: Float[np.ndarray, " latent"]
    """‖W‖² of each latent's decoder row."""
    squares: Float[np.ndarray, " latent"]
    positions: int = 0
    losses: Float[np.ndarray, "2 document"] = field(init=False)

    def __post_init__(self) -> None:
        self.losses = np.zeros((2, len(self.documents)))

    def place(self, documents: np.ndarray) -> Int[np.ndarray, " n"]:
        """Where the documents stand among those drawn."""
        found: np.ndarray = np.searchsorted(self.documents, documents)
        return found

    def sizes(self) -> Float[np.ndarray, " latent"]:
        """Mean squared error times the decoder row's squared length: what each latent's error weighs."""
        sizes: np.ndarray = self.squares / max(self.positions, 1) * self.weight
        return sizes

    def describe(self, steps: int) -> Row:
        """The losses at both ends, and by how much the costs fail to add up to their difference [nats per token]."""
        tokens = int(self.tokens.sum())
        coder, simulated = (float(loss) / tokens for loss in self.losses.sum(1))
        total = float(np.nansum(self.nats)) / tokens
        error = total - (simulated - coder)
        return {
            "schema": 1,
            "documents": int((self.tokens > 0).sum()),
            "tokens": tokens,
            "steps": steps,
            "loss": {"coder": coder, "simulated": simulated},
            "sum": total,
            "completeness_error": error,
            "completeness_share": abs(error / (simulated - coder)) if simulated != coder else None,
        }


@dataclass(frozen=True)
class Meter:
    """Measures costs of the `simulated` latents on the documents that the config draws."""

    config: Config
    subject: Subject
    splicer: Splicer
    store: ActivationStore
    simulations: Simulations
    simulated: Bool[np.ndarray, " latent"]

    def documents(self) -> Int[np.ndarray, " document"]:
        """The test documents that costs are taken on: those with a scored token, or as many of them as are wanted."""
        scored = []
        for _, shard in walk_shards(self.store, self.simulations, "test"):
            followed = shard.text.counted()
            followed[shard.text.starts[1:] - 1] = False
            scored.append(np.unique(np.repeat(shard.documents, np.diff(shard.text.starts))[followed]))
        found = np.unique(np.concatenate(scored))
        if not len(found):
            raise UserError("no test document has a position that is simulated and scored; see sample in the config")
        wanted = self.config.cost.documents or len(found)
        return np.sort(np.random.default_rng([self.config.cost.seed, 0]).permutation(found)[:wanted])

    def batches(self, documents: np.ndarray, what: str) -> Iterator[Batch]:
        """The windows of some documents, with a bar."""
        walked = walk_batches(self.config, self.subject, self.splicer, self.store, self.simulations, documents)
        with tqdm(desc=what, unit=" windows", disable=None) as progress:
            for batch in walked:
                yield batch
                progress.update(len(batch.documents))

    def ends(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the `coder` and the `simulated` arm write."""
        marked = torch.as_tensor(self.simulated, device=self.splicer.resting.device)
        with torch.no_grad():
            begin = self.splicer.vectors(Arm("coder"), batch.written)
            return begin, self.splicer.vectors(Arm("simulated", 1.0, "best"), batch.written, marked)

    def attribute(self) -> Ledger:
        """Integrated gradients on every batch, and the losses at both ends."""
        documents, decoder = self.documents(), self.splicer.coder.W_dec
        latents, count = len(decoder), len(documents)
        weight = decoder.double().square().sum(1).cpu().numpy()
        nothing = np.where(self.simulated, 0.0, np.nan)[None].repeat(count, axis=0)
        ledger = Ledger(documents, nothing, np.zeros(count, dtype=np.int64), weight, np.zeros(latents))
        for batch in self.batches(documents, "cost"):
            begin, end = self.ends(batch)
            errors = Errors.of(batch.written, self.splicer, self.simulated)
            mean = integrate(self.subject, batch, begin, end, self.config.cost.steps)
            own, owners = np.unique(batch.owners, return_inverse=True)
            ledger.nats[ledger.place(own)] += attribute(mean, errors, decoder, owners.astype(np.int64), len(own))
            ledger.squares += errors.squares()
            ledger.positions += len(errors)
            places = ledger.place(batch.documents)
            np.add.at(ledger.tokens, places, batch.tokens)
            for loss, vectors in zip(ledger.losses, (begin, end), strict=True):
                np.add.at(loss, places, losses_of(self.subject, batch, vectors))
        return ledger

    def measure_alone(
        self, latents: Int[np.ndarray, " checked"], ledger: Ledger
    ) -> Float[np.ndarray, "document latent"]:
        """Nats that each of these latents costs alone, by document; NaN for the others."""
        nats = np.full_like(ledger.nats, np.nan)
        nats[:, latents] = 0
        if not len(latents):
            return nats
        decoder = self.splicer.coder.W_dec
        for batch in self.batches(ledger.documents, f"cost of {len(latents)} alone"):
            begin, _ = self.ends(batch)
            errors, places = Errors.of(batch.written, self.splicer, self.simulated), ledger.place(batch.documents)
            coder = losses_of(self.subject, batch, begin)
            for latent in latents:
                loss = alone_losses(self.subject, batch, begin, errors, decoder, int(latent))
                if loss is not None:
                    np.add.at(nats[:, latent], places, loss - coder)
        return nats


def count_test_firings(store: ActivationStore, simulations: Simulations, fitted: Fitted) -> Firings:
    """Count on every simulated position of the test split; latents without a prediction are not pooled."""
    counted = simulations.rewritten & ~fitted.absent
    threshold = find_threshold(fitted.calibrator, simulations.scale, store.latents)
    pairs = document_pairs(store, simulations, "test")
    return count_firings(pairs, fitted.calibrator, threshold, counted)


def read_scores(path: Path) -> dict[str, Float[np.ndarray, " latent"]]:
    """The scores of every latent that were taken, by name; NaN where a latent has none."""
    table = pq.read_table(path)
    taken = [name for name in PREDICTORS if name in table.column_names]
    return {name: table.column(name).to_numpy(zero_copy_only=False).astype(np.float64) for name in taken}


def _cost_columns(costs: Costs, alone: Costs) -> dict[str, np.ndarray]:
    return {
        "cost": costs.value,
        "cost_low": costs.low,
        "cost_high": costs.high,
        "p": costs.p,
        "q": costs.q,
        "alone": alone.value,
        "alone_low": alone.low,
        "alone_high": alone.high,
    }


def _firing_columns(firings: Firings) -> dict[str, np.ndarray]:
    columns = {name: np.where(firings.counted, values, np.nan) for name, values in vars(firings.latents).items()}
    return columns | {name: np.where(firings.counted, values, np.nan) for name, values in rate_latents(firings).items()}


def tabulate(columns: dict[str, np.ndarray], rewritten: Bool[np.ndarray, " latent"]) -> pa.Table:
    """A row per rewritten latent, null for NaN."""
    latents = np.flatnonzero(rewritten)
    table: dict[str, pa.Array] = {"latent": pa.array(latents, pa.int32())}
    for name, values in columns.items():
        table[name] = pa.array(values[latents], pa.float64(), from_pandas=True)
    return pa.table(table)
