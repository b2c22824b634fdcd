"""A config is read: a TOML file and `key=value` overrides become one `Config`, or that of a run folder goes on.

Relative paths in a file are relative to that file; those in an override are relative to the working folder. A default
that names a place names one of those that are bundled, wherever the file lies.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from rewrite.config import Config, OnDisk, Section, UserError, Written
from rewrite.run import plugins
from rewrite.run.brought import Kind, find_brought
from rewrite.run.files import bundled, read_json
from rewrite.run.finished import SWEEP

Row = dict[str, Any]

KINDS: tuple[Kind, ...] = ("explainers", "simulators", "engines", "executors")


def data_folder() -> Path:
    """The folder with the bundled subject and configs: inside an installed package, or the checkout's own."""
    return bundled("data")


@dataclass(frozen=True)
class Given:
    """The value of a key that stands beside the file, and how it was said, for errors."""

    key: str
    value: Any
    said: str
    near: bool = True
    """A relative path is one from the working folder; else from the file's."""


Overrides = Sequence[str | Given] | Mapping[str, Any]
"""Settings that stand over a file: `key=value` as the command line says it, or values by key."""


def presets() -> list[str]:
    """The presets that there are."""
    return sorted(file.stem for file in (data_folder() / "configs" / "presets").glob("*.toml"))


def read_preset(name: str) -> Row:
    """What a preset sets. Raises UserError where there is none of that name."""
    if name not in presets():
        raise UserError(f"--preset {name}: no such preset; there are: {', '.join(presets())}")
    return _read_toml(data_folder() / "configs" / "presets" / f"{name}.toml")


def load_config(file: Path | None = None, overrides: Overrides | None = None, preset: str = "") -> Config:
    """Read `file` (the bundled default where none is given), lay a preset over it, and apply overrides in order.

    Raises UserError, in one line, for a file that is absent or not TOML, a preset that there is none of, and a key or
    value that does not fit.
    """
    file = file or data_folder() / "configs" / "default.toml"
    tree = _read_toml(file)
    if preset:
        _lay(tree, read_preset(preset))
    tree.setdefault("subject", str((data_folder() / "configs" / Config.model_fields["subject"].default).resolve()))
    return _settle(tree, overrides or [], file)


def change_config(config: Config, overrides: Overrides, preset: str = "") -> Config:
    """The same config with a preset and then overrides laid over it. Raises UserError, in one line, for a preset that
    there is none of and a key or value that does not fit."""
    tree = config.model_dump(mode="json")
    if preset:
        _lay(tree, read_preset(preset))
    return _settle(tree, overrides, None)


def _lay(tree: Row, over: Row) -> None:
    """Put the values of one tree over those of another."""
    for name, value in over.items():
        if isinstance(value, dict) and isinstance(tree.get(name), dict):
            _lay(tree[name], value)
        else:
            tree[name] = value


def choose_config(
    folder: Path, file: Path | None, overrides: Overrides, say: Callable[[str], None], preset: str = ""
) -> Config:
    """The config that is named; else the one that the run folder records, so that opening a report or going on with a
    run never makes it another; else the bundled one; a preset and overrides stand over any of them. `say` hears of
    recorded keys that are not known. Raises UserError for the folder of a sweep, and as `load_config` does."""
    manifest = folder / "manifest.json"
    if (folder / SWEEP).is_file():
        raise UserError(f"{folder}: is the folder of a sweep, whose runs are folders in it; its page is index.html")
    own = read_json(manifest) if manifest.is_file() else {}
    if file or not (isinstance(own, dict) and own.get("config")):
        return load_config(file, overrides, preset)
    recorded = read_recorded(manifest, own, overrides, preset)
    if recorded.unknown:
        say(f"{folder}: {recorded.describe_unknown()}")
    return recorded.config


def _settle(tree: Row, overrides: Overrides, file: Path | None) -> Config:
    """Overrides laid over what a file says, or a config whose places are absolute already, all of it checked."""
    given = {one.key: one for one in _read_overrides(overrides)}
    for one in given.values():
        _assign(tree, one)
    for place, written in _list_places(tree).items():
        near = place in given and given[place].near
        if near or file is not None:
            _anchor(tree, place, Path.cwd() if near or file is None else file.parent, written)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        said = {key: one.said for key, one in given.items()}
        raise UserError(_explain_error(error, file or "settings", said)) from None
    plugins.check_tables(config, None if file else given)
    return config


def _read_overrides(overrides: Overrides) -> list[Given]:
    """Each override's key and value, and how it was said."""
    if isinstance(overrides, Mapping):
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
        return [Given(key, value, f"{key} = {value!r}") for key, value in plain.items()]
    return [_read_override(override) if isinstance(override, str) else override for override in overrides]


def _read_override(override: str) -> Given:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set {override}: write it as key=value, as in --set coder.k=16")
    return Given(key, parse_value(text), f"--set {override}")


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such config file; name one with --config") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{file}: not readable as TOML: {error}") from None


