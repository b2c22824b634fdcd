"""Evaluate: write every arm at the hookpoint and sum each test document's losses.

1. The calibrate split gives the calibrators and the order of the latents, best explained first; the train split the
   readers that know no explanation (`rewrite.arms`).
2. Each batch of test windows runs once up to the hookpoint; every arm then runs only what comes after it.
3. The loss of the token after position t counts where an arm wrote at t; all arms count the same positions.

`5_losses.parquet` has a row per document × arm × fraction × order × seed; `5_latents.parquet` a row per latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from tqdm import tqdm

from rewrite.activations import ActivationStore, Shard
from rewrite.arms import Planned, Readings, fit_readers, pair_up, plan_arms, plan_draws
from rewrite.calibrate import CALIBRATORS, Tally, forget, tally
from rewrite.coder import Coder, load_coder
from rewrite.config import Config, UserError
from rewrite.corpus import pad_windows
from rewrite.probes import list_context
from rewrite.scoring import next_tokens, window_losses
from rewrite.simulations import Simulations
from rewrite.splice import Arm, Splicer
from rewrite.store import Run
from rewrite.subject import Subject, load_subject


def run(config: Config, run: Run) -> None:
    """Write `5_latents.parquet` and `5_losses.parquet`."""
    store = ActivationStore(run.path("2_activations"))
    simulations = Simulations(run.path("4_simulations"), store.latents)
    rewritten = simulations.rewritten
    missing = simulations.missing(store.shards("calibrate") + store.shards("test"))
    absent = np.isin(np.arange(store.latents), list(missing))
    fitted = forget(tally(pair_up(store, simulations), store.latents, simulations.scale), absent | ~rewritten)
    with run.writing("5_latents.parquet") as path:
        shares = missing_shares(store, simulations, absent)
        pq.write_table(latent_table(fitted, rewritten, missing, shares), path)

    subject = load_subject(config)
    device = torch.device(config.device)
    coder = load_coder(run.path("1_coder"), config.hookpoint).to(device)
    calibrator, readers = CALIBRATORS[config.calibrator], fit_readers(config, subject, store, device)
    splicer = Splicer(coder, calibrator(fitted), fitted, store.mean_output(), rewritten, readers)
    splicer.replace_missing(absent)
    left_out = absent if config.evaluate.missing == "leave_out" else np.zeros_like(absent)
    chosen = np.flatnonzero(rewritten)
    scores = read_scores(run.path("4_scores.parquet"), config.evaluate.order_by)
    best = chosen[order_latents(scores[chosen], ~absent[chosen])]
    arms = plan_arms(config, coder, best, left_out)
    readings = Readings(store, simulations, calibrator, coder, fitted, rewritten, absent)
    arms += plan_draws(config, rewritten & ~absent, rewritten & ~left_out, readings)
    with run.writing("5_losses.parquet") as path:
        scorer = Scorer(config, subject, coder, splicer, arms)
        pq.write_table(scorer.score(store, simulations), path)


def missing_shares(
    store: ActivationStore, simulations: Simulations, absent: Bool[np.ndarray, " latent"]
) -> Float[np.ndarray, " latent"]:
    """The share of each latent's predictions on the test split that are missing."""
    positions, lost = 0, np.zeros(store.latents)
    for name in store.shards("test"):
        text = store.load(name).text
        strengths = simulations.strengths(name, len(text.ids))
        positions += int(simulations.show(name, text).counted().sum())
        lost += np.bincount(strengths.indices, np.isnan(strengths.data), store.latents)
    return np.where(absent, 1.0, lost / max(positions, 1))


