"""Routes: which parts the residual stream is made of at each position, before and after a rewrite.

Each write to the stream is a sum of parts: attention's of one for every head h and source position s, α · W_O v
of that source, beside what was there; the MLP's of its output, beside what was there. How much a part z makes up of its
sum y is

    prox(z, y) = max(0, ‖y‖₁ − ‖y − z‖₁)

normalised over the parts of the sum, what was there among them. From the prediction at a window's last scored position
the *route* goes back along edges of importance above τ: attention edges (layer, position, source), the heads of one
source added up, MLP edges (layer, position), and the stream itself, which always goes on. Source: Ferrando & Voita
(2024), *Information Flow Routes*, arXiv 2403.00824. A norm or a scale after attention is taken in at its actual size;
what a bias of attention adds is the part of no source. Blocks that compute attention and MLP side by side are taken one
after the other.

Only blocks after the hookpoint differ between arms; what is said of those before is the clean model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rewrite.arms.batches import Batch
from rewrite.arms.circuits.classes import CLASSES, classify
from rewrite.arms.circuits.heads import SCORED
from rewrite.arms.drawn import Drawn
from rewrite.subject.attending import Look, Tap, tapping
from rewrite.subject.clamping import Clamp
from rewrite.subject.families import find_attention, has_mlp
from rewrite.subject.forwards import Record, vectors_of, with_forwards
from rewrite.subject.subject import Prefix, Subject
from rewrite.subject.weights import writes_of

THRESHOLDS = (0.01, 0.02, 0.04)


@dataclass(frozen=True)
class Importance:
    """What a block's writes are made of; each of the two sums adds up to 1 with the stream's own part."""

    attention: Float[Tensor, "window head position source"]
    mlp: Float[Tensor, "window position"]
    stream: Float[Tensor, "window position"]
    """Of what was there, in attention's sum."""


@dataclass
class Watched:
    """A block in a run: its stream, what attention's heads moved by which pattern, what each part returned."""

    block: Record = field(default_factory=Record)
    attention: Record = field(default_factory=Record)
    mlp: Record = field(default_factory=Record)
    pattern: Tensor | None = None
    value: Tensor | None = None

    def note(self, look: Look) -> Any:
        """A tap."""
        self.pattern, self.value = look.pattern(), look.value
        return look.compute()


