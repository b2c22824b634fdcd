"""Who reads what a latent writes: from weights alone, before any text is read.

A head of a later block reads the stream by its query, key and value matrices. Of a latent's decoder row each reads a
share (`rewrite.arms.circuits.shares`), whose z = (share − mean) / sd says how much more than a random direction a
latent is read; a random rotation of the matrix has the same moments, so nothing is drawn. `Channels.coder` is that of
the decoder with each latent weighed by its energy: the share that is read of all that the coder writes. With C the
weighed sum of d dᵀ / ‖d‖², of trace 1, its variance is smaller by (tr C² − 1 / D) / (1 − 1 / D). Communication channels
are Merullo, Eickhoff & Pavlick's (2024, *Talking Heads*).

`close_channels` loses a channel: the directions that a head reads most, the first right singular vectors of its matrix,
are projected out of what `coder` writes, and beside them random directions, as many. The channel is chosen because much
of what the coder writes lies there, so how much of the vectors each removes is stated beside what it costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rewrite.arms.batches import losses_of
from rewrite.arms.circuits.shares import share_read, standardise, threshold
from rewrite.arms.drawn import Drawn
from rewrite.subject.clamping import Head
from rewrite.subject.weights import HeadWeights

WAYS = ("query", "key", "value")
RANKS, DRAWS = (1, 2, 4, 8), 9
"""Ranks of the channels that are closed, and random channels of each."""


@dataclass(frozen=True)
class Channels:
    """By head of the blocks after the hookpoint, and by way of reading (`WAYS`)."""

    heads: tuple[Head, ...]
    latents: Float[np.ndarray, "head way latent"]
    """z of each latent's decoder row; NaN for a row of length 0."""
    coder: Float[np.ndarray, "head way"]
    """z of what the coder writes."""
    least: Float[np.ndarray, "head way"]
    """z from which on a single latent stands out among all heads and ways, at 5% by chance (`threshold`)."""
    matrices: tuple[Float[Tensor, "way d_head d"], ...]
    """By head, what reads."""

    @property
    def most(self) -> tuple[Head, str, Float[Tensor, "rank d"]]:
        """The head and way that read most of what the coder writes, and the directions that are read, most first."""
        number, way = np.unravel_index(np.nanargmax(self.coder), self.coder.shape)
        directions = torch.linalg.svd(self.matrices[number][way].double(), full_matrices=False).Vh
        return self.heads[number], WAYS[way], directions


def read_channels(
    layers: Mapping[int, HeadWeights], decoder: Float[Tensor, "latent d"], energy: Float[np.ndarray, " latent"]
) -> Channels | None:
    """Who reads each latent, by the weights of the layers after the hookpoint; `energy` is each latent's mean square.
    None where no head's weights are known."""
    known = sorted(layers.items())
    if not known:
        return None
    heads = tuple(Head(layer, head) for layer, weights in known for head in range(len(weights.query)))
    rows = decoder.double()
    lengths = rows.square().sum(1)
    there = lengths > 0
    weight = torch.as_tensor(energy, device=rows.device) * lengths
    weight = (weight / weight.sum())[there]
    unit = rows[there] / lengths[there, None].sqrt()
    width = rows.shape[1]
    spread = float((unit.T @ (unit * weight[:, None])).square().sum())
    narrower = ((1 - 1 / width) / max(spread - 1 / width, 1e-12)) ** 0.5
    latents, coder, least, matrices = [], [], [], list[Tensor]()
    tests = len(heads) * len(WAYS)
    for _, weights in known:
        ways = torch.stack([part.to(rows) for part in weights.reads().values()], 1)
        for head in ways:
            shares = [share_read(matrix, rows) for matrix in head]
            pairs = list(zip(head, shares, strict=True))
            latents.append(torch.stack([standardise(matrix, share) for matrix, share in pairs]).cpu().numpy())
            coder.append([narrower * float(standardise(m, share[there] @ weight)) for m, share in pairs])
            least.append([threshold(matrix, 0.05 / tests) for matrix in head])
            matrices.append(head)
    return Channels(heads, np.stack(latents), np.asarray(coder), np.asarray(least), tuple(matrices))


@dataclass(frozen=True)
class Closed:
    """Sums of nats by document where a channel is projected out of what `coder` writes."""

    head: Head
    way: str
    tokens: Int[np.ndarray, " document"]
    coder: Float[np.ndarray, " document"]
    own: Float[np.ndarray, "rank document"]
    random: Float[np.ndarray, "rank draw document"]
    removed: Float[np.ndarray, "rank channel"]
    """Of the vectors' squared length, by its own channel and by random ones on average."""


def close_channels(drawn: Drawn, channels: Channels, documents: Int[np.ndarray, " document"], seed: int) -> Closed:
    """Close the channel of the head and way that read most of what the coder writes, on some test documents."""
    head, way, directions = channels.most
    rng = torch.Generator().manual_seed(seed)
    # A head that is narrow has fewer directions than are asked for, and so have the random channels beside its own.
    shape = (DRAWS, directions.shape[1], min(max(RANKS), len(directions)))
    random = torch.linalg.qr(torch.randn(shape, generator=rng, dtype=torch.float64)).Q.mT.to(directions.device)
    count = len(documents)
    tokens, coder = np.zeros(count, dtype=np.int64), np.zeros(count)
    own, others = np.zeros((len(RANKS), count)), np.zeros((len(RANKS), DRAWS, count))
    squares, removed = 0.0, np.zeros((len(RANKS), 2))
    for batch in drawn.batches(documents, "diagnose channels"):
        places = np.searchsorted(documents, batch.documents)
        vectors = drawn.write(batch, "coder")
        squares += float(vectors.double().square().sum())
        np.add.at(tokens, places, batch.tokens)
        np.add.at(coder, places, losses_of(drawn.subject, batch, vectors))
        for row, rank in enumerate(RANKS):
            for which, basis in enumerate([directions, *random]):
                without = close(vectors, basis[:rank])
                nats = losses_of(drawn.subject, batch, without)
                np.add.at(others[row, which - 1] if which else own[row], places, nats)
                lost = float((vectors - without).double().square().sum())
                removed[row, min(which, 1)] += lost / (DRAWS if which else 1)
    return Closed(head, way, tokens, coder, own, others, removed / max(squares, 1e-30))


def close(vectors: Float[Tensor, "counted d"], basis: Float[Tensor, "rank d"]) -> Float[Tensor, "counted d"]:
    """Vectors without their part along the rows of an orthonormal basis."""
    basis = basis.to(vectors)
    return vectors - vectors @ basis.T @ basis
