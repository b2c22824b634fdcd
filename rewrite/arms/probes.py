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
   What b and c need of features and latents together is added up for `PRODUCTS` of them at a time, in passes over the
   train split; where one is not enough, what c needs is kept in float32.

Both see the train split only, as the explainer does, and both are scored as they are: no calibrator stands between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from rewrite.arms.least_squares import Inputs, Pulled, Sums, Targets, squared_error
from rewrite.coder.activations import Shard
from rewrite.run.forking import count_processes, deal, in_order
from rewrite.text.windows import Text

REACH = 8
RIDGES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
HELD = 0.2
PRODUCTS = 1 << 24
"""Products of a feature and a latent that are added up at once, 8 bytes each, twice [products]."""


@runtime_checkable
class Reader(Protocol):
    """Predicts every latent from the last tokens."""

    def activations(self, context: Int[Tensor, "position reach"]) -> Float[Tensor, "position latent"]:
        """The latents' activations; `context` is `list_context`'s."""


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


@dataclass(frozen=True)
class Seen:
    """The features of some positions, as embeddings of the distinct tokens and where each stands: products of
    embeddings, weighted by how often their tokens stand together, are far fewer than products of features."""

    rows: Float[np.ndarray, "distinct d"]
    stands: Sequence[csr_array]
    """Positions × distinct tokens, of each of the last `REACH`."""

    @classmethod
    def of(cls, context: Int[np.ndarray, "position reach"], embeddings: Float[np.ndarray, "token d"]) -> Seen:
        """What `list_context` says of some positions."""
        tokens, place = np.unique(context, return_inverse=True)
        shape, ends = (len(context), len(tokens)), np.arange(len(context) + 1)
        stands = [csr_array((np.ones(shape[0]), own, ends), shape=shape) for own in place.reshape(context.shape).T]
        return cls(np.where(tokens[:, None] >= 0, embeddings[tokens], 0), stands)


@dataclass
class Strip:
    """What one of the last tokens adds to the sums of some positions: its features, by those of it and of the tokens
    after it, and by the latents."""

    n: float
    x: Float[np.ndarray, " d"]
    xx: Float[np.ndarray, "d later"]
    y: Float[np.ndarray, " latent"]
    yy: float
    xy: Float[np.ndarray, "d latent"]

    @classmethod
    def empty(cls, d: int, later: int, latents: int) -> Strip:
        """Nothing yet."""
        return cls(0.0, np.zeros(d), np.zeros((d, later)), np.zeros(latents), 0.0, np.zeros((d, latents)))

    def add(self, seen: Seen, lag: int, y: csr_array) -> None:
        """Count some positions in; no products of features where there is no room for them."""
        rows, own = seen.rows, seen.stands[lag]
        d = rows.shape[1]
        self.n += own.shape[0]
        self.x += rows.T @ own.sum(axis=0)
        for place, begin in enumerate(range(0, self.xx.shape[1], d)):
            self.xx[:, begin : begin + d] += rows.T @ ((own.T @ seen.stands[lag + place]) @ rows)
        self.y += np.asarray(y.sum(axis=0))
        self.yy += float(np.square(y.data).sum())
        self.xy += ((y.T @ own) @ rows).T


@dataclass(frozen=True)
class Walk:
    """The train split's positions, those of the documents that are held out and the others."""

    shards: Callable[[], Iterable[Shard]]
    embeddings: Float[np.ndarray, "token d"]
    held_out: Bool[np.ndarray, " document"]

    def fill(self, inputs: Sequence[Inputs], targets: Sequence[Targets], latents: slice) -> None:
        """Fill the sums of the others, then of those held out; inputs where there are any to fill.

        As many processes as there are cores share the last tokens among them, so that whose sum a number is does not
        depend on how many they are.
        """
        d, processes = self.embeddings.shape[1], count_processes()
        order = deal({lag: REACH - lag for lag in range(REACH)}, processes)
        shares = [order[number::processes] for number in range(min(processes, REACH))]

        def walk(lags: list[int]) -> list[tuple[int, list[Strip]]]:
            return self.walk(lags, latents, bool(inputs))

        for lag, strips in chain.from_iterable(in_order(walk, shares, processes)):
            mine, later = slice(lag * d, (lag + 1) * d), slice(lag * d, None)
            for number, (strip, target) in enumerate(zip(strips, targets, strict=True)):
                target.y, target.yy, target.xy[mine] = strip.y, strip.yy, strip.xy
                for own in inputs[number : number + 1]:
                    own.n, own.x[mine] = strip.n, strip.x
                    own.xx[mine, later] = strip.xx
                    own.xx[later, mine] = strip.xx.T

    def walk(self, lags: Sequence[int], latents: slice, fresh: bool) -> list[tuple[int, list[Strip]]]:
        """What some of the last tokens add, to the sums of the others and of those held out."""
        d, width = self.embeddings.shape[1], latents.stop - latents.start
        found = [(lag, [Strip.empty(d, (REACH - lag) * d * fresh, width) for _ in range(2)]) for lag in lags]
        for shard in self.shards():
            inside = self.held_out[shard.owners]
            for number, chosen in enumerate((~inside, inside)):
                rows = np.flatnonzero(shard.text.counted() & chosen)
                if len(rows):
                    seen = Seen.of(list_context(shard.text, rows), self.embeddings)
                    y = shard.activations[rows][:, latents].astype(np.float64)
                    for lag, strips in found:
                        strips[number].add(seen, lag, y)
        return found


def fit_probe(
    shards: Callable[[], Iterable[Shard]],
    embeddings: Float[Tensor, "token d"],
    documents: int,
    latents: int,
    seed: int = 0,
) -> LinearProbe:
    """See the module's docstring; `shards` walks the train split from its start, of `documents`."""
    features = REACH * embeddings.shape[1]
    held_out = np.random.default_rng([seed, 4]).random(documents) < HELD
    walk = Walk(shards, embeddings.double().cpu().numpy(), held_out)
    inputs = (Inputs.empty(features), Inputs.empty(features))
    width = max(1, PRODUCTS // features)
    blocks = [slice(begin, min(begin + width, latents)) for begin in range(0, latents, width)]
    errors, pulled = np.zeros(len(RIDGES)), list[Pulled]()
    for block in blocks:
        targets = [Targets.empty(features, block.stop - block.start) for _ in inputs]
        walk.fill(() if pulled else inputs, targets, block)
        others, held = map(Sums, inputs, targets)
        # Without a fifth to err on all ridges are alike, and the strongest stands first.
        if others.inputs.n and held.inputs.n:
            own = Pulled.of(others)
            errors += [squared_error(own.solve(others.inputs, ridge), held) for ridge in RIDGES]
        pulled.append(Pulled.of(others + held, np.float32 if len(blocks) > 1 else np.float64))
        del targets, others, held  # Never the sums of two blocks at once.
    best, both = RIDGES[int(np.argmin(errors))], inputs[0] + inputs[1]
    weights, bias = torch.empty(features, latents), torch.empty(latents)
    for block in blocks:
        line = pulled.pop(0).solve(both, best)
        weights[:, block], bias[block] = (torch.from_numpy(own.astype(np.float32)) for own in (line.weights, line.bias))
    return LinearProbe(embeddings.float().cpu(), weights, bias, best)
