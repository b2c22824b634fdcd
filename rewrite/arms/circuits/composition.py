"""How heads are joined and what they say: from weights alone, after Elhage et al. (2021, *A Mathematical Framework for
Transformer Circuits*).

1. `compose`: how much more than random maps of this width an earlier head's W_O W_V composes with what a later one
   reads by its query, key and value, M = W_Kᵀ W_Q, W_Qᵀ W_K and W_O W_V: √D ‖M W_O W_V‖_F / (‖M‖_F ‖W_O W_V‖_F), whose
   square is 1 on average where one of the two is turned at random.
2. `join`: the same for each singular component σ u vᵀ of the earlier head, of which only the direction u that it writes
   matters: the share of u that M reads, as z above a random direction (`rewrite.arms.circuits.shares`). A circuit may
   live in one component of many, which a score of whole matrices does not see (Merullo, Eickhoff & Pavlick 2024).
3. `copying`: a head's own circuit W_U W_O W_V W_E, (Σ Re λ) / (Σ |λ|) over its eigenvalues, which are those of the
   small matrix W_V W_E W_U W_O: 1 for a head that raises the token it looks at, -1 for one that lowers it.
4. `say`: the tokens at both ends of the directions that a head writes most, through the unembedding (Ferrando & Voita
   2024, arXiv 2403.00824).
5. `skip_trigrams`: where a head stands at `end` and looks back at `source`, what it says next: the pairs of source and
   next token that its own circuit W_U W_O W_V W_E raises most, each with the end from which it looks at the source
   most, by W_Eᵀ W_Qᵀ W_K W_E. It is all that a head of the first layer does, before its MLP; of later ones
   it is the part that reads embeddings.

What rotary positions turn is left out of queries and keys: all is as at the same position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rewrite.arms.circuits.channels import WAYS
from rewrite.arms.circuits.heads import all_heads
from rewrite.arms.circuits.shares import share_read, standardise, threshold
from rewrite.subject.clamping import Clamp, Head
from rewrite.subject.subject import Subject
from rewrite.subject.weights import HeadWeights, head_weights, unembedding

COMPONENTS, ENDS, TRIGRAMS = 2, 5, 5
"""Components whose tokens are listed, tokens at each end, skip-trigrams of a head."""


def known_weights(clamp: Clamp) -> dict[int, HeadWeights]:
    """The matrices of every layer whose attention is known, those before the hookpoint too."""
    counts = Counter(head.layer for head in all_heads(clamp))
    found = {layer: head_weights(clamp.subject, layer, heads) for layer, heads in counts.items()}
    return {layer: weights for layer, weights in found.items() if weights is not None}


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


def read_circuits(weights: HeadWeights) -> dict[str, Float[Tensor, "head d_head d"]]:
    """By way of reading a matrix A with ‖A x‖ = ‖M x‖ for all x, of as many rows as a head is wide."""
    beyond = {"query": weights.key, "key": weights.query, "value": weights.output.mT}
    found = {}
    for way, reads in weights.reads().items():
        other = beyond[way].double()
        roots = torch.linalg.eigh(other @ other.mT)
        half = roots.eigenvectors * roots.eigenvalues.clamp(min=0).sqrt()[:, None]
        found[way] = half.mT @ reads.double()
    return found


def compose(earlier: HeadWeights, later: HeadWeights) -> Float[np.ndarray, "earlier later way"]:
    """How much each earlier head's output is read by each later head, as a multiple of what random maps would give."""
    width = earlier.value.shape[2]
    # W_O W_V = (W_O rᵀ) qᵀ of orthonormal q: the thin factor has the same norms, and is never as large as the stream.
    writes = earlier.output.double() @ torch.linalg.qr(earlier.value.double().mT).R.mT
    norms = writes.square().sum((1, 2)).sqrt()
    scores = np.zeros((len(writes), len(later.query), len(WAYS)))
    for way, matrices in enumerate(read_circuits(later).values()):
        for number, matrix in enumerate(matrices):
            joint = (matrix @ writes).square().sum((1, 2)).sqrt()
            scores[:, number, way] = (joint / (norms * matrix.square().sum().sqrt()) * width**0.5).cpu().numpy()
    return scores


@dataclass(frozen=True)
class Joint:
    """A later head that reads a component of an earlier one."""

    earlier: Head
    component: int
    """Its number, 0 for the one written most."""
    later: Head
    way: str
    z: float
    least: float
    """z from which on one stands out among all that were compared, at 5% by chance."""
    whole: float
    """`compose` of the two heads."""


