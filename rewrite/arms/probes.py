"""Readers that were never told an explanation: what can be known of a latent from a few tokens alone.

1. `fit_table`: E[activation | token] over the counted positions of the train split; a token that never stood there
   gets each latent's mean.
2. `fit_probe`: ridge regression (Hoerl & Kennard 1970) from the subject's embeddings of the last `REACH` tokens, the
   current one among them, to every latent's activation, cut off below 0. Nothing stands before a window: zeros.
   a. Walk the train split once and add up the normal equations in float64, one set for a fifth of the documents drawn
      by a seed, one for the others. Features are rows of one table, so of each shard it is counted which tokens stand
      together, and what fires at them.
   b. For each ridge of a small grid, in units of the features' mean variance, solve on the others and take the squared
      error on the fifth, summed over latents; both come from the sums alone.
   c. Solve once more on all documents with the ridge that erred least.

Both see the train split only, as the explainer does, and both are scored as they are: no calibrator stands between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import linalg
from scipy.sparse import csr_array
from torch import Tensor

from rewrite.coder.activations import Shard
from rewrite.text.windows import Text

REACH = 8
RIDGES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
HELD = 0.2


@runtime_checkable
class Reader(Protocol):
    """Predicts every latent from the last tokens."""

    def activations(self, context: Int[Tensor, "position reach"]) -> Float[Tensor, "position latent"]:
        """The latents' activations; `context` is `list_context`'s."""
        ...


def list_context(text: Text, rows: Int[np.ndarray, " position"]) -> Int[np.ndarray, "position reach"]:
    """The token ids of the last `REACH` positions of some positions' windows, the current one last; -1 before it."""
    begin = text.starts[np.searchsorted(text.starts, rows, side="right") - 1]
    place = rows[:, None] - np.arange(REACH)[::-1]
    context: np.ndarray = np.where(place >= begin[:, None], text.ids[np.maximum(place, 0)], -1).astype(np.int64)
    return context


@dataclass(frozen=True)
class TokenTable:
    """E[activation | token] in a row each; `seen` tells which tokens the train split has."""

    values: csr_array
    seen: Bool[np.ndarray, " token"]
    mean: Float[np.ndarray, " latent"]

    def activations(self, context: Int[Tensor, "position reach"]) -> Float[Tensor, "position latent"]:
        """See `Reader.activations`."""
        tokens = context[:, -1].cpu().numpy()
        rows = self.values[tokens].toarray()
        rows[~self.seen[tokens]] = self.mean
        return torch.as_tensor(rows, device=context.device)


def fit_table(shards: Iterable[Shard], tokens: int, latents: int) -> TokenTable:
    """Average the activations of each token's counted positions."""
    sums, count = csr_array((tokens, latents), dtype=np.float64), np.zeros(tokens)
    for shard in shards:
        rows = np.flatnonzero(shard.text.counted())
        ids = shard.text.ids[rows]
        place = csr_array((np.ones(len(ids)), (ids, np.arange(len(ids)))), shape=(tokens, len(ids)))
        sums = sums + place @ shard.activations[rows].astype(np.float64)
        count += np.bincount(ids, minlength=tokens)
    sums = csr_array(sums)
    each = np.repeat(np.maximum(count, 1), np.diff(sums.indptr))
    values = csr_array(((sums.data / each).astype(np.float32), sums.indices, sums.indptr), shape=sums.shape)
    mean = np.asarray(sums.sum(axis=0)) / max(count.sum(), 1)
    return TokenTable(values, count > 0, mean.astype(np.float32))


@dataclass(frozen=True)
class LinearProbe:
    """max(0, features · weights + bias); the features are embeddings side by side."""

    embeddings: Float[Tensor, "token d"]
    weights: Float[Tensor, "feature latent"]
    bias: Float[Tensor, " latent"]
    ridge: float
    """The ridge that was chosen, in units of the features' mean variance."""

    def activations(self, context: Int[Tensor, "position reach"]) -> Float[Tensor, "position latent"]:
        """See `Reader.activations`."""
        return (embed(context, self.embeddings) @ self.weights + self.bias).relu()

    def to(self, device: torch.device) -> LinearProbe:
        """The same probe on another device."""
        return LinearProbe(self.embeddings.to(device), self.weights.to(device), self.bias.to(device), self.ridge)


def embed(
    context: Int[Tensor, "position reach"], embeddings: Float[Tensor, "token d"]
) -> Float[Tensor, "position feature"]:
    """The tokens' embeddings side by side, zeros where there is no token."""
    return (embeddings[context.clamp(min=0)] * (context >= 0)[..., None]).flatten(1)


