"""Modules that are watched, replayed or replaced for a while, and then as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Forward = Callable[..., Any]


@dataclass
class Record:
    """What a watched module last read and returned; `output` keeps the module's own structure, tensor or tuple.

    Kept and given back as copies: Falcon's blocks add to what their modules return in place."""

    input: Any = None
    output: Any = None

    def watch(self, module: nn.Module) -> Forward:
        """A forward for `module` that computes what it always does and notes it here."""
        compute = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            self.input = copy_of(args[0] if args else next(iter(kwargs.values())))
            returned = compute(*args, **kwargs)
            self.output = copy_of(returned)
            return returned

        return forward

    def replay(self, *_: Any, **__: Any) -> Any:
        """A forward that returns the recorded output."""
        return copy_of(self.output)


def reading_at(module: nn.Module, at: Tensor) -> Forward:
    """A forward for the unembedding that reads the positions which `at` marks [batch position] and no other: it returns
    [1 marked vocabulary]."""
    compute = module.forward

    def forward(hidden: Tensor) -> Any:
        return compute(hidden[at.to(hidden.device)][None])

    return forward


@contextmanager
def with_forwards(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Give modules other forwards while open; undone on any exception, and safe to nest."""
    outer = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module, previous in outer.items():
            vars(module).pop("forward", None)
            if previous is not None:
                vars(module)["forward"] = previous


def copy_of(output: Any) -> Any:
    """The same, its vectors copied."""
    if isinstance(output, tuple):
        return (copy_of(output[0]), *output[1:])
    return output.clone() if isinstance(output, Tensor) else output


def vectors_of(output: Any) -> Tensor:
    """A module's vectors, out of the tuple that some modules return."""
    vectors: Tensor = output[0] if isinstance(output, tuple) else output
    return vectors


def tail_of(output: Any) -> tuple[object, ...] | None:
    """What such a tuple holds after the vectors; None where there is no tuple."""
    return output[1:] if isinstance(output, tuple) else None
