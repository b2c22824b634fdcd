"""Who reads what a latent writes: from weights alone, before any text is read.

A head of a later block reads the stream by its query, key and value matrices. Of a latent's decoder row d, of width D,
a matrix W reads the share

    r = ‖W d‖² / (‖W‖_F² ‖d‖²)

which for a direction drawn at random has mean 1 / D and, with M = Wᵀ W, variance
2 (tr M² / (tr M)² − 1 / D) / (D (D + 2)), the second moment of a quadratic form on the sphere. `z` = (r − mean) / sd
says how much more than by chance a latent is read; a random rotation of W has the same moments, so nothing is drawn.
Composition scores of Elhage et al. (2021, *A Mathematical Framework for Transformer Circuits*) are the same share for a
whole matrix in the place of d, and `Channels.coder` is that of the decoder with each latent weighed by its energy: the
share that is read of all that the coder writes. With C the weighed sum of d dᵀ / ‖d‖², of trace 1, its variance is
smaller by (tr C² − 1 / D) / (1 − 1 / D). Communication channels are Merullo, Eickhoff & Pavlick's (2024,
*Talking Heads*).

`copying` is Elhage et al.'s score of a head's own circuit W_U W_O W_V W_E, (Σ Re λ) / (Σ |λ|) over its eigenvalues,
which are those of the small matrix W_V W_E W_U W_O: 1 for a head that raises the token it looks at, -1 for one that
lowers it. `compose` says how much more than random maps of this width an earlier head's W_O W_V composes with a later
one's query, key and value: √D ‖A B‖_F / (‖A‖_F ‖B‖_F), which is 1 for random ones.

`close_channels` loses a channel: the directions that a head reads most, the first right singular vectors of its matrix,
are projected out of what `coder` writes, and beside them random directions, as many. The channel is chosen because much
of what the coder writes lies there, so how much of the vectors each removes is stated beside what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from rewrite.arms.batches import losses_of
from rewrite.arms.drawn import Drawn
from rewrite.subject.clamping import Clamp, Head
from rewrite.subject.subject import Subject
from rewrite.subject.weights import HeadWeights, head_weights, unembedding

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


def read_channels(
    clamp: Clamp, decoder: Float[Tensor, "latent d"], energy: Float[np.ndarray, " latent"]
) -> Channels | None:
    """Who reads each latent; `energy` is each latent's mean square. None where no head's weights are known."""
    blocks = [
        (block.layer, head_weights(clamp.subject, block.layer, block.heads)) for block in clamp.later if block.heads
    ]
    known = [(layer, weights) for layer, weights in blocks if weights is not None]
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
    number, way = np.unravel_index(np.nanargmax(channels.coder), channels.coder.shape)
    head = channels.heads[number]
    matrix = channels.matrices[number][way]
    directions = torch.linalg.svd(matrix.double(), full_matrices=False).Vh
    rng = torch.Generator().manual_seed(seed)
    shape = (DRAWS, matrix.shape[1], max(RANKS))
    random = torch.linalg.qr(torch.randn(shape, generator=rng, dtype=torch.float64)).Q.mT.to(matrix.device)
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
    return Closed(head, WAYS[way], tokens, coder, own, others, removed / max(squares, 1e-30))


def close(vectors: Float[Tensor, "counted d"], basis: Float[Tensor, "rank d"]) -> Float[Tensor, "counted d"]:
    """Vectors without their part along the rows of an orthonormal basis."""
    basis = basis.to(vectors)
    return vectors - vectors @ basis.T @ basis


def share_read(matrix: Float[Tensor, "d_head d"], rows: Float[Tensor, "row d"]) -> Float[Tensor, " row"]:
    """‖W d‖² / (‖W‖_F² ‖d‖²) of each row d."""
    return (rows @ matrix.T).square().sum(1) / (matrix.square().sum() * rows.square().sum(1))


def standardise(matrix: Float[Tensor, "d_head d"], shares: Tensor) -> Tensor:
    """Shares as deviations from a random direction's mean, in its standard deviations."""
    width = matrix.shape[1]
    small = matrix @ matrix.T
    spread = 2 * (small.square().sum() / small.trace() ** 2 - 1 / width) / (width * (width + 2))
    return (shares - 1 / width) / spread.sqrt()


def threshold(matrix: Float[Tensor, "d_head d"], chance: float) -> float:
    """The z that a random direction exceeds with this chance: of a gamma with the share's mean and variance, which is
    skewed as the share is; where singular values are uneven the chance is up to twice as large."""
    mean = 1 / matrix.shape[1]
    sd = mean / float(standardise(matrix, matrix.new_tensor(2 * mean)))
    shape = (mean / sd) ** 2
    return float((stats.gamma.isf(chance, shape, scale=mean / shape) - mean) / sd)


def whole_circuit(subject: Subject) -> Float[Tensor, "d d"]:
    """W_E W_U, through which a head's own circuit leads back to itself; one for all heads."""
    model: Any = subject.model
    embedding: Tensor = model.get_input_embeddings().weight.detach().float()
    return embedding.T @ unembedding(subject).to(embedding)


def copying(weights: HeadWeights, through: Float[Tensor, "d d"]) -> Float[np.ndarray, " head"]:
    """Each head's copying score, -1 to 1; `through` is `whole_circuit`."""
    scores = []
    for value, output in zip(weights.value, weights.output, strict=True):
        roots = torch.linalg.eigvals((value @ through @ output).double())
        scores.append(float(roots.real.sum() / roots.abs().sum()))
    return np.asarray(scores)


def compose(earlier: HeadWeights, later: HeadWeights) -> Float[np.ndarray, "earlier later way"]:
    """How much each earlier head's output is read by each later head, as a multiple of what random maps would give."""
    width = earlier.value.shape[2]
    writes = earlier.output @ earlier.value
    norms = writes.square().sum((1, 2)).sqrt()
    scores = np.zeros((len(writes), len(later.query), len(WAYS)))
    for way, matrices in enumerate(later.reads().values()):
        for number, matrix in enumerate(matrices):
            joint = (matrix @ writes).square().sum((1, 2)).sqrt()
            scores[:, number, way] = (joint / (norms * matrix.square().sum().sqrt()) * width**0.5).cpu().numpy()
    return scores
