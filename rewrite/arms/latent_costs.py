"""Measures what each latent's error costs, on documents that the config draws.

1. Integrated gradients give every latent's cost at once (`rewrite.arms.attribution`), and the losses at both ends of
   the line say by how much the costs fail to add up.
2. Some latents are also measured alone, all others true, a forward pass each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rewrite.arms.attribution import Errors, alone_losses, attribute, integrate
from rewrite.arms.batches import losses_of
from rewrite.arms.drawn import Drawn
from rewrite.run.parts import Arrays, Maker, one_by_one

Row = dict[str, Any]


@dataclass
class Ledger:
    """What some documents gave: costs and the losses at the line's ends [nats]."""

    documents: Int[np.ndarray, " document"]
    nats: Float[np.ndarray, "document latent"]
    """NaN for what is not simulated."""
    losses: Float[np.ndarray, "document 2"]
    tokens: Int[np.ndarray, " document"]
    positions: Int[np.ndarray, " document"]
    squares: Float[np.ndarray, " latent"]
    """Squared errors, summed over positions."""

    @classmethod
    def empty(cls, documents: Int[np.ndarray, " document"], simulated: Bool[np.ndarray, " latent"]) -> Ledger:
        """Nothing yet."""
        count, latents = len(documents), len(simulated)
        nats = np.where(simulated, 0.0, np.nan)[None].repeat(count, axis=0)
        tokens, positions = (np.zeros(count, dtype=np.int64) for _ in range(2))
        return cls(documents, nats, np.zeros((count, 2)), tokens, positions, np.zeros(latents))

    @classmethod
    def join(cls, parts: Sequence[Ledger]) -> Ledger:
        """The ledgers of one document after another, as one."""
        of_documents = ("documents", "nats", "losses", "tokens", "positions")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in of_documents}
        return cls(**joined, squares=np.sum([part.squares for part in parts], axis=0))

    def place(self, documents: np.ndarray) -> Int[np.ndarray, " n"]:
        """Where the documents stand among these."""
        found: np.ndarray = np.searchsorted(self.documents, documents)
        return found

    def sizes(self, decoder: Float[Tensor, "latent d"]) -> Float[np.ndarray, " latent"]:
        """Mean squared error times the decoder row's squared length: what each latent's error weighs."""
        weight = decoder.double().square().sum(1).cpu().numpy()
        sizes: np.ndarray = self.squares / max(self.positions.sum(), 1) * weight
        return sizes

    def describe(self, steps: int) -> Row:
        """The losses at both ends, and by how much the costs fail to add up to their difference [nats per token]."""
        tokens = int(self.tokens.sum())
        coder, simulated = (float(loss) / tokens for loss in self.losses.sum(0))
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
    """Measures costs on some of the test documents."""

    drawn: Drawn
    steps: int
    """Points on the line at which gradients are taken."""
    documents: Int[np.ndarray, " document"]

    def attribute(self, make: Maker = one_by_one) -> Ledger:
        """Integrated gradients on every batch, and the losses at both ends."""
        parts = make(attribute_shard, self, self.drawn.windows(self.documents), "cost")
        return Ledger.join([Ledger(**part) for part in parts])

    def measure_alone(
        self, latents: Int[np.ndarray, " checked"], ledger: Ledger, make: Maker = one_by_one
    ) -> Float[np.ndarray, "document latent"]:
        """Nats that each of these latents costs alone, by document; NaN for the others."""
        nats = np.full_like(ledger.nats, np.nan)
        if len(latents):
            windows = self.drawn.windows(self.documents)
            parts = make(measure_shard, Alone(self, latents), windows, f"cost of {len(latents)} alone")
            nats[:, latents] = np.concatenate([part["nats"] for part in parts])
        return nats


@dataclass(frozen=True)
class Alone:
    """What is needed to measure some latents alone."""

    meter: Meter
    latents: Int[np.ndarray, " checked"]


def attribute_shard(meter: Meter, name: str) -> Arrays:
    """A ledger's fields of the documents of one shard of the test split."""
    drawn, ledger = meter.drawn, Ledger.empty(meter.drawn.own(name, meter.documents), meter.drawn.simulated)
    decoder = drawn.splicer.coder.W_dec
    for batch in drawn.shard_batches(name, meter.documents):
        begin, end = drawn.write(batch, "coder"), drawn.write(batch, "simulated")
        errors = Errors.of(batch.written, drawn.splicer, drawn.simulated)
        mean = integrate(drawn.subject, batch, begin, end, meter.steps)
        own, owners = np.unique(batch.owners, return_inverse=True)
        ledger.nats[ledger.place(own)] += attribute(mean, errors, decoder, owners.astype(np.int64), len(own))
        ledger.squares += errors.squares()
        np.add.at(ledger.positions, ledger.place(batch.owners), 1)
        places = ledger.place(batch.documents)
        np.add.at(ledger.tokens, places, batch.tokens)
        for loss, vectors in zip(ledger.losses.T, (begin, end), strict=True):
            np.add.at(loss, places, losses_of(drawn.subject, batch, vectors))
    return vars(ledger)


def measure_shard(alone: Alone, name: str) -> Arrays:
    """The nats that each of some latents costs alone on the documents of one shard."""
    meter, drawn, decoder = alone.meter, alone.meter.drawn, alone.meter.drawn.splicer.coder.W_dec
    own = drawn.own(name, meter.documents)
    nats = np.zeros((len(own), len(alone.latents)))
    for batch in drawn.shard_batches(name, meter.documents):
        begin = drawn.write(batch, "coder")
        errors, places = Errors.of(batch.written, drawn.splicer, drawn.simulated), np.searchsorted(own, batch.documents)
        coder = losses_of(drawn.subject, batch, begin)
        for number, latent in enumerate(alone.latents):
            loss = alone_losses(drawn.subject, batch, begin, errors, decoder, int(latent))
            if loss is not None:
                np.add.at(nats[:, number], places, loss - coder)
    return {"nats": nats}
