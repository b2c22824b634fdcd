"""Measures what each latent's error costs, on documents that the config draws.

1. Integrated gradients give every latent's cost at once (`rewrite.arms.attribution`), and the losses at both ends of
   the line say by how much the costs fail to add up.
2. Some latents are also measured alone, all others true, a forward pass each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from rewrite.arms.attribution import Errors, alone_losses, attribute, integrate
from rewrite.arms.batches import Batch, losses_of, walk_batches, walk_shards
from rewrite.arms.splice import Arm, Splicer
from rewrite.coder.activations import Split
from rewrite.config import Config, UserError
from rewrite.simulators.strengths import Simulations
from rewrite.subject.subject import Subject

Row = dict[str, Any]


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
    test: Split
    simulations: Simulations
    simulated: Bool[np.ndarray, " latent"]

    def documents(self) -> Int[np.ndarray, " document"]:
        """The test documents that costs are taken on: those with a scored token, or as many of them as are wanted."""
        scored = []
        for _, shard in walk_shards(self.test, self.simulations):
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
        walked = walk_batches(self.config, self.subject, self.splicer, self.test, self.simulations, documents)
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
