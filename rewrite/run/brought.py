"""Backends that other installed packages bring: entry points in the groups `rewrite.explainers`, `rewrite.simulators`,
`rewrite.screens`, `rewrite.engines`, `rewrite.executors` and `rewrite.exports`.

An entry point names a module that defines what a file in the folder of that name would. Listing them reads what the
packages say of themselves and imports none; a package that cannot be imported is in the way only of who chooses it.
A backend may also be given by the process itself (`give`), such as a class in a cell of a notebook.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Literal, get_args

from rewrite.config import Section, UserError
from rewrite.display.escaping import one_line

Kind = Literal["explainers", "simulators", "screens", "engines", "executors", "exports"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MAKERS = {"exports": "write", "screens": "screen"}
"""What a backend of a kind defines; of any other kind, `build`."""


@dataclass(frozen=True)
class Brought:
    """A backend of another package."""

    kind: str
    point: EntryPoint

    @property
    def package(self) -> str:
        """The package's name, as pip knows it; where it says none, that of the module."""
        name = self.point.dist.name if self.point.dist else None
        return one_line(name or self.point.value)

    @property
    def version(self) -> str:
        """The package's version."""
        return one_line((self.point.dist.version if self.point.dist else None) or "unknown")

    def load(self) -> ModuleType:
        """The backend's module. Raises UserError, naming the package, where it cannot be imported or is no backend."""
        who = f"{self.kind[:-1]} = {self.point.name}: the package {self.package} {self.version}, which brings it,"
        try:
            module: ModuleType = self.point.load()
        except Exception as error:  # whatever it does when it is imported
            told = one_line(f"{type(error).__name__}: {error}")
            raise UserError(f"{who} cannot be imported ({told}); mend or uninstall it") from None
        maker = MAKERS.get(self.kind, "build")
        if not callable(getattr(module, maker, None)):
            raise UserError(f"{who} defines no {maker} in {self.point.value}; see CONTRIBUTING, or uninstall it")
        settings = getattr(module, "Settings", None)
        if maker == "build" and not (isinstance(settings, type) and issubclass(settings, Section)):
            raise UserError(f"{who} defines no Settings in {self.point.value} that are a rewrite.config.Section")
        return module


@dataclass(frozen=True)
class Given:
    """A backend that this process defines; it is gone with it."""

    module: ModuleType
    version: str
    """Changes where what it does may have changed."""

    @property
    def package(self) -> str:
        """What stands for a package's name."""
        return f"{self.module.__name__} of this session"

    def load(self) -> ModuleType:
        """The backend's module."""
        return self.module


_GIVEN: dict[tuple[str, str], Given] = {}


def give(kind: str, name: str, module: ModuleType, version: str) -> None:
    """Let a config of this process name a backend; one given before by that name is forgotten."""
    _GIVEN[kind, name] = Given(module, version)


def find_brought(kind: str) -> dict[str, Sequence[Brought | Given]]:
    """The backends of a kind that packages bring or this process gave, by name; a name that two bring has both."""
    found: dict[str, list[Brought | Given]] = {}
    for point in _scan(tuple(sys.path))[kind]:
        found.setdefault(point.name, []).append(Brought(kind, point))
    for (own, name), given in _GIVEN.items():
        if own == kind:
            found.setdefault(name, []).append(given)
    return dict(found)


@cache
def _scan(path: tuple[str, ...]) -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points of each kind in the folders of `sys.path`, read once: there may be hundreds of packages."""
    every = entry_points()
    return {kind: tuple(sorted(every.select(group=f"rewrite.{kind}"))) for kind in KINDS}
