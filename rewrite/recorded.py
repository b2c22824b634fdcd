"""The config that a run folder records: what a run goes on with where no other is named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rewrite.config import Config, UserError

Row = dict[str, Any]


@dataclass(frozen=True)
class Recorded:
    """A run's own config, and the keys of it that this version does not know and leaves out."""

    config: Config
    unknown: tuple[str, ...]

    def describe_unknown(self) -> str:
        """What is left out, in a sentence; empty where nothing is."""
        keys = ", ".join(self.unknown)
        return f"Keys of its config that this version does not know: {keys}." if keys else ""


def read_recorded(path: Path, manifest: Row) -> Recorded:
    """The config in a manifest. Raises UserError, naming the file at `path`, where there is none or it does not fit."""
    tree = manifest.get("config")
    if not isinstance(tree, dict):
        raise UserError(f"{path}: says no config; name the run's own with --config")
    tree = json.loads(json.dumps(tree))
    try:
        unknown = _take_unknown(tree)
        return Recorded(Config.model_validate(tree), tuple(unknown))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise UserError(
            f"{path}: config.{key}: {fault['msg'].lower()}; name the run's own config with --config"
        ) from None


def _take_unknown(tree: Row) -> list[str]:
    """Take keys that are not known out of a config; their names."""
    try:
        Config.model_validate(tree)
    except ValidationError as error:
        found = [fault["loc"] for fault in error.errors() if fault["type"] == "extra_forbidden"]
    else:
        found = []
    for *tables, last in found:
        place: Any = tree
        for name in tables:
            place = place[name]
        del place[last]
    return sorted(".".join(map(str, loc)) for loc in found)
