"""The subject: any causal language model of the transformers library, and the one module of it that is rewritten.

There is one mechanism: for the length of a `with` block the `forward` of some modules is another function, and
afterwards it is what it was, whatever happened in between. A watched module records its input and output; a replayed
one returns a recorded output and computes nothing. Everything else follows:

1. `tap` watches the hookpoint's module; `write` lets it return given vectors, so that it is not computed at all.
2. `run_to(ids)` computes the layers up to the hookpoint, once per text. It watches the block before the hookpoint's,
   the attention beside the module, and the module; the blocks after it replay the hookpoint's own block.
3. `run_from(prefix, vectors)` is the model's own forward with the blocks before the hookpoint's and that attention
   replayed: it computes what comes after the module and nothing before, so the result is that of a whole forward with
   `vectors` written, bit for bit, in every family of models. Embeddings, norms and masks are cheap and computed again.

Gemma normalises what the MLP returns before it adds it to the residual stream. There the MLP and that norm are made
one module on loading (the same computation, bit for bit), so that in every family the output of `layers.N.mlp` is what
is added to the stream. Batches are padded on the right and the models are causal, so no attention mask is passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rewrite.config import Config, UserError
from rewrite.subject.families import (
    find_attention,
    find_blocks,
    has_mlp,
    join_norm,
    list_hookpoints,
    parse_hookpoint,
)
from rewrite.subject.forwards import Forward, Record, reading_at, tail_of, vectors_of, with_forwards
from rewrite.subject.held import find_held
from rewrite.subject.loading import check_device, check_folder, check_window, load_network, load_part

Rewriter = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Prefix:
    """The subject's state at the hookpoint on some token windows: all that `run_from` needs."""

    ids: Int[Tensor, "batch position"]
    input: Float[Tensor, "batch position d_in"]
    """What the hookpoint's module read."""
    output: Float[Tensor, "batch position d"]
    """What it returned."""
    before: Record
    """The block before the hookpoint's; empty at layer 0, whose input the embeddings give."""
    attention: Record
    """The attention of the hookpoint's block; empty where the whole block is rewritten."""


@dataclass(frozen=True)
class Seen:
    """What a hookpoint's module read and returned on some token windows."""

    input: Float[Tensor, "batch position d_in"]
    output: Float[Tensor, "batch position d"]


