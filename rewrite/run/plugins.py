"""Backends are files: a name in the config is a file in `explainers/`, `simulators/`, `simulators/screens/`, `engines/`
or `run/executors/`, and the name of a form of `rewrite export` is one in `exports/`. Other packages bring more
(`rewrite.run.brought`).

A backend is a file that defines `build` (`screen` for a screen, `write` for a form of export), whose arguments its
folder's `base.py` documents, and, with `build`, a `Settings` table (a `rewrite.config.Section`). One that is a folder
has `Settings` in its `__init__.py` and the rest in its `build.py`: who only asks what is set, as `rewrite status` does,
waits for no library that does the work. Nothing else lists backends, so adding one is adding a file; what stands beside
them without such a function is what they share.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import ValidationError

from rewrite import DISTRIBUTION
from rewrite.config import Config, Section, UserError
from rewrite.run.brought import Kind, find_brought

Role = Literal["explainer", "simulator", "score"]
"""In what role a language model is asked."""
Chosen = Literal["explainer", "simulator", "engine", "executor"]
"""What the config names one backend of."""

CHOSEN: tuple[Chosen, ...] = ("explainer", "simulator", "engine", "executor")
HOUSE = Path(__file__).parents[1]
ROOMS = {"executors": "run.executors", "screens": "simulators.screens"}
"""Where the files of a kind are, if not in a folder of its name."""
MAKES = re.compile(r"^def (build|write|screen)\(", re.MULTILINE)


def names(kind: Kind, makes: re.Pattern[str] = MAKES) -> list[str]:
    """The backends of a folder, by default all, sorted by name; none is imported."""
    return list(_find_own(kind, makes))


def tell(kind: Kind) -> dict[str, str]:
    """The backends of a folder and those that packages bring, by name, each with the first sentence of what it says it
    is, or with its package; none is imported."""
    own = {name: _say(files.says) for name, files in _find_own(kind).items()}
    others = {
        name: "of the package " + " and of ".join(f"{one.package} {one.version}" for one in bring)
        for name, bring in find_brought(kind).items()
    }
    return dict(sorted((others | own).items()))


@dataclass(frozen=True)
class _Files:
    """Of a backend, the file that says what it is and may be set to, and the one that makes it; mostly the same."""

    says: Path
    makes: Path


@cache
def _find_own(kind: Kind, makes: re.Pattern[str] = MAKES) -> dict[str, _Files]:
    """The backends of a folder by name, sorted."""
    folder = HOUSE.joinpath(*ROOMS.get(kind, kind).split("."))
    files = {file.stem: _Files(file, file) for file in folder.glob("[!_]*.py")}
    files |= {file.parent.name: _Files(file.with_name("__init__.py"), file) for file in folder.glob("*/build.py")}
    return {name: files[name] for name in sorted(files) if makes.search(files[name].makes.read_text(encoding="utf-8"))}


@cache
def _say(file: Path) -> str:
    """What a file says first that it is."""
    return first_sentence(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))))


def first_sentence(docstring: str | None) -> str:
    """What a docstring says first, on one line."""
    paragraph = " ".join((docstring or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[.]) ", paragraph)[0]


def load(kind: Kind, name: str) -> ModuleType:
    """The module that makes a backend. Raises UserError for an unknown name, listing those there are, and for one that
    is not the name of one backend alone."""
    return _load(kind, name, "makes")


def table(kind: Kind, name: str) -> type[Section]:
    """What may be set of a backend; of one that is a folder, nothing else is imported. Raises UserError as `load`."""
    model: type[Section] = _load(kind, name, "says").Settings
    return model


def _load(kind: Kind, name: str, part: Literal["says", "makes"]) -> ModuleType:
    own, others = _find_own(kind), find_brought(kind)
    bring = others.get(name, [])
    packages = " and ".join(one.package for one in bring)
    if bring and name in own:
        raise UserError(f"{kind[:-1]} = {name}: is built in, and {packages} brings another of that name; uninstall it")
    if len(bring) > 1:
        raise UserError(f"{kind[:-1]} = {name}: {packages} both bring one of that name; uninstall one of them")
    if bring:
        return bring[0].load()
    if name not in own:
        raise UserError(_say_unknown(kind, name, sorted({*own, *others})))
    file: Path = getattr(own[name], part)
    module = ".".join(["rewrite", *file.relative_to(HOUSE).with_suffix("").parts]).removesuffix(".__init__")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{kind[:-1]} = {name}: needs {error.name}; install it: pip install '{DISTRIBUTION}[{name}]'"
        ) from None


def _say_unknown(kind: Kind, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    given = "; if it was a class in Python, give the class again: rewrite.study(run=..., simulator=THE_CLASS)"
    return (
        f"{kind[:-1]} = {name}: no such {kind[:-1]}; {hint}there are: {', '.join(known) or 'none'}"
        f"{given if kind == 'simulators' and not near else ''}"
    )


def settings(kind: Kind, name: str, said: dict[str, Any]) -> Section:
    """The backend's own settings read from its config table. Raises UserError naming the key that does not fit."""
    model = table(kind, name)
    try:
        return model.model_validate(said)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join([kind, name, *(str(part) for part in fault["loc"])])
        if fault["type"] == "extra_forbidden":
            raise UserError(f"{key}: no such setting; there are: {', '.join(model.model_fields) or 'none'}") from None
        # What was written in place of a key's name may be the key; what does not go together has no name.
        shown = "" if not fault["loc"] or "key" in str(fault["loc"][-1]) else f", got {fault['input']!r}"
        raise UserError(f"{key}: {fault['msg'].removeprefix('Value error, ')}{shown}") from None


