"""Evaluate: write every arm at the hookpoint and sum each test document's losses.

1. The calibrate split gives the calibrators and the order of the latents, best explained first; the train split the
   readers that know no explanation (`rewrite.arms.plan`).
2. Each batch of test windows runs once up to the hookpoint; every arm then runs only what comes after it.
3. The loss of the token after position t counts where an arm wrote at t; all arms count the same positions.

`5_losses.parquet` has a row per document × arm × fraction × order × seed; `5_latents.parquet` a row per latent;
`5_calibration.safetensors` is described in `rewrite.statistics.curves`, `5_places.parquet` in
`rewrite.statistics.places`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from torch import Tensor

from rewrite.arms.audit import plan_audit
from rewrite.arms.batches import (
    Batch,
    Fitted,
    fit,
    leave_out,
    read_batches,
    show_shard,
    simulated_windows,
    splice,
    token_losses_of,
    walk_pairs,
    walk_shards,
)
from rewrite.arms.controls import find_threshold
from rewrite.arms.plan import Controls, PlannedArm, fit_readers, plan_arms, plan_draws
from rewrite.arms.splice import Arm, Splicer
from rewrite.coder.activations import ActivationStore, Split
from rewrite.coder.files import load_coder
from rewrite.config import Config, UserError
from rewrite.run.parts import Arrays, Maker, Share, one_by_one
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.statistics.curves import Curves, Measured, measure, save_curves
from rewrite.statistics.mass import Mass, measure_mass, pack
from rewrite.statistics.places import PLACED, Tally, per_million
from rewrite.statistics.screening.measuring import measure_screen, note_screen
from rewrite.subject.subject import Subject, load_subject


def run(config: Config, run: Run) -> None:
    """Write what the calibrate split says of the latents, how that holds on the test split, and the losses there."""
    store = ActivationStore(run.path("2_activations"), ("train", "calibrate", "test"))
    simulations = Simulations(run.path("4_simulations"), store.latents)
    fitted = fit(config, store.calibrate, simulations)
    everywhere = store.calibrate.shards + store.test.shards
    missing, absent, rewritten = simulations.missing(everywhere), simulations.absent(everywhere), simulations.rewritten
    pairs = walk_pairs(store.test, simulations)
    measured = measure(pairs, fitted.calibrator, simulations.scale, rewritten & ~absent)
    with run.writing("5_latents.parquet") as path:
        mass = measure_mass(store.test, simulations)
        shares = np.maximum(measured.missing_shares, fitted.tally.missing_shares)
        table = latent_table(fitted, missing, rewritten, shares, mass)
        pq.write_table(note_screen(table, measure_screen(store.test, simulations)), path)
    with run.writing("5_calibration.safetensors") as path:
        save_curves(path, draw_curves(fitted, measured))

    scorer = open_scorer(config, run, store, simulations, fitted)
    with run.parts("5_losses.parquet") as folder:
        scores = scorer.score(store.test, simulations, train_frequencies(store.train), Share(config, folder))
        with run.writing("5_losses.parquet") as path:
            pq.write_table(scores.losses, path)
        with run.writing("5_places.parquet") as path:
            pq.write_table(scores.places, path)


def open_scorer(config: Config, run: Run, store: ActivationStore, simulations: Simulations, fitted: Fitted) -> Scorer:
    """The subject with every arm that the config asks for."""
    absent, rewritten = simulations.absent(store.calibrate.shards + store.test.shards), simulations.rewritten
    subject, device = load_subject(config), torch.device(config.device)
    coder = load_coder(run.path("1_coder"), config.hookpoint).to(device)
    splicer = splice(config, fitted, simulations, coder, absent, fit_readers(config, subject, store.train, device))
    left_out = leave_out(config, absent)
    chosen = np.flatnonzero(rewritten)
    explained = read_scores(run.path("4_scores.parquet"), config.evaluate.order_by)
    best = chosen[order_latents(explained[chosen], ~absent[chosen])]
    arms = plan_arms(config, coder, best, left_out)
    drawn = Controls(config, store.calibrate, simulations, coder, fitted.tally, absent)
    arms += plan_draws(config, rewritten & ~absent, rewritten & ~left_out, drawn)
    arms += plan_audit(config, store, simulations, coder, absent, rewritten & ~left_out)
    return Scorer(config, subject, splicer, arms)


def draw_curves(fitted: Fitted, measured: Measured) -> Curves:
    """The calibration of all latents, and how it holds on the test split."""
    calibrator, tally = fitted.calibrator, fitted.tally
    threshold = find_threshold(calibrator, tally.scale, len(tally.mean))
    return Curves(tally.scale, calibrator, threshold, tally.mean, measured.test)


def latent_table(
    fitted: Fitted,
    missing: Mapping[int, str],
    rewritten: Bool[np.ndarray, " latent"],
    shares: Float[np.ndarray, " latent"],
    mass: Mass | None,
) -> pa.Table:
    """What the calibrate split says of each rewritten latent, a row each, with the share of its predictions that are
    missing on the split that misses more; the coder's width is in the metadata, and,
    where the simulator reads probabilities, the mass on digits over all (`rewrite.statistics.mass`)."""
    latents, tally = np.flatnonzero(rewritten), fitted.tally
    table = pa.table(
        {
            "latent": pa.array(latents, pa.int32()),
            "density": pa.array(tally.density[latents], pa.float64()),
            "maximum": pa.array(tally.maximum[latents], pa.float32()),
            "mean": pa.array(tally.mean[latents], pa.float64()),
            "missing": pa.array([missing.get(int(i), "") for i in latents], pa.string()),
            "missing_share": pa.array(shares[latents], pa.float64()),
        }
    )
    if mass is None:
        return table.replace_schema_metadata({"latents": str(len(rewritten))})
    table = table.append_column("mass", pa.array(mass.medians[latents], pa.float64(), from_pandas=True))
    return table.replace_schema_metadata({"latents": str(len(rewritten)), "mass": pack(mass)})


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


def train_frequencies(train: Split) -> Float[np.ndarray, " token"]:
    """How often each token stands in the train split, per million."""
    return per_million((text.ids for text in train.texts()), len(train.vocabulary))


def find_placed(arms: Sequence[PlannedArm]) -> dict[int, str]:
    """The arms whose losses are kept by place: `simulated` once, best first, at its largest fraction."""
    placed = {number: planned.arm.name for number, planned in enumerate(arms) if planned.arm.name in PLACED}
    best = {
        number: planned.arm.fraction or 0.0
        for number, planned in enumerate(arms)
        if (planned.arm.name, planned.arm.order) == ("simulated", "best")
    }
    return placed | ({max(best, key=best.__getitem__): "simulated"} if best else {})


@dataclass(frozen=True)
class Scores:
    """The rows of `5_losses.parquet` and of `5_places.parquet`."""

    losses: pa.Table
    places: pa.Table


class Scorer:
    """Sums the test documents' losses under every arm."""

    def __init__(self, config: Config, subject: Subject, splicer: Splicer, arms: list[PlannedArm]):
        self.config, self.subject, self.splicer, self.arms = config, subject, splicer, arms
        self.simulated = [
            None if planned.simulated is None else torch.as_tensor(planned.simulated, device=splicer.resting.device)
            for planned in arms
        ]
        self.placed = find_placed(arms)

    def only(self, names: Collection[str]) -> Scorer:
        """The same with the arms of these names alone."""
        kept = [planned for planned in self.arms if planned.arm.name in names]
        return Scorer(self.config, self.subject, self.splicer, kept)

    def score(
        self,
        test: Split,
        simulations: Simulations,
        frequencies: Float[np.ndarray, " token"],
        make: Maker = one_by_one,
    ) -> Scores:
        """Every document's losses, shard by shard as `make` has them made; what is kept by place needs tokens'
        frequencies in the train split."""
        documents = len(test.names)
        nats, tokens = np.zeros((documents, len(self.arms))), np.zeros(documents, dtype=np.int64)
        places = Tally(tuple(self.placed.values()), documents, frequencies)
        windows = {name: len(simulated_windows(shard)) for name, shard in walk_shards(test, simulations)}
        for part in make(score_shard, Scoring(self, test, simulations, frequencies), windows, "evaluate"):
            nats, tokens = nats + part["nats"], tokens + part["tokens"]
            places.nats, places.tokens = places.nats + part["place_nats"], places.tokens + part["place_tokens"]
        return Scores(self._table(nats.T, tokens), places.tabulate())

    def batches(self, test: Split, simulations: Simulations, name: str) -> Iterator[tuple[Batch, Sequence[csr_array]]]:
        """The simulated windows of a shard of the test split, and its strengths of each control that has its own."""
        shard = show_shard(test, simulations, name)
        strengths = simulations.strengths(name, len(shard.text.ids))
        drawn = [planned.control for planned in self.arms if planned.control is not None]
        others = [control.source.strengths(name, strengths, shard.text.counted()) for control in drawn]
        windows = simulated_windows(shard)
        for batch in read_batches(self.config, self.subject, self.splicer, shard, strengths, windows):
            yield batch, others

    def score_batch(self, batch: Batch, others: Sequence[csr_array] = ()) -> Iterator[Float[Tensor, "window position"]]:
        """Every arm's loss of each scored token, arm by arm; `others` are the strengths of the drawn controls."""
        drawn = iter(others)
        for planned, latents in zip(self.arms, self.simulated, strict=True):
            splicer, arm, written = self.splicer, planned.arm, batch.written
            if planned.control is not None:
                splicer, arm = planned.control.splicer, Arm("simulated")
                written = splicer.prepare_again(written, next(drawn)[batch.rows])
            with torch.no_grad():
                vectors = splicer.vectors(arm, written, latents)
            yield token_losses_of(self.subject, batch, vectors)

    def _table(self, nats: np.ndarray, tokens: np.ndarray) -> pa.Table:
        every = np.flatnonzero(tokens)
        own = [every if one.documents is None else np.intersect1d(every, one.documents) for one in self.arms]
        rows = [(one.arm, place) for one, places in zip(self.arms, own, strict=True) for place in places]
        documents = np.concatenate(own)
        return pa.table(
            {
                "document": pa.array(documents, pa.int32()),
                "arm": pa.array([arm.name for arm, _ in rows], pa.string()),
                "fraction": pa.array([arm.fraction for arm, _ in rows], pa.float64()),
                "order": pa.array([arm.order for arm, _ in rows], pa.string()),
                "seed": pa.array([arm.seed for arm, _ in rows], pa.int64()),
                "nats": pa.array(np.concatenate([n[d] for n, d in zip(nats, own, strict=True)]), pa.float64()),
                "tokens": pa.array(tokens[documents], pa.int64()),
            }
        )


@dataclass(frozen=True)
class Scoring:
    """What is needed to score a shard of the test split."""

    scorer: Scorer
    test: Split
    simulations: Simulations
    frequencies: Float[np.ndarray, " token"]


def score_shard(scored: Scoring, name: str) -> Arrays:
    """Sums of a shard's losses: "nats", document × arm, over so many "tokens", and those of the arms whose places are
    kept; 0 for documents of other shards."""
    scorer, documents = scored.scorer, len(scored.test.names)
    nats, tokens = np.zeros((documents, len(scorer.arms))), np.zeros(documents, dtype=np.int64)
    places = Tally(tuple(scorer.placed.values()), documents, scored.frequencies)
    for batch, others in scorer.batches(scored.test, scored.simulations, name):
        located = places.locate(batch.targets.cpu().numpy(), batch.documents)
        for number, losses in enumerate(scorer.score_batch(batch, others)):
            np.add.at(nats[:, number], batch.documents, losses.sum(1).cpu().numpy())
            if number in scorer.placed:
                places.add(scorer.placed[number], located, losses.cpu().numpy())
        np.add.at(tokens, batch.documents, batch.tokens)
    return {"nats": nats, "tokens": tokens, "place_nats": places.nats, "place_tokens": places.tokens}
