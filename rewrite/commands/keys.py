"""What the config may say, by topic: a table's keys with their units and defaults, and a config to start from.

A topic is a table of the config, `general` for the keys outside any table, or the table of one backend. No library that
does the work is imported, and of the backends only those whose keys are told.
"""

from __future__ import annotations

import difflib
import json
import textwrap
from dataclasses import dataclass
from types import UnionType
from typing import Literal, Union, get_args, get_origin

from rewrite.config import Config, Section, UserError
from rewrite.run import plugins
from rewrite.run.brought import find_brought
from rewrite.run.configs import KINDS, list_fields, list_keys, load_config
from rewrite.run.files import flatten

GENERAL = "general"
WIDTH = 100
LISTED = "`rewrite help TOPIC` tells the keys of a table, `rewrite config` writes a config to start from:"
ELSEWHERE = "Screens: `rewrite help simulators.llm.screen`. Scorers: `rewrite help score.scorers`."
HEAD = """\
# Every key as the bundled config has it. `rewrite run --config THIS_FILE --run FOLDER` runs it.
# A line that begins with # and no space sets nothing: take its # away, complete it where it ends in =, and it does.
"""


@dataclass(frozen=True)
class Key:
    """A key of the config with its values as TOML writes them; None where nothing is set."""

    text: str
    default: str | None
    bundled: str | None
    """What the bundled config says; the default where it says nothing."""


def topics() -> dict[str, str]:
    """Every topic with a line on it; no backend is imported."""
    tables = {GENERAL: Config} | {
        name: type(field.default) for name, field in Config.model_fields.items() if isinstance(field.default, Section)
    }
    told = {name: plugins.first_sentence(model.__doc__) for name, model in tables.items()}
    return told | {f"{kind}.{name}": line for kind in KINDS for name, line in plugins.tell(kind).items()}


def list_topics() -> str:
    """All topics, a line each."""
    lines = [LISTED]
    for name, line in topics().items():
        lines += textwrap.wrap(f"{name:<24}{line}", WIDTH + 18, initial_indent="  ", subsequent_indent=" " * 26)
    return "\n".join([*lines, ELSEWHERE])


def tell_keys(topic: str) -> str:
    """The keys of a topic with help, unit and default. Raises UserError for what is none, with those near it."""
    known, lines = topics(), []
    for table, keys in _find(topic).items():
        lines.append(f"{table}: {known[table]}" if keys else f"{table}: {known[table]} It has no settings.")
        for key, told in keys.items():
            other = f"   (the bundled config: {told.bundled})" if told.bundled != told.default else ""
            lines.append(f"  {key} = {told.default}{other}" if told.default is not None else f"  {key}   (not set)")
            lines += textwrap.wrap(told.text, WIDTH, initial_indent="      ", subsequent_indent="      ")
    lines += [f"{name}: {told}" for name, told in _brought(topic).items()]
    return "\n".join(lines)


def write_config(topic: str = "") -> str:
    """The bundled config as commented TOML that says every key; of one topic, its tables alone.

    In the whole, the backends' tables are there to be switched on: a config without them says the same.
    """
    known = topics()
    if topic:
        parts = [_write_table(table, known[table], keys) for table, keys in _find(topic).items()]
    else:
        others = _brought()
        own = {table: told for table, told in known.items() if table not in others}
        switched = {table: "#" if table.partition(".")[0] in KINDS else "" for table in own}
        parts = [HEAD, *(_write_table(table, told, _read_keys(table), switched[table]) for table, told in own.items())]
    return "\n".join([*parts, *(f"# `rewrite config {name}`: {told}" for name, told in _brought(topic).items())])


def _write_table(table: str, says: str, keys: dict[str, Key], off: str = "") -> str:
    lines = [*_comment(says), "" if table == GENERAL else f"{off}[{table}]"]
    for key, told in keys.items():
        lines += _comment(told.text)
        if told.bundled != told.default:
            lines.append(f"# Without this line it is {told.default}.")
        name = key.rpartition(".")[2]
        lines.append(f"#{name} =" if told.bundled is None else f"{off}{name} = {told.bundled}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH + 18, initial_indent="# ", subsequent_indent="# ")


def _find(topic: str) -> dict[str, dict[str, Key]]:
    """The tables that a topic names, with their keys; of one key, its table with that alone."""
    known = topics()
    others = _brought(topic)
    named = [name for name in known if name == topic or (name.startswith(f"{topic}.") and name not in others)]
    if named:
        return {name: _read_keys(name) for name in named}
    table = topic.rpartition(".")[0] or GENERAL
    keys = _read_keys(table) if table in known else {}
    if topic in keys:
        return {table: {topic: keys[topic]}}
    every = list(dict.fromkeys([*known, *list_keys(), *keys]))
    ends = [name for name in every if name.endswith(f".{topic}")]
    near = ends or difflib.get_close_matches(topic, every, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else "`rewrite help` lists them"
    raise UserError(f"{topic}: no such topic; {hint}")


def _brought(kind: str = "") -> dict[str, str]:
    """The topics that packages bring, of one kind of backend or of all: told only where one is asked for by name."""
    kinds = [one for one in KINDS if one == kind or not kind]
    names = [f"{one}.{other}" for one in kinds for other in find_brought(one)]
    known = topics() if names else {}
    return {name: known[name] for name in names}


def _read_keys(table: str) -> dict[str, Key]:
    """The keys of one table, which is a topic, in the order of the file."""
    kinds = [kind for kind in KINDS if table.startswith(f"{kind}.")]
    model, prefix = (plugins.table(kinds[0], table.partition(".")[2]), f"{table}.") if kinds else (Config, "")
    found = list_keys(model, prefix)
    if table == GENERAL:
        found = {key: told for key, told in found.items() if "." not in key and key not in KINDS}
    else:
        found = {key: told for key, told in found.items() if key.startswith(f"{table}.")}
    fields = list_fields(model, prefix)
    said = flatten(load_config().model_dump(mode="json"))
    return {
        key: _read_key(" ".join(filter(None, (text, _tell_names(fields[key].annotation)))), default, said.get(key))
        for key, (text, default) in found.items()
    }


def _read_key(text: str, default: str, said: object) -> Key:
    # A default that is a relative path names what is bundled, which lies somewhere else on every machine.
    if default == "none" or default.startswith('"..'):
        return Key(text, None, None)
    return Key(text, default, default if said is None or said == json.loads(default) else json.dumps(said))


def _tell_names(kind: object) -> str:
    """The names that a value of this type is taken from, in a sentence; empty where it is from none."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    closed = [part for part in parts if _list_names(part)]
    if not closed:
        return ""
    several = any(get_origin(part) in (tuple, list) for part in closed)
    free = any(part is not type(None) and part not in closed for part in parts)
    begin = "By name:" if free else "Any of" if several else "One of"
    return f"{begin} {', '.join(_list_names(kind))}."


def _list_names(kind: object) -> list[str]:
    """All names in a type, or in those that it is made of."""
    if get_origin(kind) is Literal:
        return [str(name) for name in get_args(kind)]
    return [name for part in get_args(kind) for name in _list_names(part)]
