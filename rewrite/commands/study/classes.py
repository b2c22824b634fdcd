"""A class in a cell of a notebook becomes a simulator backend of this process (`rewrite.run.brought`).

Its version is a hash over its code and constants, so that a cell that is edited and run again simulates anew; what the
code reads from outside the class is not in it. Each answer is checked before it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse

from rewrite.config import Section, UserError
from rewrite.engines.base import OpenEngine
from rewrite.explainers.base import Explanation
from rewrite.run import plugins
from rewrite.run.brought import give
from rewrite.run.files import hash_value
from rewrite.simulators.base import Peek, Simulator, Strengths, find_missing
from rewrite.text.windows import Text

INHERENT = ("__module__", "__dict__", "__weakref__", "__qualname__", "__firstlineno__", "__static_attributes__")
"""What a class has that says nothing of what it does."""


class NoSettings(Section):
    """A simulator without settings."""


def give_simulator(simulator: type) -> str:
    """Make a class a simulator backend of this process; returns its name in the config, which is its own.

    It is made with the explanations that there are and the number of latents, `Simulator(explanations, latents)`, and,
    where it has a table `Settings` (a `rewrite.Section`), with `settings` after them. `scale` is the top of its scale,
    and `simulate(text)` returns `Strengths` or just an array, positions × latents. It is shown no truth.

    Raises UserError for a class without these, and for one that has a built-in simulator's name.
    """
    name = getattr(simulator, "__name__", repr(simulator))
    if not isinstance(simulator, type) or not callable(getattr(simulator, "simulate", None)):
        raise UserError(f"simulator {name}: needs to be a class with simulate(text); see `rewrite.simulators.base`")
    if name in plugins.names("simulators"):
        raise UserError(f"simulator {name}: is built in; give the class another name")
    settings = getattr(simulator, "Settings", NoSettings)
    if not (isinstance(settings, type) and issubclass(settings, Section)):
        raise UserError(f"simulator {name}: its Settings are no rewrite.Section; derive them from that")
    module = ModuleType(name, simulator.__doc__)
    module.Settings = settings  # type: ignore[attr-defined]
    module.build = partial(_build, simulator)  # type: ignore[attr-defined]
    give("simulators", name, module, hash_value(_describe(simulator))[:12])
    return name


def _build(
    simulator: type,
    explanations: Sequence[Explanation],
    latents: int,
    settings: Section,
    peek: Peek,
    open_engine: OpenEngine,
) -> Simulator:
    """See `rewrite.simulators.base`; the truth stays hidden."""
    made = simulator(explanations, latents, *(() if isinstance(settings, NoSettings) else (settings,)))
    return Checked(made, simulator.__name__, explanations, latents)


class Checked:
    """A simulator of a session, whose every answer is looked at before it counts."""

    def __init__(self, own: Any, name: str, explanations: Sequence[Explanation], latents: int) -> None:
        self._own, self._name, self._explanations, self._latents = own, name, explanations, latents
        scale = getattr(own, "scale", None)
        if not isinstance(scale, int | float) or scale <= 0:
            raise UserError(f"simulator {name}: scale = {scale!r}; set it to the top of its scale, as in scale = 9.0")
        self.scale = float(scale)

    def simulate(self, text: Text) -> Strengths:
        """See `Simulator.simulate`."""
        said = self._own.simulate(text)
        if not isinstance(said, Strengths):
            values: Any = said if issparse(said) else np.asarray(said, dtype=np.float32)
            self._check(values, text)
            kept: Any = csr_array(values, dtype=np.float32, copy=True)
            kept.data[~np.repeat(text.counted(), np.diff(kept.indptr))] = 0
            kept.eliminate_zeros()
            said = Strengths(kept, find_missing(self._explanations, self._latents))
        self._check(said.values, text)
        return said

    def _check(self, values: Any, text: Text) -> None:
        wanted = (len(text.ids), self._latents)
        if values.shape != wanted:
            raise UserError(
                f"simulator {self._name}: simulate returned {values.shape}; it must be positions × latents, {wanted}"
            )


def _describe(thing: object) -> object:
    """What a class, a function or a plain value is, as far as code and constants tell, in the same words each time."""
    if isinstance(thing, CodeType):
        names = [thing.co_names, thing.co_varnames, thing.co_freevars]
        return [thing.co_code.hex(), names, [_describe(constant) for constant in thing.co_consts]]
    if isinstance(thing, FunctionType):
        return [_describe(thing.__code__), _describe(thing.__defaults__), _describe(thing.__kwdefaults__)]
    if isinstance(thing, staticmethod | classmethod):
        return _describe(thing.__func__)
    if isinstance(thing, property):
        return [_describe(thing.fget), _describe(thing.fset)]
    if isinstance(thing, type) and issubclass(thing, Section):
        return thing.model_json_schema()
    if isinstance(thing, type):
        bases = [_describe(base) for base in thing.__bases__ if base.__module__ == thing.__module__]
        own = {name: value for name, value in vars(thing).items() if name not in INHERENT}
        return [bases, {name: _describe(value) for name, value in own.items()}]
    if isinstance(thing, set | frozenset):
        return sorted(map(repr, thing))
    if isinstance(thing, tuple | list):
        return [_describe(one) for one in thing]
    if isinstance(thing, dict):
        return [[_describe(key), _describe(value)] for key, value in thing.items()]
    plain = thing is None or isinstance(thing, bool | int | float | complex | str | bytes)
    return repr(thing) if plain else type(thing).__qualname__
