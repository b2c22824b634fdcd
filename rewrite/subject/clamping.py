"""The parts of a model after the hookpoint, held at what they did in one run while another vector is written.

A part is what adds to the residual stream in a later block, or steers what is added:

    values    what attention's heads carry over, through the pattern of whichever run the pattern is held at
    pattern   where attention's heads look
    mlp       what the MLP adds
    attention both of the first, where the model computes attention in a way that does not let them be told apart
    block     all that a block adds, where it does not add up from an attention and an MLP (recurrent models, routers
              with a name of their own)

A part that is *held* gives what it gave in the kept run and computes nothing new; a part that is *let go* computes on
the stream as it is now. With all parts held, what is written reaches the final norm alone; with all let go, the run is
the model's own. So the losses of a sequence of runs that let go one part after the other add up exactly to the
difference between the model's two runs (clamped forward passes: Singh, Moskovitz, Hill, Chan & Saxe 2024, *What needs
to go right for an induction head?*). Norms, rotations and residual scales are never held.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rewrite.subject.attending import Heads, Look, Mixed, Shared, Tap, tapping
from rewrite.subject.families import find_attention, has_mlp
from rewrite.subject.forwards import Forward, Record, tail_of, vectors_of, with_forwards
from rewrite.subject.subject import Prefix, Subject

Kind = Literal["values", "pattern", "attention", "mlp", "block"]
Logits = Float[Tensor, "batch position vocabulary"]


@dataclass(frozen=True)
class Part:
    """A part of a later block, to be held or let go."""

    layer: int
    kind: Kind


@dataclass(frozen=True)
class Head:
    """A head of a later block's attention."""

    layer: int
    head: int


@dataclass
class Seen:
    """What a later block's attention was given and what its heads returned; None where it calls no common function."""

    query: Heads | None = None
    key: Shared | None = None
    value: Shared | None = None
    mixed: Mixed | None = None

    def note(self, look: Look) -> Any:
        """A tap that keeps all of it and changes nothing."""
        returned = look.compute()
        self.query, self.key, self.value, self.mixed = look.query, look.key, look.value, returned[0]
        return returned


@dataclass
class Kept:
    """What a later block did in a run."""

    block: Record = field(default_factory=Record)
    attention: Record = field(default_factory=Record)
    mlp: Record = field(default_factory=Record)
    seen: Seen = field(default_factory=Seen)

    def add(self, *given: Any, **said: Any) -> Any:
        """A forward of the whole block that adds what the block added in that run."""
        stream: Tensor = given[0] if given else next(iter(said.values()))
        added = stream + (vectors_of(self.block.output) - self.block.input)
        tail = tail_of(self.block.output)
        return added if tail is None else (added, *tail)


