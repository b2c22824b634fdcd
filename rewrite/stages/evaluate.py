"""Evaluate: write every arm at the hookpoint and sum each test document's losses.

1. The calibrate split gives the calibrators and the order of the latents, best explained first; the train split the
   readers that know no explanation (`rewrite.arms`).
2. Each batch of test windows runs once up to the hookpoint; every arm then runs only what comes after it.
3. The loss of the token after position t counts where an arm wrote at t; all arms count the same positions.

`5_losses.parquet` has a row per document × arm × fraction × order × seed; `5_latents.parquet` a row per latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from tqdm import tqdm

from rewrite.activations import ActivationStore, Shard
from rewrite.arms import Planned, Readings, fit_readers, plan_arms, plan_draws
from rewrite.coder import load_coder
from rewrite.config import Config, UserError
from rewrite.hookpoint import Batch, Fitted, fit, losses_of, read_batches, simulated_windows, splice, walk_shards
from rewrite.simulations import Simulations
from rewrite.splice import Arm, Splicer
from rewrite.store import Run
from rewrite.subject import Subject, load_subject


def run(config: Config, run: Run) -> None:
    """Write `5_latents.parquet` and `5_losses.parquet`."""
    store = ActivationStore(run.path("2_activations"))
    simulations = Simulations(run.path("4_simulations"), store.latents)
    fitted = fit(config, store, simulations)
    absent, rewritten = fitted.absent, simulations.rewritten
    with run.writing("5_latents.parquet") as path:
        shares = missing_shares(store, simulations, absent)
        pq.write_table(latent_table(fitted, rewritten, shares), path)

    subject = load_subject(config)
    device = torch.device(config.device)
    coder = load_coder(run.path("1_coder"), config.hookpoint).to(device)
    splicer = splice(store, simulations, fitted, coder, fit_readers(config, subject, store, device))
    left_out = absent if config.evaluate.missing == "leave_out" else np.zeros_like(absent)
    chosen = np.flatnonzero(rewritten)
    scores = read_scores(run.path("4_scores.parquet"), config.evaluate.order_by)
    best = chosen[order_latents(scores[chosen], ~absent[chosen])]
    arms = plan_arms(config, coder, best, left_out)
    readings = Readings(config, store, simulations, coder, fitted.tally)
    arms += plan_draws(config, rewritten & ~absent, rewritten & ~left_out, readings)
    with run.writing("5_losses.parquet") as path:
        pq.write_table(Scorer(config, subject, splicer, arms).score(store, simulations), path)


def missing_shares(
    store: ActivationStore, simulations: Simulations, absent: Bool[np.ndarray, " latent"]
) -> Float[np.ndarray, " latent"]:
    """The share of each latent's predictions on the test split that are missing."""
    positions, lost = 0, np.zeros(store.latents)
    for name, shard in walk_shards(store, simulations, "test"):
        counted = shard.text.counted()
        strengths = simulations.strengths(name, len(counted))
        positions += int(counted.sum())
        lost += np.bincount(strengths.indices, np.isnan(strengths.data), store.latents)
    return np.where(absent, 1.0, lost / max(positions, 1))


def latent_table(
    fitted: Fitted, rewritten: Bool[np.ndarray, " latent"], shares: Float[np.ndarray, " latent"]
) -> pa.Table:
    """What the calibrate split says of each rewritten latent, a row each; the coder's width is in the metadata."""
    latents, tally = np.flatnonzero(rewritten), fitted.tally
    table = pa.table(
        {
            "latent": pa.array(latents, pa.int32()),
            "density": pa.array(tally.density[latents], pa.float64()),
            "maximum": pa.array(tally.maximum[latents], pa.float32()),
            "mean": pa.array(tally.mean[latents], pa.float64()),
            "missing": pa.array([fitted.missing.get(int(i), "") for i in latents], pa.string()),
            "missing_share": pa.array(shares[latents], pa.float64()),
        }
    )
    return table.replace_schema_metadata({"latents": str(len(rewritten))})


