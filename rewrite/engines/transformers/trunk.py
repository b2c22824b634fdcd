"""Prompts with slots → digits' probabilities, each shared beginning computed once.

1. `plan_batches` cuts a sorted list of prompts into batches such that the fewest tokens go through the model.
2. The trunk is the cache of keys and values of one token prefix. For each batch it is cut back to where it agrees with
   the batch and extended, as a single row, to what all of the batch's rows have in common.
3. The trunk is lent to the batch, repeated for every row without copying; each row's remainder goes through the model.
   Remainders are padded on the right: in a causal model no token sees what stands after it, so padding needs no mask.
4. Only the slots' positions reach the output embeddings (a hook gathers them on the way in, so that the model's own
   scaling or capping of logits still applies). The normaliser is taken over the whole vocabulary in float32, and only
   the ten digits' probabilities are kept.

A cache of full attention can be cut back anywhere. One of sliding windows is kept whole here: the model's own mask
hides what is outside the window. Models with other caches (recurrent states, chunks) compute every prompt whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rewrite.engines.base import Reading, Spent

FORWARD = 64
"""What a forward pass costs beside its tokens, in tokens: what batches are weighed by."""


def can_cut_back(config: Any) -> bool:
    """Whether the caches of a model with this config are keys and values a token, which can be cut back to a prefix."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if "chunked_attention" in (getattr(config.get_text_config(), "layer_types", None) or ()):
        return False
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


@dataclass(frozen=True)
class Row:
    """A prompt to be read: slot i is predicted by token `ends[i] - 1`."""

    number: int
    ids: Int[np.ndarray, " token"]
    ends: Int[np.ndarray, " slot"]
    open: int
    """How many of its first tokens a trunk may stand for: those before the first slot's own."""


@dataclass(frozen=True)
class Batch:
    """Rows `begin` to `end`, whose first `shared` tokens go through the model once."""

    begin: int
    end: int
    shared: int


@dataclass(frozen=True)
class _Plan:
    """The cheapest way found to read the first rows: its last batch, and the trunk's length after it [tokens]."""

    cost: int
    batch: Batch
    trunk: int


def common(a: Int[np.ndarray, " a"], b: Int[np.ndarray, " b"]) -> int:
    """The number of tokens with which both begin."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


def plan_batches(rows: Sequence[Row], most: int, trunk: Int[np.ndarray, " token"]) -> list[Batch]:
    """Cut rows into batches of at most `most`, weighing tokens, padding and forward passes, row by row.

    The best plan for the first n rows is the best for the first m of them and a batch of the others.
    """
    met = [common(a, b) for a, b in pairwise([trunk, *(row.ids for row in rows)])]
    best = [_Plan(0, Batch(0, 0, 0), len(trunk))]
    for end in range(1, len(rows) + 1):
        shared, longest, plans = rows[end - 1].open, 0, []
        for begin in range(end - 1, max(end - most, 0) - 1, -1):
            before = best[begin]
            longest = max(longest, len(rows[begin].ids))
            shared = min(shared, rows[begin].open, met[begin + 1] if begin + 1 < end else shared)
            kept = min(before.trunk, met[begin], shared)
            if begin + 1 == end:
                cost, batch, after = longest - kept, Batch(begin, end, kept), longest
            else:
                extension = shared - kept + FORWARD * (shared > kept)
                cost, batch, after = extension + (end - begin) * (longest - shared), Batch(begin, end, shared), shared
            plans.append(_Plan(before.cost + cost + FORWARD, batch, after))
        best.append(min(plans, key=lambda plan: plan.cost))
    batches = []
    while (batch := best[-1].batch).end:
        batches.append(batch)
        del best[batch.begin + 1 :]
    return batches[::-1]


class Reader:
    """A model and its trunk. `reuse` says that its caches can be cut back."""

    def __init__(self, model: Any, digits: Int[np.ndarray, " 10"], reuse: bool) -> None:
        import torch
        from transformers.cache_utils import DynamicCache

        self.model, self.reuse = model, reuse
        self.layers = len(DynamicCache(config=model.config).layers) if reuse else 0
        self.digits = torch.from_numpy(digits).to(model.device)
        self.forget()

    def forget(self) -> None:
        """Drop the trunk, so that the next prompt is computed whole."""
        self.ids: Int[np.ndarray, " token"] = np.zeros(0, dtype=np.int64)
        self.states: list[tuple[Any, Any]] = []

    def read(self, rows: Sequence[Row], shared: int) -> list[Reading]:
        """The digits' probabilities of a batch whose rows have their first `shared` tokens in common."""
        import torch

        with torch.inference_mode():
            kept = min(common(self.ids, rows[0].ids), shared)
            extended = len(rows) > 1 and shared > kept
            if extended:
                cache = self._lend(kept, 1)
                self.model.base_model(self._tensor(rows[0].ids[None, kept:shared]), past_key_values=cache)
                self._keep(cache, rows[0].ids[:shared])
            digits = self._forward(rows, shared)
        ends = np.cumsum([len(row.ends) for row in rows])[:-1]
        readings = []
        for row, found in zip(rows, np.split(digits, ends), strict=True):
            processed = len(row.ids) - shared + (shared - kept) * (extended and row is rows[0])
            readings.append(Reading(found, Spent(1, len(row.ids), 0, processed)))
        return readings

    def _forward(self, rows: Sequence[Row], start: int) -> Float[np.ndarray, "slot 10"]:
        """The digits at the slots of all rows, one after another; what stands before `start` is in the trunk."""
        ids = np.zeros((len(rows), max(len(row.ids) for row in rows) - start), dtype=np.int64)
        for line, row in zip(ids, rows, strict=True):
            line[: len(row.ids) - start] = row.ids[start:]
        which = self._tensor(np.repeat(np.arange(len(rows)), [len(row.ends) for row in rows]))
        where = self._tensor(np.concatenate([row.ends for row in rows]) - 1 - start)
        cache = self._lend(start, len(rows)) if self.reuse else None
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][which, where][None], *inputs[1:]))
        try:
            logits = self.model(self._tensor(ids), past_key_values=cache, use_cache=self.reuse).logits[0].float()
        finally:
            hook.remove()
        if self.reuse and len(rows) == 1:
            self._keep(cache, rows[0].ids)
        found: Float[np.ndarray, "slot 10"] = (
            (logits[:, self.digits] - logits.logsumexp(-1, keepdim=True)).exp().cpu().numpy()
        )
        return found

    def _lend(self, length: int, rows: int) -> Any:
        """A cache that begins with the trunk's first tokens, for some rows. It grows beside the trunk, never in it."""
        from transformers import cache_utils

        library: Any = cache_utils
        layers = [library.DynamicLayer() for _ in range(self.layers)]
        if length:
            for layer, (keys, values) in zip(layers, self.states, strict=True):
                layer.lazy_initialization(keys, values)
                layer.keys = keys[:, :, :length].expand(rows, -1, -1, -1)
                layer.values = values[:, :, :length].expand(rows, -1, -1, -1)
        return library.Cache(layers=layers)

    def _keep(self, cache: Any, ids: Int[np.ndarray, " token"]) -> None:
        """Make the trunk what a single row went through."""
        self.ids, self.states = ids, [(layer.keys, layer.values) for layer in cache.layers]

    def _tensor(self, array: Int[np.ndarray, "*shape"]) -> Any:
        import torch

        return torch.from_numpy(array).to(self.model.device)
