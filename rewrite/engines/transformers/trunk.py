"""Trunks with branches → digits' probabilities, each shared beginning computed once.

1. `plan_batches` cuts a sorted list of prompts into batches such that the fewest tokens go through the model.
2. What is kept is the cache of keys and values of one token prefix. For each batch it is cut back to where it agrees
   with the batch and extended, as a single row, to what all of the batch's rows have in common.
3. It is lent to the batch, repeated for every row without copying; each row's remainder goes through the model: first
   the rest of its trunk, then all of its branches side by side. A mask of four dimensions shows each branch the trunk
   up to where it stands and itself, and position ids put it there, so one pass reads what separate prompts would
   (`lay_out`). Without a branch the trunk's own tokens are read, and a causal model needs no mask.
4. Only the ends of branches reach the output embeddings (a hook gathers them on the way in, so that the model's own
   scaling or capping of logits still applies). The normaliser is taken over the whole vocabulary in float32, and only
   the ten digits' probabilities are kept.

A cache of full attention can be cut back anywhere. One of sliding windows is kept whole here: the model's own mask
hides what is outside the window, which is why such a model takes no mask of ours and gets separate prompts
(`can_branch`), as do models without position ids (ALiBi). Models with other caches (recurrent states, chunks) compute
every prompt whole.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from rewrite.engines.base import Reading
from rewrite.engines.ledger import Spent

FORWARD = 64
"""What a forward pass costs beside its tokens, in tokens: what batches are weighed by."""


def can_cut_back(config: Any) -> bool:
    """Whether the caches of a model with this config are keys and values a token, which can be cut back to a prefix."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if "chunked_attention" in (getattr(config.get_text_config(), "layer_types", None) or ()):
        return False
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def can_branch(config: Any) -> bool:
    """Whether a model with this config reads many branches in one pass: full attention in every layer, position ids."""
    from transformers.cache_utils import DynamicCache, DynamicLayer
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    if not can_cut_back(config) or any(type(layer) is not DynamicLayer for layer in DynamicCache(config=config).layers):
        return False
    known: Any = MODEL_MAPPING
    return type(config) in known and "position_ids" in inspect.signature(known[type(config)].forward).parameters


@dataclass(frozen=True)
class Row:
    """A trunk to be read, branch i after its first `ends[i]` tokens; an empty branch is the trunk's own token there."""

    number: int
    ids: Int[np.ndarray, " token"]
    ends: Int[np.ndarray, " branch"]
    branch: Int[np.ndarray, " token_of_branch"]

    @property
    def open(self) -> int:
        """How many of its first tokens may be kept from earlier: at least one must go through the model."""
        return int(self.ends[0]) - (not len(self.branch))

    @property
    def length(self) -> int:
        """Tokens that go through the model where none is kept from earlier."""
        return len(self.ids) + len(self.ends) * len(self.branch)


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


def plan_batches(rows: Sequence[Row], most: int, trunk: Int[np.ndarray, " token"], reuse: bool = True) -> list[Batch]:
    """Cut rows into batches of at most `most`, weighing tokens, padding and forward passes, row by row.

    The best plan for the first n rows is the best for the first m of them and a batch of the others.
    """
    met = [common(a, b) for a, b in pairwise([trunk, *(row.ids for row in rows)])]
    best = [_Plan(0, Batch(0, 0, 0), len(trunk))]
    may = [row.open if reuse else 0 for row in rows]
    for end in range(1, len(rows) + 1):
        shared, longest, plans = may[end - 1], 0, []
        for begin in range(end - 1, max(end - most, 0) - 1, -1):
            before = best[begin]
            longest = max(longest, rows[begin].length)
            shared = min(shared, may[begin], met[begin + 1] if begin + 1 < end else shared)
            kept = min(before.trunk, met[begin], shared)
            if begin + 1 == end:
                cost, batch, after = longest - kept, Batch(begin, end, kept), len(rows[begin].ids)
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


@dataclass(frozen=True)
class Layout:
    """The remainders of some rows side by side, padded on the right; each row is its trunk's rest, then its
    branches."""

    ids: Int[np.ndarray, "row token"]
    positions: Int[np.ndarray, "row token"]
    sees: Bool[np.ndarray, "row token seen"] | None
    """What each token attends to, what is kept from earlier first; None where causal is all."""
    which: Int[np.ndarray, " branch"]
    """Of all branches, in order: the row,"""
    where: Int[np.ndarray, " branch"]
    """and the token in it at which the branch is read."""