def latent_table(
    fitted: Tally,
    rewritten: Bool[np.ndarray, " latent"],
    missing: dict[int, str],
    shares: Float[np.ndarray, " latent"],
) -> pa.Table:
    """What the calibrate split says of each rewritten latent, a row each; the coder's width is in the metadata."""
    latents = np.flatnonzero(rewritten)
    table = pa.table(
        {
            "latent": pa.array(latents, pa.int32()),
            "density": pa.array(fitted.density[latents], pa.float64()),
            "maximum": pa.array(fitted.maximum[latents], pa.float32()),
            "mean": pa.array(fitted.mean[latents], pa.float64()),
            "missing": pa.array([missing.get(int(i), "") for i in latents], pa.string()),
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


def _simulated_windows(shard: Shard) -> np.ndarray:
    """Windows with a simulated position."""
    simulated = np.concatenate([[0], np.cumsum(shard.text.counted())])
    return np.flatnonzero(np.diff(simulated[shard.text.starts]))


class Scorer:
    """Sums the test documents' losses under every arm."""

    def __init__(self, config: Config, subject: Subject, coder: Coder, splicer: Splicer, arms: list[Planned]):
        self.config, self.subject, self.coder, self.splicer, self.arms = config, subject, coder, splicer, arms
        self.device = torch.device(config.device)
        self.simulated = [
            None if planned.simulated is None else torch.as_tensor(planned.simulated, device=self.device)
            for planned in arms
        ]

    def score(self, store: ActivationStore, simulations: Simulations) -> pa.Table:
        """The rows of `5_losses.parquet`."""
        documents = sum(len(names) for names in store.names("test"))
        nats, tokens = np.zeros((len(self.arms), documents)), np.zeros(documents, dtype=np.int64)
        shards = []
        for name in store.shards("test"):
            shard = store.load(name)
            shards.append((name, replace(shard, text=simulations.show(name, shard.text))))
        windows = sum(len(_simulated_windows(shard)) for _, shard in shards)
        with tqdm(total=windows, desc="evaluate", unit=" windows", disable=None) as progress:
            for name, shard in shards:
                strengths = simulations.strengths(name, len(shard.text.ids))
                others = self._draw(name, strengths, shard)
                simulated = _simulated_windows(shard)
                for begin in range(0, len(simulated), self.config.batch):
                    chosen = simulated[begin : begin + self.config.batch]
                    losses, counts = self._score_batch(shard, strengths, chosen, others)
                    for window, document in enumerate(shard.documents[chosen]):
                        nats[:, document] += losses[:, window]
                        tokens[document] += counts[window]
                    progress.update(len(chosen))
        return self._table(nats, tokens)

    def _draw(self, name: str, strengths: csr_array, shard: Shard) -> list[csr_array]:
        """The strengths of each control that has its own, in the order of the arms."""
        readings = [planned.reading for planned in self.arms if planned.reading is not None]
        return [reading.source.strengths(name, strengths, shard.text.counted()) for reading in readings]

    @torch.no_grad()
    def _score_batch(
        self, shard: Shard, strengths: csr_array, chosen: np.ndarray, others: Sequence[csr_array] = ()
    ) -> tuple[Float[np.ndarray, "arm window"], np.ndarray]:
        """Loss of every arm summed over each chosen window, and the tokens that count in it."""
        starts, simulated = shard.text.starts, shard.text.counted()
        padded = pad_windows([shard.text.ids[starts[w] : starts[w + 1]] for w in chosen])
        rows = np.concatenate([np.arange(starts[w], starts[w + 1]) for w in chosen])
        asked = np.zeros_like(padded.real)
        asked[padded.real] = simulated[rows]
        rows = rows[simulated[rows]]
        ids = torch.as_tensor(padded.ids, device=self.device)
        counted = torch.as_tensor(asked, device=self.device)
        prefix = self.subject.run_to(ids)
        own = prefix.output[counted].float()
        x = self.coder.read(prefix.input[counted], own)
        truth = shard.activations[rows]
        context = torch.as_tensor(list_context(shard.text, rows), device=self.device)
        simulation = self.splicer.prepare(x, own, truth, strengths[rows], context)
        drawn = iter(others)
        targets = next_tokens(ids, counted, torch.as_tensor(padded.real, device=self.device))
        losses = np.empty((len(self.arms), len(chosen)))
        for number, (planned, latents) in enumerate(zip(self.arms, self.simulated, strict=True)):
            splicer, arm, written = self.splicer, planned.arm, simulation
            if planned.reading is not None:
                splicer, arm = planned.reading.splicer, Arm("simulated")
                written = splicer.prepare(x, own, truth, next(drawn)[rows])
            vectors = prefix.output.clone()
            vectors[counted] = splicer.vectors(arm, written, latents).to(vectors.dtype)
            losses[number] = window_losses(self.subject.run_from(prefix, vectors), targets)
        return losses, (targets >= 0).sum(1).cpu().numpy()

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