def write_components(weights: HeadWeights) -> Float[Tensor, "head component d"]:
    """Unit directions that each head writes, those of the largest singular values of W_O W_V first; 0 where none is."""
    outer, inner = torch.linalg.qr(weights.output.double())
    small = torch.linalg.svd(inner @ weights.value.double(), full_matrices=False)
    there = 1e-6 * small.S.max() < small.S
    directions: Tensor = (outer @ small.U).mT * there[..., None]
    return directions


def join(layers: Mapping[int, HeadWeights], after: int, most: int) -> list[Joint]:
    """For each head of the layers after `after` and each way of reading, the earlier component that it reads most: of
    those that stand out so many, by z, most first. `layers` holds the weights of every layer that is known."""
    written = {layer: write_components(weights) for layer, weights in layers.items()}
    later = [layer for layer in sorted(layers) if layer > after and any(other < layer for other in layers)]
    sizes = {layer: rows.shape[0] * rows.shape[1] for layer, rows in written.items()}
    tests = sum(
        len(layers[layer].query) * len(WAYS) * sum(size for other, size in sizes.items() if other < layer)
        for layer in later
    )
    found: list[tuple[float, float, Head, int, Head, int]] = []
    for layer in later:
        before = [other for other in sorted(layers) if other < layer]
        for way, matrices in enumerate(read_circuits(layers[layer]).values()):
            for head, matrix in enumerate(matrices):
                best = max((_most(matrix, written[other], other) for other in before), key=lambda one: one[0])
                z, earlier, component = best
                least = threshold(matrix, 0.05 / tests)
                if z >= least:
                    found.append((z, least, earlier, component, Head(layer, head), way))
    joints = []
    # Whole matrices are composed for those that are told alone.
    for z, least, earlier, component, reader, way in sorted(found, key=lambda one: -one[0])[:most]:
        whole = float(compose(layers[earlier.layer], layers[reader.layer])[earlier.head, reader.head, way])
        joints.append(Joint(earlier, component, reader, WAYS[way], z, least, whole))
    return joints


def _most(
    matrix: Float[Tensor, "d_head d"], written: Float[Tensor, "head component d"], layer: int
) -> tuple[float, Head, int]:
    """The component of a layer's heads that is read most: its z, whose it is, its number."""
    # A head or a component of zeros has no direction, and is read by nobody.
    z = torch.nan_to_num(standardise(matrix, share_read(matrix, written.flatten(0, 1))), nan=-torch.inf)
    best = int(z.argmax())
    return float(z[best]), Head(layer, best // written.shape[1]), best % written.shape[1]


def say(
    written: Float[Tensor, "component d"], unembed: Float[Tensor, "vocabulary d"]
) -> list[tuple[Int[np.ndarray, " end"], Int[np.ndarray, " end"]]]:
    """Token ids at the two ends of the directions that a head writes most (`write_components`), a pair a component."""
    ends = []
    for direction in written[:COMPONENTS]:
        logits = unembed @ direction.to(unembed)
        order = logits.argsort(descending=True).cpu().numpy()
        ends.append((order[:ENDS], order[::-1][:ENDS].copy()))
    return ends


@dataclass(frozen=True)
class Trigram:
    """`source` ... `end` → `next`, as token ids, and how much the head's own circuit raises `next` [sd over pairs]."""

    source: int
    end: int
    next: int
    strength: float


def skip_trigrams(
    weights: HeadWeights,
    head: int,
    embed: Float[Tensor, "vocabulary d"],
    unembed: Float[Tensor, "vocabulary d"],
    tokens: Int[np.ndarray, " token"],
) -> list[Trigram]:
    """The strongest of a head among these tokens, each source named once."""
    chosen = torch.as_tensor(tokens.astype(np.int64), device=embed.device)
    rows = embed[chosen]
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    moved = (rows @ weights.value[head].to(rows).T @ weights.output[head].to(rows).T) @ unembed[chosen].T
    moved = (moved - moved.mean()) / moved.std().clamp(min=1e-12)
    looks = (rows @ weights.query[head].to(rows).T) @ (rows @ weights.key[head].to(rows).T).T
    strength, said = moved.max(1)
    order = strength.argsort(descending=True)[:TRIGRAMS].tolist()
    ids: list[int] = chosen.tolist()
    return [
        Trigram(ids[source], ids[int(looks[:, source].argmax())], ids[int(said[source])], float(strength[source]))
        for source in order
    ]
