"""What kind each head is, and what a rewrite does to that.

A head's *scores* are how much of its attention goes to certain places, averaged over positions:

    previous    the token just before
    induction   the token after the last earlier place of the same token, the place that tells what followed it then

An induction head (Elhage et al. 2021; Olsson et al. 2022, *In-context Learning and Induction Heads*) looks there,
raises what it finds (`rewrite.arms.circuits.composition.copying`), and gets its key from a previous-token head before
it. Scores are taken on the test documents under `clean`, `coder`, `simulated` and `zero`, and on texts of random tokens
that are said twice, where nothing but induction helps, under the arms that read any text. There the loss of the second
half less that of the first is in-context learning. What a rewrite can change are the scores of heads after the
hookpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rewrite.arms.anywhere import Anywhere
from rewrite.arms.batches import Batch
from rewrite.arms.drawn import Drawn
from rewrite.subject.attending import Look, Tap, tapping
from rewrite.subject.clamping import Clamp, Head
from rewrite.subject.families import find_attention
from rewrite.subject.scoring import next_tokens, token_losses
from rewrite.subject.subject import Subject

SCORED = ("clean", "coder", "simulated", "zero")
KINDS = ("previous", "induction")
TEXTS, HALF = 16, 32
"""Random texts, and the tokens of each that are said twice."""

Sources = Int[Tensor, "window position"]
"""For each position the one that is looked for, -1 where there is none."""


def previous_of(asked: Bool[Tensor, "window position"]) -> Sources:
    """The position before each that is asked."""
    places = torch.arange(asked.shape[1], device=asked.device).expand_as(asked) - 1
    return torch.where(asked & (places >= 0), places, -1)


def induction_of(ids: Int[Tensor, "window position"], asked: Bool[Tensor, "window position"]) -> Sources:
    """The position after the last earlier place of the same token, where that is before the position itself."""
    length = ids.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril(-2)
    same = (ids[:, :, None] == ids[:, None, :]) & earlier
    places = torch.arange(length, device=ids.device)
    last = torch.where(same, places, -1).amax(2)
    return torch.where(asked & (last >= 0), last + 1, -1)


def attended(pattern: Float[Tensor, "window head position source"], sources: Sources) -> Float[Tensor, "window head"]:
    """Attention paid to the sources, summed over the positions that have one."""
    index = sources.clamp(min=0)[:, None, :, None].expand(-1, pattern.shape[1], -1, 1)
    return (pattern.gather(3, index)[..., 0] * (sources >= 0)[:, None]).sum(2)


@dataclass
class Scores:
    """Attention paid, by arm, kind and head, summed over the positions of each document that count for a kind."""

    heads: tuple[Head, ...]
    documents: Int[np.ndarray, " document"]
    paid: Float[np.ndarray, "arm kind head document"] = field(init=False)
    counts: Int[np.ndarray, "kind document"] = field(init=False)

    def __post_init__(self) -> None:
        self.paid = np.zeros((len(SCORED), len(KINDS), len(self.heads), len(self.documents)))
        self.counts = np.zeros((len(KINDS), len(self.documents)), dtype=np.int64)

    def add(self, drawn: Drawn, batch: Batch) -> None:
        """Add a batch's windows under every arm."""
        ids, places = batch.prefix.ids, np.searchsorted(self.documents, batch.documents)
        wanted = (previous_of(batch.counted), induction_of(ids, batch.counted))
        for kind, sources in enumerate(wanted):
            np.add.at(self.counts[kind], places, (sources >= 0).sum(1).cpu().numpy())
        for arm, name in enumerate(SCORED):
            vectors = batch.place(drawn.write(batch, name))
            run = partial(drawn.subject.run_from, batch.prefix, vectors)
            for kind, paid in enumerate(watch(drawn.subject, self.heads, run, wanted)[1]):
                np.add.at(self.paid[arm, kind].T, places, paid.cpu().numpy())