def proximity(part: Float[Tensor, "*n d"], whole: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
    """max(0, ‖y‖₁ − ‖y − z‖₁)."""
    return (whole.abs().sum(-1) - (whole - part).abs().sum(-1)).clamp(min=0)


def weigh_parts(watched: Watched, output: Float[Tensor, "d inner"]) -> Importance:
    """The importances of a block's parts; `output` is the matrix that writes what the heads have mixed."""
    # In float32: sums of absolute values, and differences of them, are more than half precision can tell.
    stream, added = watched.block.input.float(), vectors_of(watched.attention.output).float()
    mlp = vectors_of(watched.mlp.output).float()
    assert watched.pattern is not None and watched.value is not None
    windows, heads, length, _ = watched.pattern.shape
    value = watched.value.float().repeat_interleave(heads // watched.value.shape[1], 1)
    columns = output.view(len(output), heads, -1).to(value)
    made = vectors_of(watched.block.output).float()
    after = made - mlp
    scale = torch.ones_like(added)
    if (after - stream - added).abs().median() > 0.05 * added.abs().median():
        # A norm or a scale stands between attention and the stream: it multiplies each entry.
        scale = torch.where(added.abs() > 1e-12, (after - stream) / added, 0.0)
    shares = torch.zeros(windows, heads, length, length, device=stream.device)
    for window in range(windows):
        for head in range(heads):
            moved = value[window, head] @ columns[:, head].T
            part = watched.pattern[window, head, :, :, None].to(moved) * moved * scale[window, :, None]
            shares[window, head] = proximity(part, after[window, :, None].expand_as(part)).float()
    own = proximity(stream, after).float()
    total = (shares.sum((1, 3)) + own).clamp(min=1e-12)
    from_mlp, from_rest = proximity(mlp, made), proximity(after, made)
    part_of_mlp = (from_mlp / (from_mlp + from_rest).clamp(min=1e-12)).float()
    return Importance(shares / total[:, None, :, None], part_of_mlp, own / total)


def watch_routes(
    subject: Subject, layers: Sequence[int], prefix: Prefix, vectors: Float[Tensor, "window position d"] | None
) -> dict[int, Importance]:
    """The importances of these blocks' parts where `vectors` are written; the model's own where none are."""
    watched = {layer: Watched() for layer in layers}
    written = {layer: matrix for layer in layers if (matrix := writes_of(subject, layer)) is not None}
    forwards: dict[nn.Module, Any] = {}
    taps: dict[nn.Module, Tap] = {}
    for layer, own in watched.items():
        block = subject.blocks[layer]
        attention, mlp = find_attention(block), block.get_submodule("mlp")
        assert attention is not None
        forwards[block] = own.block.watch(block)
        forwards[attention] = own.attention.watch(attention)
        forwards[mlp] = own.mlp.watch(mlp)
        taps[attention] = own.note
    with torch.no_grad(), with_forwards(forwards), tapping(subject.model, taps):
        if vectors is None:
            subject.logits(prefix.ids)
        else:
            subject.run_from(prefix, vectors)
        return {layer: weigh_parts(own, written[layer]) for layer, own in watched.items()}


Edges = Bool[np.ndarray, " edge"]


def find_route(found: Sequence[Importance], window: int, end: int, threshold: float) -> Edges:
    """The edges above the threshold from a window's position `end` back through these blocks, as flags in a fixed
    order: of each block attention's (position, source), then the MLP's positions."""
    reached = np.zeros(found[0].mlp.shape[1], dtype=bool)
    reached[end] = True
    flags: list[np.ndarray] = []
    for importance in reversed(found):
        mlp = (importance.mlp[window].cpu().numpy() > threshold) & reached
        attention = (importance.attention[window].sum(0).cpu().numpy() > threshold) & reached[:, None]
        flags += [mlp, attention.ravel()]
        reached = reached | attention.any(0)
    return np.concatenate(flags[::-1])


def f1(found: Edges, expected: Edges) -> float:
    """2 · shared / (found + expected); 1 where both are empty."""
    total = int(found.sum() + expected.sum())
    return 2 * int((found & expected).sum()) / total if total else 1.0


@dataclass
class Routes:
    """Importances summed over counted positions, and how alike routes are, by document."""

    documents: Int[np.ndarray, " document"]
    layers: tuple[int, ...]
    """All blocks."""
    later: tuple[int, ...]
    """Those after the hookpoint."""
    heads: Float[np.ndarray, "arm layer head document"]
    mlp: Float[np.ndarray, "arm layer document"]
    """Of blocks before the hookpoint the clean model's under every arm."""
    alike: Float[np.ndarray, "arm threshold document"]
    """F1 of the later blocks' edges against the clean model's, summed over windows."""
    positions: Int[np.ndarray, " document"]
    windows: Int[np.ndarray, " document"]
    of_class: Int[np.ndarray, "class document"]
    """Counted positions of each class of tokens (`rewrite.arms.circuits.classes`)."""
    shares: Float[np.ndarray, "part arm class document"]
    """What attention (0) and the MLP (1) make up at them, summed over positions, the mean over later blocks."""


def follow(drawn: Drawn, clamp: Clamp, documents: int, seed: int) -> Routes | None:
    """Follow the routes of the first window of so many test documents under each arm; None where parts are unknown."""
    subject, chosen = clamp.subject, drawn.documents(documents, seed)
    layers, later = tuple(range(len(subject.blocks))), tuple(block.layer for block in clamp.later)
    if not clamp.later or not all(block.heads and block.mlp is not None for block in clamp.later):
        return None
    if any(writes_of(subject, layer) is None or not has_mlp(subject.blocks[layer]) for layer in layers):
        return None
    heads, count, arms = clamp.later[0].heads, len(chosen), len(SCORED)
    found = Routes(
        documents=chosen,
        layers=layers,
        later=later,
        heads=np.zeros((arms, len(layers), heads, count)),
        mlp=np.zeros((arms, len(layers), count)),
        alike=np.zeros((arms, len(THRESHOLDS), count)),
        positions=np.zeros(count, dtype=np.int64),
        windows=np.zeros(count, dtype=np.int64),
        of_class=np.zeros((len(CLASSES), count), dtype=np.int64),
        shares=np.zeros((2, arms, len(CLASSES), count)),
    )
    for batch in drawn.batches(chosen, "diagnose routes"):
        fresh = found.windows[np.searchsorted(chosen, batch.documents)] == 0
        _, first = np.unique(batch.documents, return_index=True)
        for window in first[fresh[first]]:
            add_window(found, drawn, batch, int(window))
    return found


def add_window(found: Routes, drawn: Drawn, batch: Batch, window: int) -> None:
    """Add one window under every arm."""
    end = int(torch.nonzero(batch.targets[window] >= 0).max()) + 1
    place = int(np.searchsorted(found.documents, batch.documents[window]))
    prefix = drawn.subject.run_to(batch.prefix.ids[window : window + 1, :end])
    counted = batch.counted[window, :end]
    found.positions[place] += int(counted.sum())
    found.windows[place] += 1
    kinds = classify([drawn.vocabulary[token] for token in prefix.ids[0].tolist()])[counted.cpu().numpy()]
    found.of_class[:, place] += np.bincount(kinds, minlength=len(CLASSES))
    own = watch_routes(drawn.subject, found.layers, prefix, None)
    routes: list[list[Edges]] = []
    for arm, name in enumerate(SCORED):
        vectors = batch.place(drawn.write(batch, name))[window : window + 1, :end]
        changed = watch_routes(drawn.subject, found.later, prefix, vectors)
        for layer in found.layers:
            importance = changed.get(layer, own[layer])
            found.heads[arm, layer, :, place] += importance.attention[0][:, counted].sum((1, 2)).cpu().numpy()
            found.mlp[arm, layer, place] += float(importance.mlp[0][counted].sum())
        ordered = [changed[layer] for layer in found.later]
        parts = ([one.attention[0].sum((0, 2)) for one in ordered], [one.mlp[0] for one in ordered])
        for part, made in enumerate(parts):
            share = torch.stack(made).mean(0)[counted].cpu().numpy()
            found.shares[part, arm, :, place] += np.bincount(kinds, share, len(CLASSES))
        routes.append([find_route(ordered, 0, end - 1, threshold) for threshold in THRESHOLDS])
        for number, edges in enumerate(routes[arm]):
            found.alike[arm, number, place] += f1(edges, routes[0][number])
