"""What attention reads, between its projections: queries, keys and values on the way in, each head's mixture out.

The library's models hand these to one function that is looked up by name in their config. For the length of a `with`
block that name is another, of a function that knows who may look in: a *tap* is given queries, keys, values and the
model's own computation, and returns what the model goes on with. A pattern is a function of queries and keys alone, so
who replaces those holds the pattern, whatever the values are; heads stand apart in the mixture, so one of many can be
replaced. Models that compute attention in a way of their own (Falcon, BLOOM, GPT-J) call no such function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

Heads = Float[Tensor, "batch head position d_head"]
Shared = Float[Tensor, "batch group source d_shared"]
"""Keys and values may have fewer heads than queries: neighbours then share them."""
Mixed = Float[Tensor, "batch position head d_shared"]


class Look:
    """One call of a model's attention: what it was given, and its own computation of it."""

    def __init__(
        self, own: Callable[..., Any], module: nn.Module, given: tuple[Any, ...], said: dict[str, Any]
    ) -> None:
        self.own, self.module, self.more, self.said = own, module, given[3:], said
        self.query: Heads = given[0]
        self.key: Shared = given[1]
        self.value: Shared = given[2]

    def mix(self, query: Heads | None = None, key: Shared | None = None, value: Shared | None = None) -> Mixed:
        """What the heads return for these queries, keys and values, the model's own where none are given."""
        mixed: Mixed = self.compute(query, key, value)[0]
        return mixed

    def compute(self, query: Heads | None = None, key: Shared | None = None, value: Shared | None = None) -> Any:
        """The same as the model wants it: the mixture first, then whatever it returns beside it."""
        given = (given if given is not None else own for given, own in zip((query, key, value), self._own, strict=True))
        return self.own(self.module, *given, *self.more, **self.said)

    @property
    def _own(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.query, self.key, self.value

    def pattern(self) -> Float[Tensor, "batch head position source"]:
        """Where each head looks: rows sum to 1, or to less where the model lets a head look nowhere."""
        mask = self.more[0] if self.more else self.said.get("attention_mask")
        said = {key: value for key, value in self.said.items() if key != "attention_mask"}
        mask = _additive(mask, self.query, self.key)
        weights: Tensor = _eager(self.module)(self.module, *self._own, mask, *self.more[1:], **said)[1]
        return weights.float()


Tap = Callable[[Look], Any]
"""Returns what `Look.compute` would."""

_TAPPED: dict[nn.Module, Tap] = {}


@contextmanager
def tapping(model: PreTrainedModel, taps: Mapping[nn.Module, Tap]) -> Iterator[None]:
    """Let taps look into these attention modules while open; undone on any exception, and safe to nest."""
    if not taps:
        yield
        return
    text = model.config.get_text_config()
    configs = {id(config): config for config in (text, *(getattr(module, "config", text) for module in taps))}
    before = {module: _TAPPED.get(module) for module in taps}
    names = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for key, config in configs.items():
            config._attn_implementation = _register(names[key])
        _TAPPED.update(taps)
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = names[key]
        for module, tap in before.items():
            del _TAPPED[module]
            if tap is not None:
                _TAPPED[module] = tap


PREFIX = "tapped_"


def _register(name: str | None) -> str | None:
    """The name of the function that lets taps look into that of this name."""
    if name is None or name.startswith(PREFIX):
        return name
    functions: Any = AttentionInterface()  # type: ignore[no-untyped-call]
    masks: Any = AttentionMaskInterface()  # type: ignore[no-untyped-call]
    if PREFIX + name not in functions:

        def dispatch(module: nn.Module, *given: Any, **said: Any) -> Any:
            own = _eager(module) if name == "eager" else functions[name]
            tap = _TAPPED.get(module)
            return own(module, *given, **said) if tap is None else tap(Look(own, module, given, said))

        AttentionInterface.register(PREFIX + name, dispatch)
        AttentionMaskInterface.register(PREFIX + name, masks[name])
    return PREFIX + name


def _eager(module: nn.Module) -> Callable[..., Any]:
    """A family's plain attention, which every file of the library that hands it out has under this name."""
    function: Callable[..., Any] = sys.modules[type(module).__module__].eager_attention_forward
    return function


def _additive(mask: Tensor | None, query: Heads, key: Shared) -> Float[Tensor, "any 1 position source"]:
    """A mask as the plain attention takes it: 0 where a position may look, very low where not; causal where none is."""
    seen: Bool[Tensor, ...]
    if mask is None:
        positions, sources = query.shape[2], key.shape[2]
        seen = torch.ones(positions, sources, dtype=torch.bool, device=query.device).tril(sources - positions)[
            None, None
        ]
    elif mask.dtype == torch.bool:
        seen = mask
    else:
        return mask
    return torch.zeros(seen.shape, dtype=query.dtype, device=query.device).masked_fill(
        ~seen, torch.finfo(query.dtype).min
    )
