"""Backends are files: a name in the config is a module in `explainers/`, `simulators/` or `engines/`, and the name of a
form of `rewrite export` is one in `exports/`.

A backend module holds a `Settings` table (a `rewrite.config.Section`) and a `build` function whose arguments its
folder's `base.py` documents. Nothing else lists backends, so adding one is adding a file.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import ValidationError

from rewrite.config import Section, UserError

Kind = Literal["explainers", "simulators", "engines", "exports"]


def names(kind: Kind) -> list[str]:
    """The backends of a folder, sorted by name."""
    folder = Path(__file__).parent / kind
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]) if module.name != "base")


def load(kind: Kind, name: str) -> ModuleType:
    """The backend's module. Raises UserError for an unknown name, listing those there are."""
    known = names(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"{kind[:-1]} = {name}: no such {kind[:-1]}; {hint}there are: {', '.join(known) or 'none'}")
    try:
        return importlib.import_module(f"rewrite.{kind}.{name}")
    except ModuleNotFoundError as error:
        raise UserError(
            f"{kind[:-1]} = {name}: needs {error.name}; install it: pip install 'rewrite[{name}]'"
        ) from None


def settings(kind: Kind, name: str, table: dict[str, Any]) -> Section:
    """The backend's own settings read from its config table. Raises UserError naming the key that does not fit."""
    model: type[Section] = load(kind, name).Settings
    try:
        return model.model_validate(table)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join([kind, name, *(str(part) for part in fault["loc"])])
        if fault["type"] == "extra_forbidden":
            raise UserError(f"{key}: no such setting; there are: {', '.join(model.model_fields) or 'none'}") from None
        # What was written in place of a key's name may be the key.
        shown = "" if "key" in str(fault["loc"][-1]) else f", got {fault['input']!r}"
        raise UserError(f"{key}: {fault['msg'].removeprefix('Value error, ')}{shown}") from None