@dataclass(frozen=True, eq=False)
class Later:
    """A block after the hookpoint's. `attention` and `mlp` are None where they cannot be held by themselves."""

    layer: int
    block: nn.Module
    attention: nn.Module | None = None
    mlp: nn.Module | None = None
    heads: int = 0
    """Heads that can be told apart."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """In the order of computation."""
        kinds = list[Kind]()
        if self.attention is not None:
            kinds += ["values", "pattern"] if self.heads else ["attention"]
        kinds += ["mlp"] if self.mlp is not None else []
        return tuple(Part(self.layer, kind) for kind in kinds or ["block"])


@dataclass(frozen=True, eq=False)
class Clamp:
    """Runs a subject from its hookpoint on with its later parts held or let go; build one with `build_clamp`."""

    subject: Subject
    later: tuple[Later, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """All later parts, in the order of computation."""
        return tuple(part for block in self.later for part in block.parts)

    @property
    def heads(self) -> tuple[Head, ...]:
        """All later heads that can be told apart."""
        return tuple(Head(block.layer, head) for block in self.later for head in range(block.heads))

    def keep(self, prefix: Prefix, vectors: Float[Tensor, "batch position d"]) -> tuple[Logits, dict[int, Kept]]:
        """The model's own run with `vectors` written, and what each later block did in it."""
        kept = {block.layer: Kept() for block in self.later}
        forwards: dict[nn.Module, Forward] = {}
        taps: dict[nn.Module, Tap] = {}
        for block in self.later:
            own = kept[block.layer]
            forwards[block.block] = own.block.watch(block.block)
            if block.attention is not None:
                forwards[block.attention] = own.attention.watch(block.attention)
            if block.heads and block.attention is not None:
                taps[block.attention] = own.seen.note
            if block.mlp is not None:
                forwards[block.mlp] = own.mlp.watch(block.mlp)
        with with_forwards(forwards), tapping(self.subject.model, taps):
            return self.subject.run_from(prefix, vectors), kept

    def run(
        self,
        prefix: Prefix,
        vectors: Float[Tensor, "batch position d"],
        kept: Mapping[int, Kept],
        free: Collection[Part],
        heads: Mapping[Head, bool] | None = None,
    ) -> Logits:
        """The run with `vectors` written and every part held at `kept` that is not `free`; `heads` are held (False) or
        let go (True) against what their block's attention does."""
        with self.holding(kept, free, heads or {}):
            return self.subject.run_from(prefix, vectors)

    def release(
        self, prefix: Prefix, vectors: Float[Tensor, "batch position d"], kept: Mapping[int, Kept], backward: bool
    ) -> Iterator[tuple[Part | None, Logits]]:
        """Runs with `vectors` written: all parts held (None), then each let go in the order of computation, or in
        the reverse one, those before it staying free.

        Blocks whose stream can no longer change are not computed again: forward, those that are wholly free; backward,
        those before the part, which are as with all held.
        """
        with self.holding(kept, ()):
            logits, held = self._watch(prefix, vectors)
        yield None, logits
        free: set[Part] = set()
        first, settled = self.subject.layer, held
        last = first
        for part in reversed(self.parts) if backward else self.parts:
            free.add(part)
            last = part.layer - 1 if backward else last
            with self.holding(kept, free), self._settle(settled, last):
                logits, now = self._watch(prefix, vectors)
            yield part, logits
            if not backward and free.issuperset(self.later[part.layer - first - 1].parts):
                settled, last = now, part.layer

    def each_head(
        self, prefix: Prefix, vectors: Float[Tensor, "batch position d"], kept: Mapping[int, Kept]
    ) -> Iterator[tuple[Head, Logits, Logits]]:
        """Runs with `vectors` written: each head let go alone with all else held, and held alone with all else free."""
        with self.holding(kept, ()):
            _, held = self._watch(prefix, vectors)
        _, free = self._watch(prefix, vectors)
        for head in self.heads:
            with self.holding(kept, (), {head: True}), self._settle(held, head.layer - 1):
                alone = self.subject.run_from(prefix, vectors)
            with self.holding(kept, self.parts, {head: False}), self._settle(free, head.layer - 1):
                without = self.subject.run_from(prefix, vectors)
            yield head, alone, without

    def _watch(self, prefix: Prefix, vectors: Float[Tensor, "batch position d"]) -> tuple[Logits, dict[int, Record]]:
        """A run, and the residual stream after each block from the hookpoint's on."""
        streams = {layer: Record() for layer in range(self.subject.layer, len(self.subject.blocks))}
        blocks = self.subject.blocks
        with with_forwards({blocks[layer]: record.watch(blocks[layer]) for layer, record in streams.items()}):
            return self.subject.run_from(prefix, vectors), streams

    @contextmanager
    def _settle(self, streams: Mapping[int, Record], last: int) -> Iterator[None]:
        """While open, the blocks from the hookpoint's to the `last` return what that gave in another run."""
        blocks = self.subject.blocks[self.subject.layer : last + 1]
        with with_forwards(dict.fromkeys(blocks, streams[last].replay)):
            yield

    @contextmanager
    def holding(
        self, kept: Mapping[int, Kept], free: Collection[Part], heads: Mapping[Head, bool] | None = None
    ) -> Iterator[None]:
        """While open, parts that are not free give what they gave in the kept run."""
        forwards: dict[nn.Module, Forward] = {}
        taps: dict[nn.Module, Tap] = {}
        for block in self.later:
            own = kept[block.layer]
            held = {part.kind for part in block.parts if part not in free}
            chosen = {head.head: go for head, go in (heads or {}).items() if head.layer == block.layer}
            if "block" in held:
                forwards[block.block] = own.add
            if "mlp" in held and block.mlp is not None:
                forwards[block.mlp] = own.mlp.replay
            if block.attention is None:
                continue
            if (held >= {"values", "pattern"} or "attention" in held) and not chosen:
                forwards[block.attention] = own.attention.replay
            elif held & {"values", "pattern"} or chosen:
                taps[block.attention] = _hold(own.seen, held, chosen)
        with with_forwards(forwards), tapping(self.subject.model, taps):
            yield