@dataclass
class Tapped:
    """The hookpoint's inputs and outputs, one of each per forward pass, in order."""

    inputs: list[Float[Tensor, "batch position d_in"]] = field(default_factory=list)
    outputs: list[Float[Tensor, "batch position d"]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, its tokenizer and the module of it that is rewritten; build one with `load_subject`."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    hookpoint: str
    """The hookpoint as the config names it: `layers.2.mlp`."""
    module_path: str
    """The module's path inside `model.base_model`: `layers.2.mlp` for Llama, `h.2.mlp` for GPT-2."""
    blocks: nn.ModuleList
    layer: int
    """Which of the blocks holds the hookpoint."""
    width: int = 0
    """Length of the vectors that the module reads and returns [d]."""
    tail: tuple[object, ...] | None = None
    """What the module returns after its vectors, where it returns a tuple."""
    config: Config | None = None
    """The config that named it: a worker, which is sent no weights, loads it by that."""

    def __reduce__(self) -> tuple[Callable[[Config], Subject], tuple[Config]]:
        if self.config is None:
            raise TypeError("a subject that no config named cannot be loaded by another process")
        return load_subject, (self.config,)

    @property
    def block(self) -> nn.Module:
        """The block that holds the hookpoint."""
        return self.blocks[self.layer]

    @property
    def module(self) -> nn.Module:
        """The module whose output is rewritten."""
        return self.model.base_model.get_submodule(self.module_path)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    def hookpoints(self) -> list[str]:
        """The names that `hookpoint` may have in this model."""
        stem = self.module_path.removesuffix(".mlp").split(".")[-2]
        return list_hookpoints(stem, self.blocks)

    def logits(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position vocabulary"]:
        """The model's own logits in float32."""
        with torch.no_grad():
            return self._logits(ids)

    def _logits(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "some place vocabulary"]:
        logits: Tensor = self.model(input_ids=ids.to(self.device), use_cache=False).logits
        return logits.float()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """While open, the blocks after the hookpoint's compute nothing: for work that ends at the hookpoint."""
        last = Record()
        later = dict.fromkeys(self.blocks[self.layer + 1 :], last.replay)
        with with_forwards({self.block: last.watch(self.block)} | later):
            yield

    def run_to(self, ids: Int[Tensor, "batch position"]) -> Prefix:
        """Run the model up to the hookpoint's module and keep what the rest of it needs."""
        ids = ids.to(self.device)
        before, attention, module = Record(), Record(), Record()
        watched: dict[nn.Module, Record] = {}
        if self.layer > 0:
            watched[self.blocks[self.layer - 1]] = before
        beside = find_attention(self.block)
        if beside is not None and self.module is not self.block:
            watched[beside] = attention
        with self.cut():
            watched[self.module] = module
            with with_forwards({part: record.watch(part) for part, record in watched.items()}), torch.no_grad():
                self.model.base_model(input_ids=ids, use_cache=False)
        return Prefix(ids, module.input, vectors_of(module.output), before, attention)

    def run_from(
        self,
        prefix: Prefix,
        vectors: Float[Tensor, "batch position d"],
        at: Bool[Tensor, "batch position"] | None = None,
    ) -> Float[Tensor, "some place vocabulary"]:
        """Float32 logits of the model whose hookpoint returns `vectors`, computing only what comes after it: [batch
        position vocabulary], or of the positions that `at` marks alone, [1 marked vocabulary].

        Where `vectors` wants a gradient and gradients are on, the logits can be differentiated by it.
        """
        forwards: dict[nn.Module, Forward] = dict.fromkeys(self.blocks[: self.layer], prefix.before.replay)
        beside = find_attention(self.block)
        if beside is not None and prefix.attention.output is not None:
            forwards[beside] = prefix.attention.replay
        head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if at is not None and head is not None:
            forwards[head] = reading_at(head, at)
        differentiated = torch.is_grad_enabled() and vectors.requires_grad
        with with_forwards(forwards), write(self, vectors), torch.set_grad_enabled(differentiated):
            logits = self._logits(prefix.ids)
        return logits if at is None or head is not None else logits[at][None]


def look(subjects: Sequence[Subject], ids: Int[Tensor, "batch position"]) -> list[Seen]:
    """What each hookpoint of one model shows, from one pass that ends at the last of them: bit for bit what `run_to`
    of each would."""
    last = max(subjects, key=lambda subject: subject.layer)
    records = {subject.module: Record() for subject in subjects}
    with last.cut(), with_forwards({part: record.watch(part) for part, record in records.items()}), torch.no_grad():
        last.model.base_model(input_ids=ids.to(last.device), use_cache=False)
    found = [records[subject.module] for subject in subjects]
    return [Seen(record.input, vectors_of(record.output)) for record in found]


@contextmanager
def tap(subject: Subject) -> Iterator[Tapped]:
    """Record what the hookpoint's module reads and returns while open."""
    tapped = Tapped()

    def note(read: Tensor, returned: Tensor) -> Tensor:
        tapped.inputs.append(read)
        tapped.outputs.append(returned)
        return returned

    with write(subject, note):
        yield tapped


@contextmanager
def write(subject: Subject, vectors: Float[Tensor, "batch position d"] | Rewriter) -> Iterator[None]:
    """While open, the hookpoint's module returns `vectors` and is not computed.

    Where `vectors` is a function, the module is computed and returns `vectors(its input, its output)`.
    """
    record = Record()
    compute = record.watch(subject.module)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if isinstance(vectors, Tensor):
            written, tail = vectors, subject.tail
        else:
            output = compute(*args, **kwargs)
            written, tail = vectors(record.input, vectors_of(output)), tail_of(output)
        # A copy: what the model does with it in place is not the caller's.
        written = written.to(subject.device, subject.model.dtype, copy=True)
        return written if tail is None else (written, *tail)

    with with_forwards({subject.module: forward}):
        yield


def build_subject(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, hookpoint: str) -> Subject:
    """A subject from a model that is already in memory; the model itself is put into evaluation mode.

    Raises UserError, in one line, for a hookpoint that it does not have, and for a model that does with what stands
    there something that is not understood here: writing it back must change nothing.
    """
    model.train(False).requires_grad_(False)
    name = model.config.name_or_path or model.config.model_type
    path, blocks = find_blocks(model, name)
    if hookpoint.endswith(".mlp") and not any(has_mlp(block) for block in blocks):
        parts = ", ".join(child for child, _ in blocks[0].named_children())
        raise UserError(
            f"{name}: a {model.config.model_type} model has no MLP that could be rewritten by itself (its blocks hold "
            f"{parts}); set hookpoint to a whole layer, as in layers.0"
        )
    probe = torch.arange(3, device=model.device)[None]
    with torch.no_grad():
        own: Tensor = model(input_ids=probe, use_cache=False).logits.float()
    for block in blocks:
        join_norm(block)
    layer, suffix = parse_hookpoint(hookpoint, path, blocks, name)
    subject = Subject(model, tokenizer, hookpoint, f"{path}.{layer}{suffix}", blocks, layer)
    record = Record()
    with subject.cut(), with_forwards({subject.module: record.watch(subject.module)}), torch.no_grad():
        model.base_model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    subject = replace(subject, width=vectors_of(record.output).shape[-1], tail=tail_of(record.output))
    _check_identity(subject, probe, own, name)
    return subject


def _check_identity(
    subject: Subject,
    ids: Int[Tensor, "batch position"],
    own: Float[Tensor, "batch position vocabulary"],
    name: str,
) -> None:
    """Raise UserError where writing back what the module returned gives other logits than the model's own."""
    prefix = subject.run_to(ids)
    back = subject.run_from(prefix, prefix.output, torch.ones_like(ids, dtype=torch.bool)).view_as(own)
    if not torch.allclose(own, back, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise UserError(
            f"{name}: a {subject.model.config.model_type} model does more with what {subject.hookpoint} returns than "
            "can be replaced here (written back, it changes the logits); set hookpoint to another, as in layers.0"
        )


def load_subjects(config: Config, hookpoints: Sequence[str]) -> list[Subject]:
    """The subject that the config names at each of some hookpoints, all of one model. Raises as `load_subject` does."""
    first = load_subject(config.model_copy(update={"hookpoint": hookpoints[0]}))
    others = [build_subject(first.model, first.tokenizer, hookpoint) for hookpoint in hookpoints[1:]]
    return [first, *others]


def load_subject(config: Config) -> Subject:
    """Load the subject that the config names, with its tokenizer; one that is in memory is taken from there.

    Raises UserError, in one line, where the model, its tokenizer, the device or the hookpoint is not to be had, and
    where the model cannot read windows as long as the corpus is cut into.
    """
    device, said = check_device("device", config.device), f"subject = {config.subject}"
    held = find_held(config.subject)
    if held is not None:
        check_window(config, held.model)
        return replace(build_subject(held.model, held.tokenizer, config.hookpoint), config=config)
    check_folder(said, config.subject)
    model = load_network(said, config.subject, config.revision, config.dtype)
    tokenizer = load_part(said, AutoTokenizer, config.subject, config.revision)
    check_window(config, model)
    return replace(build_subject(model.to(device), tokenizer, config.hookpoint), config=config)