def parse_value(text: str) -> Any:
    """A TOML value where the text is one (`16`, `true`, `[0.1, 1.0]`), else the text itself (`layers.2.mlp`)."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _assign(tree: dict[str, Any], given: Given) -> None:
    *tables, last = given.key.split(".")
    for table in tables:
        tree = tree.setdefault(table, {})
        if not isinstance(tree, dict):
            raise UserError(f"{given.said}: {table} is a value, not a table")
    tree[last] = given.value


def _list_places(tree: Row) -> dict[str, bool]:
    """The keys whose values may name something on disk, and whether that is a file that the run itself makes: the
    config's own, and those of the backends that have a table."""
    found = _places_of(Config)
    for kind in KINDS:
        tables = tree.get(kind)
        chosen, others = tree.get(kind[:-1]), find_brought(kind)
        for name in tables if isinstance(tables, dict) else ():
            if name in others and name != chosen:
                continue  # its package is not to be imported
            found |= _places_of(plugins.table(kind, name), f"{kind}.{name}.")
    return found


def _places_of(model: type[Section], prefix: str = "") -> dict[str, bool]:
    fields = list_fields(model, prefix)
    return {key: Written in field.metadata for key, field in fields.items() if OnDisk in field.metadata}


def _anchor(tree: dict[str, Any], path: str, folder: Path, written: bool) -> None:
    """Make a relative path absolute where it names something on disk, or what is to be `written` there; a hub name
    stays as it is."""
    *tables, last = path.split(".")
    for table in tables:
        tree = tree.get(table, {})
        if not isinstance(tree, dict):
            return
    value = tree.get(last)
    if isinstance(value, str) and value and (written or value.startswith(".") or (folder / value).exists()):
        tree[last] = str((folder / value).resolve())


def _explain_error(error: ValidationError, file: Path | str, sources: dict[str, str]) -> str:
    """The first fault in one line: where it stands, what is wrong, what is near."""
    known, faults = list_keys(), error.errors()
    key = _key_of(faults[0]["loc"], known)
    where = sources.get(key) or f"{file}: {key}"
    if faults[0]["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "`rewrite help` tells the keys there are"
        return f"{where}: no such key; {hint}"
    given = json.dumps(faults[0]["input"], default=str)
    if faults[0]["type"] == "tuple_type":
        return f"{where}: a list is needed, as in [{given}], got {given}"
    # Of a key that may be one of several sorts of value it is told what is wrong with it as each of them.
    same = dict.fromkeys(fault["msg"].lower() for fault in faults if _key_of(fault["loc"], known) == key)
    return f"{where}: {', or '.join(same)}, got {given}"


def _key_of(loc: tuple[int | str, ...], known: Collection[str]) -> str:
    """The key that a fault is of: of what it names the longest that is one."""
    names = [str(part) for part in loc if isinstance(part, str)]
    parts = [".".join(names[:n]) for n in range(len(names), 0, -1)]
    return next((part for part in parts if part in known), ".".join(names))


def list_fields(model: type[Section] = Config, prefix: str = "") -> dict[str, FieldInfo]:
    """Every key with what is known of it, in the order of the file."""
    fields: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.default, Section):
            fields |= list_fields(type(field.default), f"{prefix}{name}.")
        else:
            fields[prefix + name] = field
    return fields


def list_keys(model: type[Section] = Config, prefix: str = "") -> dict[str, tuple[str, str]]:
    """Every key with its help text and its default, in the order of the file: {key: (help, default)}."""
    keys: dict[str, tuple[str, str]] = {}
    for key, field in list_fields(model, prefix).items():
        default = field.get_default(call_default_factory=True)
        shown = json.dumps(default) if default is not None else "none"
        keys[key] = (" ".join((field.description or "").split()), shown)
    return keys


# --- the config that a run folder records -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """A run's own config, and the keys of it that this version does not know and leaves out."""

    config: Config
    unknown: tuple[str, ...]

    def describe_unknown(self) -> str:
        """What is left out, in a sentence; empty where nothing is."""
        keys = ", ".join(self.unknown)
        return f"Keys of its config that this version does not know: {keys}." if keys else ""


def read_recorded(path: Path, manifest: Row, overrides: Overrides = (), preset: str = "") -> Recorded:
    """The config in a manifest, a preset and overrides over it. Raises UserError, naming the file at `path`, where
    there is none or it does not fit, and as `change_config` does."""
    tree = manifest.get("config")
    if not isinstance(tree, dict):
        raise UserError(f"{path}: says no config; name the run's own with --config")
    tree = json.loads(json.dumps(tree))
    try:
        unknown = _take_unknown(tree)
        config = Config.model_validate(tree)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise UserError(
            f"{path}: config.{key}: {fault['msg'].lower()}; name the run's own config with --config"
        ) from None
    changed = change_config(config, overrides, preset) if overrides or preset else config
    return Recorded(changed, tuple(unknown))


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