def _hold(seen: Seen, held: Collection[str], heads: Mapping[int, bool]) -> Tap:
    """A tap that holds values, pattern or both of an attention, and holds or lets go single heads of it."""

    def tap(look: Look) -> Any:
        pattern = {"query": seen.query, "key": seen.key} if "pattern" in held else {}
        values = {"value": seen.value} if "values" in held else {}
        returned = look.compute(**pattern, **values)
        if heads:
            free = look.mix() if True in heads.values() else None
            mixed = returned[0].clone()
            for head, go in heads.items():
                source = free if go else seen.mixed
                if source is not None:
                    mixed[:, :, head] = source[:, :, head]
            returned = (mixed, *returned[1:])
        return returned

    return tap


def build_clamp(subject: Subject) -> Clamp:
    """Find what of the later blocks can be held. What does not add up from its parts is held as a whole block."""
    ids = torch.arange(4, device=subject.device)[None] % subject.model.config.get_text_config().vocab_size
    prefix = subject.run_to(ids)
    # Supposed to have heads, all are looked into; those that call no common function show nothing.
    later = [
        Later(layer, block, find_attention(block), block.get_submodule("mlp") if has_mlp(block) else None, heads=1)
        for layer, block in enumerate(subject.blocks)
        if layer > subject.layer
    ]
    _, kept = Clamp(subject, tuple(later)).keep(prefix, prefix.output)
    seen = {layer: own.seen.query for layer, own in kept.items()}
    split = [replace(b, heads=0 if (query := seen[b.layer]) is None else query.shape[1]) for b in later]
    clamp = Clamp(subject, tuple(split))
    # A block that gives the same whatever it reads hides what the blocks after it do with another stream.
    while (found := _whole_where_needed(clamp, prefix)).parts != clamp.parts:
        clamp = found
    return clamp


def _whole_where_needed(clamp: Clamp, prefix: Prefix) -> Clamp:
    """The same with every block held as a whole that, its parts held, adds something else to another stream.

    What passes is the same but for rounding, and by medians, for a few entries of a stream may be a thousand times the
    others. The other stream is moved by as much as streams are large, or half precision would round all of it away.
    """
    if not clamp.later:
        return clamp
    output = prefix.output
    _, kept = clamp.keep(prefix, output)
    large = max(float(own.block.input.float().abs().mean()) for own in kept.values())
    moved = output + large * torch.linspace(-2, 2, output.shape[-1]).to(output)
    streams = {block.layer: Record() for block in clamp.later}
    with clamp.holding(kept, ()), with_forwards({b.block: streams[b.layer].watch(b.block) for b in clamp.later}):
        clamp.subject.run_from(prefix, moved)
    rounding = 1e-3 if torch.finfo(output.dtype).eps < 1e-6 else 0.1
    later = []
    for block in clamp.later:
        was, now = kept[block.layer].block, streams[block.layer]
        before, after = (vectors_of(record.output).float() - record.input.float() for record in (was, now))
        changed = (now.input.float() - was.input.float()).abs().median()
        alike = bool((after - before).abs().median() <= rounding * changed)
        later.append(block if alike else Later(block.layer, block.block))
    return Clamp(clamp.subject, tuple(later))