def read_scores(path: Path, column: str) -> Float[np.ndarray, " latent"]:
    """One score of every latent, NaN where it has none. Raises UserError for a score that was not taken."""
    table = pq.read_table(path)
    if column not in table.column_names:
        raise UserError(f"evaluate.order_by = {column}: not scored; add it to score.scorers")
    scores: np.ndarray = table.column(column).to_numpy(zero_copy_only=False).astype(np.float64)
    return scores


def order_latents(score: Float[np.ndarray, " latent"], known: Bool[np.ndarray, " latent"]) -> np.ndarray:
    """Latents from best to worst explained, those without a score last, those that are not known after all others."""
    return np.lexsort((-np.where(np.isnan(score), -np.inf, score), ~known))


class Scorer:
    """Sums the test documents' losses under every arm."""

    def __init__(self, config: Config, subject: Subject, splicer: Splicer, arms: list[Planned]):
        self.config, self.subject, self.splicer, self.arms = config, subject, splicer, arms
        self.simulated = [
            None if planned.simulated is None else torch.as_tensor(planned.simulated, device=splicer.resting.device)
            for planned in arms
        ]

    def score(self, store: ActivationStore, simulations: Simulations) -> pa.Table:
        """The rows of `5_losses.parquet`."""
        documents = sum(len(names) for names in store.names("test"))
        nats, tokens = np.zeros((documents, len(self.arms))), np.zeros(documents, dtype=np.int64)
        windows = sum(len(simulated_windows(shard)) for _, shard in walk_shards(store, simulations, "test"))
        with tqdm(total=windows, desc="evaluate", unit=" windows", disable=None) as progress:
            for name, shard in walk_shards(store, simulations, "test"):
                strengths = simulations.strengths(name, len(shard.text.ids))
                others = self._draw(name, strengths, shard)
                chosen = simulated_windows(shard)
                for batch in read_batches(self.config, self.subject, self.splicer, shard, strengths, chosen):
                    np.add.at(nats, batch.documents, self.score_batch(batch, others).T)
                    np.add.at(tokens, batch.documents, batch.tokens)
                    progress.update(len(batch.documents))
        return self._table(nats.T, tokens)

    def _draw(self, name: str, strengths: csr_array, shard: Shard) -> list[csr_array]:
        """The strengths of each control that has its own, in the order of the arms."""
        readings = [planned.reading for planned in self.arms if planned.reading is not None]
        return [reading.source.strengths(name, strengths, shard.text.counted()) for reading in readings]

    @torch.no_grad()
    def score_batch(self, batch: Batch, others: Sequence[csr_array] = ()) -> Float[np.ndarray, "arm window"]:
        """Loss of every arm summed over each window; `others` are the shard's strengths of the drawn controls."""
        losses, drawn = np.empty((len(self.arms), len(batch.documents))), iter(others)
        for number, (planned, latents) in enumerate(zip(self.arms, self.simulated, strict=True)):
            splicer, arm, written = self.splicer, planned.arm, batch.written
            if planned.reading is not None:
                splicer, arm = planned.reading.splicer, Arm("simulated")
                written = splicer.prepare_again(written, next(drawn)[batch.rows])
            losses[number] = losses_of(self.subject, batch, splicer.vectors(arm, written, latents))
        return losses

    def _table(self, nats: np.ndarray, tokens: np.ndarray) -> pa.Table:
        kept = np.flatnonzero(tokens)
        arms = [planned.arm for planned in self.arms]
        each = [np.repeat(values, len(kept)) for values in ([a.name for a in arms], [a.order for a in arms])]
        return pa.table(
            {
                "document": pa.array(np.tile(kept, len(arms)), pa.int32()),
                "arm": pa.array(each[0], pa.string()),
                "fraction": pa.array([a.fraction for a in arms for _ in kept], pa.float64()),
                "order": pa.array(each[1], pa.string()),
                "seed": pa.array(np.repeat([a.seed for a in arms], len(kept)), pa.int64()),
                "nats": pa.array(nats[:, kept].ravel(), pa.float64()),
                "tokens": pa.array(np.tile(tokens[kept], len(arms)), pa.int64()),
            }
        )
