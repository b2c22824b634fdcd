"""Measures what each latent's error costs, on documents that the config draws.

1. Integrated gradients give every latent's cost at once (`rewrite.arms.attribution`), and the losses at both ends of
   the line say by how much the costs fail to add up.
2. Some latents are also measured alone, all others true, a forward pass each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rewrite.arms.attribution import Errors, alone_losses, attribute, integrate
from rewrite.arms.batches import losses_of
from rewrite.arms.drawn import Drawn

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
    """Measures costs on the documents that the config draws."""

    drawn: Drawn
    steps: int
    """Points on the line at which gradients are taken."""
    documents: int
    """Documents to draw; 0 takes all."""
    seed: int

    def attribute(self) -> Ledger:
        """Integrated gradients on every batch, and the losses at both ends."""
        drawn = self.drawn
        documents, decoder = drawn.documents(self.documents, self.seed), drawn.splicer.coder.W_dec
        latents, count = len(decoder), len(documents)
        weight = decoder.double().square().sum(1).cpu().numpy()
        nothing = np.where(drawn.simulated, 0.0, np.nan)[None].repeat(count, axis=0)
        ledger = Ledger(documents, nothing, np.zeros(count, dtype=np.int64), weight, np.zeros(latents))
        for batch in drawn.batches(documents, "cost"):
            begin, end = drawn.write(batch, "coder"), drawn.write(batch, "simulated")
            errors = Errors.of(batch.written, drawn.splicer, drawn.simulated)
            mean = integrate(drawn.subject, batch, begin, end, self.steps)
            own, owners = np.unique(batch.owners, return_inverse=True)
            ledger.nats[ledger.place(own)] += attribute(mean, errors, decoder, owners.astype(np.int64), len(own))
            ledger.squares += errors.squares()
            ledger.positions += len(errors)
            places = ledger.place(batch.documents)
            np.add.at(ledger.tokens, places, batch.tokens)
            for loss, vectors in zip(ledger.losses, (begin, end), strict=True):
                np.add.at(loss, places, losses_of(drawn.subject, batch, vectors))
        return ledger

    def measure_alone(
        self, latents: Int[np.ndarray, " checked"], ledger: Ledger
    ) -> Float[np.ndarray, "document latent"]:
        """Nats that each of these latents costs alone, by document; NaN for the others."""
        nats = np.full_like(ledger.nats, np.nan)
        nats[:, latents] = 0
        if not len(latents):
            return nats
        drawn = self.drawn
        decoder = drawn.splicer.coder.W_dec
        for batch in drawn.batches(ledger.documents, f"cost of {len(latents)} alone"):
            begin = drawn.write(batch, "coder")
            errors, places = Errors.of(batch.written, drawn.splicer, drawn.simulated), ledger.place(batch.documents)
            coder = losses_of(drawn.subject, batch, begin)
            for latent in latents:
                loss = alone_losses(drawn.subject, batch, begin, errors, decoder, int(latent))
                if loss is not None:
                    np.add.at(nats[:, latent], places, loss - coder)
        return nats