@dataclass
class Sums:
    """What least squares needs to know of some positions: counts, sums and products of features x and targets y."""

    n: float
    x: Float[np.ndarray, " feature"]
    y: Float[np.ndarray, " latent"]
    xx: Float[np.ndarray, "feature feature"]
    xy: Float[np.ndarray, "feature latent"]
    yy: float

    @classmethod
    def empty(cls, features: int, latents: int) -> Sums:
        """Nothing yet."""
        square, wide = np.zeros((features, features)), np.zeros((features, latents))
        return cls(0.0, np.zeros(features), np.zeros(latents), square, wide, 0.0)

    def add(
        self,
        context: Int[np.ndarray, "position reach"],
        embeddings: Float[np.ndarray, "token d"],
        y: csr_array,
    ) -> None:
        """Count some positions in: products of embeddings, weighted by how often their tokens stand together, are far
        fewer than products of the positions' features."""
        tokens, place = np.unique(context, return_inverse=True)
        rows = np.where(tokens[:, None] >= 0, embeddings[tokens], 0)
        count, (n, reach), d = len(tokens), context.shape, embeddings.shape[1]
        ends = np.arange(n + 1)
        stands = [csr_array((np.ones(n), column, ends), shape=(n, count)) for column in place.reshape(n, reach).T]
        lags = [slice(lag * d, (lag + 1) * d) for lag in range(reach)]
        self.n += n
        self.y += np.asarray(y.sum(axis=0))
        self.yy += float(np.square(y.data).sum())
        for i, (mine, own) in enumerate(zip(lags, stands, strict=True)):
            self.x[mine] += rows.T @ own.sum(axis=0)
            self.xy[mine] += ((y.T @ own) @ rows).T
            for theirs, other in zip(lags[i:], stands[i:], strict=True):
                self.xx[mine, theirs] += rows.T @ ((own.T @ other) @ rows)
                self.xx[theirs, mine] = self.xx[mine, theirs].T

    def __add__(self, other: Sums) -> Sums:
        mine, theirs = vars(self), vars(other)
        return Sums(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True)
class Line:
    """A linear map with a constant."""

    weights: Float[np.ndarray, "feature latent"]
    bias: Float[np.ndarray, " latent"]


def solve_ridge(sums: Sums, ridge: float) -> Line:
    """The least of squared error plus ridge · mean variance · n · |weights|²; the constant is not shrunk."""
    x, y = sums.x / sums.n, sums.y / sums.n
    covariance = sums.xx - sums.n * np.outer(x, x)
    size = max(float(np.trace(covariance)) / len(x), np.finfo(float).tiny)
    covariance[np.diag_indices_from(covariance)] += ridge * size
    weights = linalg.solve(covariance, sums.xy - sums.n * np.outer(x, y), assume_a="pos")
    return Line(weights, y - x @ weights)


def squared_error(line: Line, sums: Sums) -> float:
    """Σ (y − x·weights − bias)² over the positions and latents of the sums."""
    w, b = line.weights, line.bias
    quadratic = float((w * (sums.xx @ w)).sum()) + sums.n * float(b @ b) + 2 * float(sums.x @ w @ b)
    return quadratic + sums.yy - 2 * float((w * sums.xy).sum()) - 2 * float(sums.y @ b)


def fit_probe(
    shards: Iterable[Shard], embeddings: Float[Tensor, "token d"], documents: int, latents: int, seed: int = 0
) -> LinearProbe:
    """See the module's docstring; `documents` counts the train split's."""
    features = REACH * embeddings.shape[1]
    held_out = np.random.default_rng([seed, 4]).random(documents) < HELD
    others, held = Sums.empty(features, latents), Sums.empty(features, latents)
    wide = embeddings.double().cpu().numpy()
    for shard in shards:
        inside = held_out[np.repeat(shard.documents, np.diff(shard.text.starts))]
        for sums, chosen in ((others, ~inside), (held, inside)):
            rows = np.flatnonzero(shard.text.counted() & chosen)
            if len(rows):
                sums.add(list_context(shard.text, rows), wide, shard.activations[rows].astype(np.float64))
    # Without a fifth to err on all ridges are alike, and the strongest stands first.
    errors = [squared_error(solve_ridge(others, ridge), held) if others.n and held.n else 0.0 for ridge in RIDGES]
    best = RIDGES[int(np.argmin(errors))]
    line = solve_ridge(others + held, best)
    tensors = [torch.as_tensor(array, dtype=torch.float32) for array in (line.weights, line.bias)]
    return LinearProbe(embeddings.float().cpu(), tensors[0], tensors[1], best)