def lay_out(rows: Sequence[Row], start: int) -> Layout:
    """Lay out what comes after the first `start` tokens of every row."""
    width = max(row.length for row in rows) - start
    ids, positions, owners = (np.zeros((len(rows), width), dtype=np.int64) for _ in range(3))
    where, owners = [], owners - 2  # -2 is padding, -1 the trunk, and i >= 0 branch i
    for number, row in enumerate(rows):
        rest, size = len(row.ids) - start, len(row.branch)
        end = row.length - start
        ids[number, :end] = np.concatenate([row.ids[start:], np.tile(row.branch, len(row.ends))])
        along = (row.ends[:, None] + np.arange(size)).ravel()
        positions[number, :end] = np.concatenate([np.arange(start, len(row.ids)), along])
        owners[number, :end] = np.concatenate([np.full(rest, -1), np.repeat(np.arange(len(row.ends)), size)])
        where.append(rest + size * np.arange(1, len(row.ends) + 1) - 1 if size else row.ends - 1 - start)
    which = np.repeat(np.arange(len(rows)), [len(row.ends) for row in rows])
    sees = None
    if any(len(row.branch) for row in rows):
        sees = np.stack([_see(row, own, start) for row, own in zip(rows, owners, strict=True)])
    return Layout(ids, positions, sees, which, np.concatenate(where))


def _see(row: Row, owners: Int[np.ndarray, " token"], start: int) -> Bool[np.ndarray, "token seen"]:
    """Everything sees what is kept from earlier; a branch also the trunk before it; everything itself, backwards."""
    count = len(owners)
    # How far into the trunk each token sees: a token of it up to itself, a branch up to where it stands.
    reach = np.where(owners < 0, np.arange(count) + 1, np.append(row.ends, 0)[owners] - start)
    trunk = (owners[None] == -1) & (np.arange(count)[None] < reach[:, None])
    own = (
        (owners[:, None] == owners[None]) & (owners[None] >= 0) & (np.arange(count)[None] <= np.arange(count)[:, None])
    )
    seen = np.concatenate([np.ones((count, start), dtype=bool), trunk | own], axis=1)
    seen[np.arange(count), start + np.arange(count)] = True
    return seen


def read_ends(model: Any, laid: Layout, cache: Any = None) -> Any:
    """The logits at every branch, [branch, vocabulary]; `cache` holds what stands before the layout, and grows."""
    import torch

    def tensor(array: np.ndarray) -> Any:
        return torch.from_numpy(array).to(model.device)

    how: dict[str, Any] = {}
    if laid.sees is not None:
        mask = torch.zeros(laid.sees.shape, dtype=model.dtype, device=model.device)
        mask = mask.masked_fill(~tensor(laid.sees), torch.finfo(model.dtype).min)[:, None]
        how = {"attention_mask": mask, "position_ids": tensor(laid.positions)}
    which, where = tensor(laid.which), tensor(laid.where)
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][which, where][None], *inputs[1:]))
    try:
        return model(tensor(laid.ids), past_key_values=cache, use_cache=cache is not None, **how).logits[0]
    finally:
        hook.remove()


class Reader:
    """A model and its trunk. `reuse` says that its caches can be cut back."""

    def __init__(
        self, model: Any, digits: Int[np.ndarray, " 10"], reuse: bool, decode: Callable[[list[int]], str] | None = None
    ) -> None:
        import torch
        from transformers.cache_utils import DynamicCache

        self.model, self.reuse, self.decode = model, reuse, decode
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
            digits, best = self._forward(rows, shared)
        ends = np.cumsum([len(row.ends) for row in rows])[:-1]
        readings = []
        for row, found, top in zip(rows, np.split(digits, ends), np.split(best, ends), strict=True):
            processed = row.length - shared + (shared - kept) * (extended and row is rows[0])
            readings.append(Reading(found, Spent(1, row.length, 0, processed), self._instead(top)))
        return readings

    def _instead(self, best: Int[np.ndarray, " branch"]) -> tuple[str, ...]:
        """The most probable tokens that are no digits, the most frequent first."""
        digits = set(self.digits.tolist())
        others = Counter(token for token in best.tolist() if token not in digits)
        return tuple(self.decode([token]) for token, _ in others.most_common(3)) if self.decode else ()

    def _forward(
        self, rows: Sequence[Row], start: int
    ) -> tuple[Float[np.ndarray, "branch 10"], Int[np.ndarray, " branch"]]:
        """The digits and the most probable token at the branches of all rows, one after another; what stands before
        `start` is kept from earlier."""
        cache = self._lend(start, len(rows)) if self.reuse else None
        logits = read_ends(self.model, lay_out(rows, start), cache).float()
        if self.reuse and len(rows) == 1:
            self._keep(cache, rows[0].ids)
        found: Float[np.ndarray, "branch 10"] = (
            (logits[:, self.digits] - logits.logsumexp(-1, keepdim=True)).exp().cpu().numpy()
        )
        return found, logits.argmax(-1).cpu().numpy()

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
        kept = len(ids)  # Branches stand behind the trunk.
        self.ids = ids
        self.states = [(layer.keys[:, :, :kept], layer.values[:, :, :kept]) for layer in cache.layers]

    def _tensor(self, array: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(array).to(self.model.device)
