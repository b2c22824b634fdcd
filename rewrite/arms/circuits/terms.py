"""Through how many attention layers, one after another, does what the loss needs pass?

A model's logits are a sum over paths, and a path passes a number of attention layers: none, from a token straight to
the prediction of the next (a bigram at best); one; two, as in an induction head, whose keys come out of an earlier
head. Of *order n* is the run in which every path of more than n is cut: patterns are held at what they are in the whole
run, and what the heads of a layer hand on is what they hand on in the run of order n − 1; at order 0 they hand on
nothing. MLPs and norms compute on the stream as it then is. With as many orders as there are attention layers nothing
is cut.

    loss(n)             of the run of order n [nats per token]
    loss(n − 1) − loss(n)   what paths of n are worth, beyond those of fewer

Counted are the layers after the hookpoint, under each arm with its own patterns; and, as `model`, those of the whole
clean model. Source: term importance by freezing patterns, Elhage et al. (2021), *A Mathematical Framework for
Transformer Circuits*, there on models of attention alone, where no MLP stands beside the paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rewrite.arms.batches import Batch
from rewrite.arms.circuits.heads import SCORED
from rewrite.arms.drawn import Drawn
from rewrite.subject.attending import Look, Tap, tapping
from rewrite.subject.clamping import Clamp, Logits, Seen
from rewrite.subject.families import find_attention
from rewrite.subject.scoring import window_losses

WHOLE = "model"
"""The clean model from its first layer on, beside the arms from the hookpoint on."""
MOST = 3
"""Orders that are told, 0 among them; the run that cuts nothing stands beside them."""


@dataclass
class Terms:
    """Sums of nats over the scored tokens of some documents."""

    documents: Int[np.ndarray, " document"]
    tokens: Int[np.ndarray, " document"] = field(init=False)
    losses: dict[str, Float[np.ndarray, "order document"]] = field(init=False)
    """By arm: of each order, then of the run that cuts nothing. An arm whose paths pass fewer layers has fewer."""

    def __post_init__(self) -> None:
        self.tokens = np.zeros(len(self.documents), dtype=np.int64)
        self.losses = {}


def take_terms(drawn: Drawn, clamp: Clamp, documents: Int[np.ndarray, " document"]) -> Terms | None:
    """Losses by order on these test documents; None where a block's heads hand nothing on that could be cut."""
    later = [block.attention for block in clamp.later if block.heads and block.attention is not None]
    every = [module for block in drawn.subject.blocks if (module := find_attention(block)) is not None]
    if not later or len(later) < len(clamp.later) or len(every) < len(drawn.subject.blocks):
        return None
    found = Terms(documents)
    with torch.no_grad():
        for batch in drawn.batches(documents, "diagnose paths"):
            add_batch(found, drawn, later, every, batch)
    return found


def add_batch(found: Terms, drawn: Drawn, later: Sequence[nn.Module], every: Sequence[nn.Module], batch: Batch) -> None:
    """Add what a batch's windows lose at every order."""
    subject, places = drawn.subject, np.searchsorted(found.documents, batch.documents)
    np.add.at(found.tokens, places, batch.tokens)
    runs: dict[str, tuple[Sequence[nn.Module], Callable[[], Logits]]] = {
        WHOLE: (every, partial(subject.logits, batch.prefix.ids))
    }
    for arm in SCORED:
        vectors = batch.place(drawn.write(batch, arm))
        runs[arm] = later, partial(subject.run_from, batch.prefix, vectors)
    for arm, (modules, run) in runs.items():
        orders = min(MOST, len(modules))
        own = found.losses.setdefault(arm, np.zeros((orders + 1, len(found.documents))))
        for number, logits in enumerate(cut_paths(drawn.subject.model, modules, run, orders)):
            np.add.at(own[number - 1], places, window_losses(logits, batch.targets))


def cut_paths(model: Any, modules: Sequence[nn.Module], run: Callable[[], Logits], orders: int) -> Iterator[Logits]:
    """What `run` returns with nothing cut, then that of order 0, 1, ... of so many orders, through the attention of
    these modules."""
    whole = {module: Seen() for module in modules}
    with tapping(model, {module: seen.note for module, seen in whole.items()}):
        yield run()
    handed = {module: torch.zeros_like(_mixed(seen)) for module, seen in whole.items()}
    for _ in range(orders):
        now = dict[nn.Module, Tensor]()
        with tapping(model, {module: _hand_on(module, whole[module], handed[module], now) for module in modules}):
            logits = run()
        yield logits
        handed = now


def _hand_on(module: nn.Module, seen: Seen, before: Tensor, now: dict[nn.Module, Tensor]) -> Tap:
    """A tap that hands on what was handed on before, and notes what this run's values make through the held pattern."""

    def tap(look: Look) -> Any:
        returned = look.compute(query=seen.query, key=seen.key)
        now[module] = returned[0]
        return (before, *returned[1:])

    return tap


def _mixed(seen: Seen) -> Tensor:
    assert seen.mixed is not None, "these modules were looked into before"
    return seen.mixed
