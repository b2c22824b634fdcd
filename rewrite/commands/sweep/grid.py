"""A grid of settings becomes points: every combination is a config, and a run folder that is named after it.

1. The keys that vary stand in the config's `[sweep.grid]`, in `--grid`, or in both: `--grid` takes the place of a key's
   values in the file. Values are written as for `--set`, with commas between them.
2. A point's config is the file with `--set` and its own values, checked as any other; it has no `[sweep]`, so that the
   run stands by itself.
3. A value that stands twice, and two points that are the same run, are refused.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rewrite.config import Config, SweepConfig, UserError
from rewrite.display.escaping import public
from rewrite.run.configs import Given, load_config, parse_value
from rewrite.run.files import flatten, hash_value

OWN = ("sweep", "executor", "executors", "calls")
"""Tables and keys that say how runs are made, not what they are."""
LONGEST = 40
"""Of a value in a folder's name [characters]."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep: the name of its folder, what its config has of the grid, and that config."""

    name: str
    values: dict[str, Any]
    config: Config


@dataclass(frozen=True)
class Axis:
    """A key that varies, its values, and where it was said."""

    key: str
    values: list[Any]
    said: str
    near: bool
    """Relative paths are from the working folder; else from the config file's."""


def read_points(
    file: Path | None, overrides: Sequence[str], grids: Sequence[str], preset: str = ""
) -> tuple[Config, list[Point]]:
    """The config with the settings of the sweep itself, and its points. Raises UserError, in one line, for a grid that
    is empty or that says a key or a value twice, and for a point whose config does not fit."""
    base = load_config(file, overrides, preset)
    axes = _read_axes(base, f"{file or 'default.toml'}: sweep.grid", grids)
    points: dict[str, Point] = {}
    same: dict[str, str] = {}
    for values in product(*(axis.values for axis in axes)):
        pairs = list(zip(axes, values, strict=True))
        given = [Given(axis.key, value, f"{axis.said} ({axis.key}={value})", axis.near) for axis, value in pairs]
        config = load_config(file, [*overrides, *given], preset)
        config = config.model_copy(update={"sweep": SweepConfig(), "executor": "local", "executors": {}})
        name = _name({axis.key: value for axis, value in pairs}, points)
        twin = same.setdefault(hash_value(config.model_dump(mode="json")), name)
        if twin != name:
            raise UserError(f"{axes[0].said}: {twin} and {name} are the same run; leave one of them out")
        points[name] = Point(name, {axis.key: value for axis, value in pairs}, config)
    return base, list(points.values())


def _read_axes(base: Config, said: str, grids: Sequence[str]) -> list[Axis]:
    """The keys that vary, those of the file first."""
    found = {key: Axis(key, values, f"{said}.{key}", False) for key, values in flatten(base.sweep.grid).items()}
    own: dict[str, Axis] = {}
    for grid in grids:
        key, separator, text = grid.partition("=")
        if not separator or not key:
            raise UserError(f"--grid {grid}: write it as KEY=a,b, as in --grid coder.seed=0,1,2")
        if key in own:
            raise UserError(f"--grid {grid}: {key} stands there twice; give all its values at once")
        own[key] = Axis(key, _split(text), f"--grid {grid}", True)
    axes = list((found | own).values())
    if not axes:
        raise UserError("sweep: no grid; say what varies, as in --grid coder.seed=0,1,2, or in [sweep.grid]")
    for axis in axes:
        _check(axis)
    return axes


def _split(text: str) -> list[Any]:
    """Values with commas between them: those of a TOML list where they are that, else each by itself."""
    try:
        values: list[Any] = tomllib.loads(f"values = [{text}]")["values"]
        return values if text.strip() and not text.strip().endswith(",") else [""]
    except tomllib.TOMLDecodeError:
        return [parse_value(part.strip()) for part in text.split(",")]


def _check(axis: Axis) -> None:
    if axis.key.partition(".")[0] in OWN:
        raise UserError(f"{axis.said}: {axis.key} says how runs are made, so it cannot vary between them; use --set")
    if not isinstance(axis.values, list) or not axis.values:
        raise UserError(f"{axis.said}: no list of values; write one, as in [0, 1, 2]")
    if any(value == "" for value in axis.values):
        raise UserError(f"{axis.said}: an empty value; write a value between any two commas")
    told = [json.dumps(value, default=str) for value in axis.values]
    twice = next((value for value in told if told.count(value) > 1), None)
    if twice is not None:
        raise UserError(f"{axis.said}: {twice} stands there twice; leave one out")


def _name(values: dict[str, Any], taken: dict[str, Point]) -> str:
    """A folder's name: `hookpoint=layers.0.mlp,coder.seed=1`, with a hash where that is long or not its own."""
    parts = {key: re.sub(r"[^\w.+-]+", "-", _tell(value)).strip("-") for key, value in values.items()}
    name = ",".join(f"{key}={part[:LONGEST]}" for key, part in parts.items())
    if name in taken or len(name) > 200 or any(len(part) > LONGEST for part in parts.values()):
        name = f"{name[:180]},{hash_value(values)[:8]}"
    return name


def _tell(value: Any) -> str:
    return public(value) if isinstance(value, str) else json.dumps(value)
