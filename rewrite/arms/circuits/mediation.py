"""What an arm costs, taken apart along its way from the hookpoint to the loss.

For the `coder` arm A and an arm B, on the same windows: A is run and every later part kept; then B's vectors are
written with all later parts held at A's, and the parts are let go one after the other (`rewrite.subject.clamping`).
Each run has a loss; the differences between neighbours, the *steps*, add up to loss(B) − loss(A), since the last run is
B itself:

    direct    loss(B written, all parts held at A's) − loss(A): the vector reaches the final norm alone
    part      loss(this part let go too) − loss(before it)

What a step is worth depends on what was let go before it, so the parts are let go in the order of computation
(`forward`), where a step sees all that the parts before it make of B, and in the reverse order (`backward`), where it
sees B's vector and nothing that earlier parts make of it. These are two of many orders, in all of which `direct` comes
first; their mean is stated, with how far apart they are. Source: clamped forward passes after Singh, Moskovitz, Hill,
Chan & Saxe (2024), *What needs to go right for an induction head?*; here between two vectors at one place instead of
two moments of training.

Single heads are measured in the first place of an order and in the last: let go alone, all else held (`alone`), and
held alone, all else free (`needed`: loss(B) − loss(B with the head held)).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int

from rewrite.arms.batches import Batch
from rewrite.arms.drawn import Drawn
from rewrite.subject.clamping import Clamp, Logits, build_clamp
from rewrite.subject.scoring import window_losses

ARMS = ("simulated", "zero")
"""The arms that are taken apart, each against `coder`."""
ORDERS = ("forward", "backward")
BOUNDS = ("alone", "needed")


@dataclass
class Mediated:
    """Sums of nats over the scored tokens of some documents."""

    documents: Int[np.ndarray, " document"]
    clamp: Clamp
    tokens: Int[np.ndarray, " document"] = field(init=False)
    losses: dict[str, Float[np.ndarray, " document"]] = field(init=False)
    """Of `coder` and of each arm, by a run of its own."""
    runs: dict[tuple[str, str], Float[np.ndarray, "run document"]] = field(init=False)
    """By arm and order: all parts held, then each part let go, in that order."""
    heads: Float[np.ndarray, "bound head document"] = field(init=False)
    """Of `simulated`; NaN on documents that heads are not measured on."""

    def __post_init__(self) -> None:
        count, parts = len(self.documents), len(self.clamp.parts)
        self.tokens = np.zeros(count, dtype=np.int64)
        self.losses = {arm: np.zeros(count) for arm in ("coder", *ARMS)}
        self.runs = {(arm, order): np.zeros((parts + 1, count)) for arm in ARMS for order in ORDERS}
        self.heads = np.full((len(BOUNDS), len(self.clamp.heads), count), np.nan)

    def steps(self, arm: str, order: str) -> Float[np.ndarray, "step document"]:
        """The direct step, then that of each part in the order of computation, whichever order they were let go in."""
        runs = self.runs[arm, order]
        steps = np.diff(runs, axis=0, prepend=self.losses["coder"][None])
        return steps if order == "forward" else np.concatenate([steps[:1], steps[:0:-1]])


def mediate(drawn: Drawn, documents: int, heads: int, seed: int) -> Mediated:
    """Take `simulated` and `zero` apart on so many test documents, and heads on so many of these; 0 heads is none."""
    clamp = build_clamp(drawn.subject)
    chosen = drawn.documents(documents, seed)
    found = Mediated(chosen, clamp)
    watched = drawn.documents(heads, seed) if heads else chosen[:0]
    found.heads[..., np.isin(chosen, watched)] = 0
    with torch.no_grad():
        for batch in drawn.batches(chosen, "diagnose"):
            add_batch(found, drawn, batch)
        for batch in drawn.batches(watched, "diagnose single heads") if clamp.heads else ():
            add_heads(found, drawn, batch)
    return found


def add_batch(found: Mediated, drawn: Drawn, batch: Batch) -> None:
    """Add what a batch's windows lose in every run."""
    clamp, places = found.clamp, np.searchsorted(found.documents, batch.documents)
    np.add.at(found.tokens, places, batch.tokens)

    def add(sums: Float[np.ndarray, " document"], logits: Logits) -> None:
        np.add.at(sums, places, window_losses(logits, batch.targets))

    logits, kept = clamp.keep(batch.prefix, batch.place(drawn.write(batch, "coder")))
    add(found.losses["coder"], logits)
    for arm in ARMS:
        vectors = batch.place(drawn.write(batch, arm))
        add(found.losses[arm], clamp.subject.run_from(batch.prefix, vectors))
        for order in ORDERS:
            released = clamp.release(batch.prefix, vectors, kept, order == "backward")
            for number, (_, logits) in enumerate(released):
                add(found.runs[arm, order][number], logits)


def add_heads(found: Mediated, drawn: Drawn, batch: Batch) -> None:
    """Add what single heads carry on a batch of documents on which heads are measured."""
    clamp, places = found.clamp, np.searchsorted(found.documents, batch.documents)
    _, kept = clamp.keep(batch.prefix, batch.place(drawn.write(batch, "coder")))
    vectors = batch.place(drawn.write(batch, "simulated"))
    held = window_losses(clamp.run(batch.prefix, vectors, kept, ()), batch.targets)
    free = window_losses(clamp.subject.run_from(batch.prefix, vectors), batch.targets)
    for number, (_, alone, without) in enumerate(clamp.each_head(batch.prefix, vectors, kept)):
        np.add.at(found.heads[0, number], places, window_losses(alone, batch.targets) - held)
        np.add.at(found.heads[1, number], places, free - window_losses(without, batch.targets))