def watch(
    subject: Subject, heads: Sequence[Head], run: Callable[[], Tensor], wanted: Sequence[Sources]
) -> tuple[Tensor, list[Float[Tensor, "window head"]]]:
    """What the run returns, and what these heads pay to the sources of each kind in it."""
    layers = sorted({head.layer for head in heads})
    paid = dict[int, list[Tensor]]()

    def tap_of(layer: int) -> Tap:
        def tap(look: Look) -> Any:
            paid[layer] = [attended(look.pattern(), sources).double() for sources in wanted]
            return look.compute()

        return tap

    taps: dict[nn.Module, Tap] = {}
    for layer in layers:
        attention = find_attention(subject.blocks[layer])
        if attention is not None:
            taps[attention] = tap_of(layer)
    with torch.no_grad(), tapping(subject.model, taps):
        returned = run()
    none = torch.zeros(len(wanted[0]), 0)
    found = [[paid[head.layer][kind][:, head.head] for head in heads] for kind in range(len(wanted))]
    return returned, [torch.stack(each, 1) if each else none for each in found]


def all_heads(clamp: Clamp) -> tuple[Head, ...]:
    """The heads of every block that can be told apart, those before the hookpoint too, which a rewrite leaves alone."""
    subject, counts = clamp.subject, dict[int, int]()

    def tap_of(layer: int) -> Tap:
        def tap(look: Look) -> Any:
            counts[layer] = look.query.shape[1]
            return look.compute()

        return tap

    if clamp.heads:
        found = [(layer, find_attention(block)) for layer, block in enumerate(subject.blocks)]
        taps = {attention: tap_of(layer) for layer, attention in found if attention is not None}
        with tapping(subject.model, taps):
            subject.logits(torch.zeros(1, 2, dtype=torch.long))
    return tuple(Head(layer, head) for layer in sorted(counts) for head in range(counts[layer]))


@dataclass(frozen=True)
class Repeated:
    """What heads and losses are on texts of random tokens said twice, over the second half."""

    own: Float[np.ndarray, "kind head"]
    """Mean attention of each head of the model, under `clean`."""
    later: Float[np.ndarray, "arm kind later"]
    """The same of the heads after the hookpoint under each of the `arms`."""
    losses: Float[np.ndarray, "arm half"]
    """Mean loss [nats a token] of the first and of the second half."""
    arms: tuple[str, ...]


def repeat(clamp: Clamp, anywhere: Anywhere, tokens: Int[np.ndarray, " token"], seed: int) -> Repeated:
    """Heads and losses on `TEXTS` random texts of these tokens, `HALF` tokens said twice, or as many as can be read."""
    subject = clamp.subject
    half = min(
        HALF, (getattr(subject.model.config.get_text_config(), "max_position_embeddings", None) or 2 * HALF) // 2
    )
    rng = np.random.default_rng([seed, 2])
    # Where there are enough of them no token stands twice in a half, so that one place alone tells what follows.
    drawn = np.stack([rng.choice(tokens, half, replace=len(tokens) < half) for _ in range(TEXTS)])
    texts = np.concatenate([drawn, drawn], 1).astype(np.int64)
    ids = torch.as_tensor(texts, device=subject.device)
    asked = torch.zeros_like(ids, dtype=torch.bool)
    asked[:, half:] = True
    wanted = (previous_of(asked), torch.where(asked, torch.arange(2 * half, device=ids.device) - half + 1, -1))
    every = torch.ones_like(asked)
    # The first position is nobody's, as in every window.
    counted = every.clone()
    counted[:, 0] = False
    prefix = subject.run_to(ids)
    written = anywhere.write(prefix, counted, list(texts))
    targets = next_tokens(ids, every, every)
    _, own = watch(subject, all_heads(clamp), partial(subject.logits, ids), wanted)
    arms, losses = [], []
    for arm in anywhere.arms:
        vectors = written.place(written.vectors[arm])
        logits, paid = watch(subject, clamp.heads, partial(subject.run_from, prefix, vectors), wanted)
        arms.append(_mean(paid, half))
        nats = token_losses(logits, targets).cpu().numpy()
        # The first half's last target is the second's first token: nothing repeats yet.
        losses.append([float(nats[:, 1 : half - 1].mean()), float(nats[:, half:-1].mean())])
    return Repeated(_mean(own, half), np.stack(arms), np.asarray(losses), anywhere.arms)


def _mean(paid: Sequence[Float[Tensor, "window head"]], half: int) -> Float[np.ndarray, "kind head"]:
    return torch.stack([kind.mean(0) / half for kind in paid]).cpu().numpy()
