"""Which arms a run scores, and what each reads: the simulator's strengths, or those of a control.

An arm is added where what it writes is made, and is named there: vectors in `rewrite.arms.splice` (`FIXED_ARMS`),
activations and strengths in `rewrite.arms.controls` (`MIXTURES`, `DRAWN`), readers of the tokens in
`rewrite.arms.probes` (`READERS`, here). `rewrite.config.Control` lets a run choose it.

1. Fixed arms and mixtures stand once; the mixtures and readers put something in the place of every rewritten latent.
2. `simulated` stands once for each fraction and order of latents.
3. `shuffled` and `random` stand once for each seed, `unread` once. Their strengths are not the simulator's and are
   calibrated anew on the calibrate split (`Control`), for what one is worth differs from explanation to explanation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rewrite.arms.batches import Fitted, fit, splice
from rewrite.arms.calibrate import Tally
from rewrite.arms.controls import DRAWN, MIXTURES, NEEDED, Random, Shuffled, Source, Unread, derange
from rewrite.arms.probes import LinearProbe, Reader, fit_probe, fit_table
from rewrite.arms.splice import FIXED_ARMS, Arm, Splicer
from rewrite.coder.activations import Shard, Split
from rewrite.coder.coder import Coder
from rewrite.config import Config, UserError
from rewrite.run.forking import count_processes, in_order
from rewrite.simulators.strengths import Simulations
from rewrite.subject.subject import Subject

READERS = ("token_table", "linear_probe")


@dataclass(frozen=True)
class Control:
    """A control's own strengths, and the splicer that writes them by their own calibration."""

    source: Source
    splicer: Splicer


@dataclass(frozen=True)
class PlannedArm:
    """An arm, the latents that it simulates, and whose strengths it reads where not the simulator's."""

    arm: Arm
    simulated: Bool[np.ndarray, " latent"] | None = None
    control: Control | None = None
    documents: Int[np.ndarray, " own"] | None = None
    """The test documents that it is scored on; None is all."""


def plan_arms(config: Config, coder: Coder, best: np.ndarray, left_out: np.ndarray) -> list[PlannedArm]:
    """Every arm but the drawn controls. At fraction 1 the orders agree, so it stands once, under `best`."""
    chosen = config.evaluate.controls
    names = ["simulated"]
    if config.evaluate.topk:
        if not coder.k:
            raise UserError("evaluate.topk = true: this coder has no k to keep; set it to false")
        names.append("simulated_topk")
    arms = [PlannedArm(Arm(name)) for name in FIXED_ARMS if name in (*NEEDED, *chosen)]
    every = np.isin(np.arange(coder.latents), best) & ~left_out
    arms += [PlannedArm(Arm(name), every) for name in (*MIXTURES, *READERS) if name in chosen]
    kept = best[~left_out[best]]
    orders = [("best", 0, kept)]
    for seed in range(config.evaluate.random_seeds):
        orders.append(("random", seed, np.random.default_rng([seed, 1]).permutation(np.sort(kept))))
    for order, seed, latents in orders:
        for fraction in sorted(set(config.evaluate.fractions)):
            if fraction == 1 and order != "best":
                continue
            count = max(round(fraction * len(latents)), int(fraction > 0))
            simulated = np.zeros(coder.latents, dtype=bool)
            simulated[latents[:count]] = True
            arms += [PlannedArm(Arm(name, fraction, order, seed), simulated) for name in names]
    return arms


def plan_draws(
    config: Config, known: Bool[np.ndarray, " latent"], simulated: Bool[np.ndarray, " latent"], read: Controls
) -> list[PlannedArm]:
    """The controls with strengths of their own: those that are drawn, one arm a seed, and `unread` where a reader was
    tuned. With fewer than two latents to shuffle there is no `shuffled`."""
    drawn: list[tuple[Arm, Source]] = []
    if "unread" in config.evaluate.controls and read.simulations.unread(read.split.shards[0]) is not None:
        drawn.append((Arm("unread"), Unread(read.simulations, known)))
    for name in DRAWN:
        if name not in config.evaluate.controls or (name == "shuffled" and known.sum() < 2):
            continue
        for seed in range(config.evaluate.control_seeds):
            source = Shuffled(derange(known, seed)) if name == "shuffled" else Random(read.fitted, seed)
            drawn.append((Arm(name, 1.0, "", seed), source))
    controls = read.calibrate([source for _, source in drawn])
    return [PlannedArm(arm, simulated, control) for (arm, _), control in zip(drawn, controls, strict=True)]


@dataclass(frozen=True)
class Controls:
    """Calibrates a control's strengths as the simulator's were: the same split, latents and kind of calibrator."""

    config: Config
    split: Split
    """The calibrate split."""
    simulations: Simulations
    coder: Coder
    fitted: Tally
    """The simulator's own tally."""
    absent: Bool[np.ndarray, " latent"]

    def calibrate(self, sources: Sequence[Source]) -> Iterator[Control]:
        """Fit a calibrator to the strengths of each control on the calibrate split, by as many processes as there are
        cores."""

        def fit_one(source: Source) -> Fitted:
            return fit(self.config, self.split, self.simulations, source)

        for source, fitted in zip(sources, in_order(fit_one, sources, count_processes()), strict=True):
            yield Control(source, splice(self.config, fitted, self.simulations, self.coder, self.absent))


def fit_readers(config: Config, subject: Subject, train: Split, device: torch.device) -> dict[str, Reader]:
    """The readers that the config asks for, fitted on the train split."""
    readers: dict[str, Reader] = {}
    embedding: Any = subject.model.get_input_embeddings()
    embeddings: Tensor = embedding.weight.detach()
    if "token_table" in config.evaluate.controls:
        readers["token_table"] = fit_table((shard for _, shard in train.walk()), len(embeddings), train.latents)
    if "linear_probe" in config.evaluate.controls:

        def shards() -> Iterator[Shard]:
            return (shard for _, shard in train.walk())

        probe: LinearProbe = fit_probe(shards, embeddings, len(train.names), train.latents)
        readers["linear_probe"] = probe.to(device)
    return readers