def check_tables(config: Config, given: Collection[str] | None = None) -> None:
    """Refuse, as `settings` does, what no backend may be set to, be it one that is chosen or not: all that a config
    says, or the keys that are given. Those that packages bring are looked at when they are asked."""
    for what in CHOSEN:
        kind: Kind = f"{what}s"  # type: ignore[assignment]
        for name, said in getattr(config, kind).items():
            named = given is None or any(key.startswith(f"{kind}.{name}") for key in given)
            if named and name not in find_brought(kind):
                settings(kind, name, said)


# --- what a config chooses --------------------------------------------------------------------------------------------


def chosen(what: Chosen, config: Config) -> Section:
    """The settings of the explainer, simulator, engine or executor that the config names. Raises UserError where there
    is none."""
    kind: Kind = f"{what}s"  # type: ignore[assignment]
    name: str = getattr(config, what)
    return settings(kind, name, getattr(config, kind).get(name, {}))


def identify(what: Chosen, config: Config) -> str:
    """The name of the explainer, simulator, engine or executor that the config chooses, with its version where it says
    one, and with package and version where one brings it: another version may give other results."""
    kind: Kind = f"{what}s"  # type: ignore[assignment]
    name: str = getattr(config, what)
    version: int = getattr(table(kind, name), "version", 1)
    own = [f"version {version}"] if version > 1 else []
    return " ".join([name, *own, *(f"{one.package} {one.version}" for one in find_brought(kind).get(name, []))])


def packages(config: Config) -> dict[str, str]:
    """The packages that bring what the config chooses, each with its version."""
    bring = [one for what in CHOSEN for one in find_brought(f"{what}s").get(getattr(config, what), [])]
    return {one.package: one.version for one in bring}


def asked_model(role: Role, config: Config) -> str | None:
    """The language model that is asked in a role, empty where it is not set; None where none is asked."""
    if role == "score":
        return config.score.model if config.score.scorers else None
    if role == "explainer" and config.explain.file:
        return None
    model: str | None = getattr(chosen(role, config), "model", None)
    return model


def learns(config: Config) -> bool:
    """Whether the simulator is one that is tuned on the run's own explanations."""
    return bool(getattr(chosen("simulator", config), "learns", False))


def model_key(role: Role, config: Config) -> str:
    """The key of the config that names the language model of a role."""
    return "score.model" if role == "score" else f"{role}s.{getattr(config, role)}.model"
