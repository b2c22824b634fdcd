"""When a stage runs again: unless all that its result depends on is as it was, which `stage_keys` hashes.

1. The parts of the config that the stage reads (`keys` in its row of `rewrite.stages.STAGES`), with paths replaced by
   what they hold.
2. What lies outside the run folder: the stage says how to know it (`Stage.outside`).
3. Where a language model is asked: what its answers depend on, which the stage says too (`Asks`).
4. The version of the package, and that of the stage, which whoever changes what its code gives must raise.

The runner compares these keys, and the hashes of the artefacts that a stage reads, with what the manifest says of each
artefact that it writes (`rewrite.run.store`); one that is not there is made, one that was changed by hand is refused. A
stage that is fresh runs again all the same where requests failed that may not fail again (`ask_again`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rewrite import __version__
from rewrite.config import Config, UserError
from rewrite.run import plugins
from rewrite.run.files import hash_value

Fingerprint = Callable[[Config], str]
"""Changes when something outside the run folder does."""


@dataclass(frozen=True)
class Asks:
    """In which role a stage may ask a language model, and what the answers of one depend on."""

    role: plugins.Role
    fingerprint: Callable[[str, Config], list[object]]


@dataclass(frozen=True)
class Stage:
    """One stage; `version` rises when its code gives other results for the same input."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    keys: tuple[str, ...]
    """The parts of the config that it depends on."""
    by_content: tuple[str, ...] = ()
    """Those of them that are paths and count by what they hold, which `outside` knows."""
    outside: tuple[Fingerprint, ...] = ()
    asks: Asks | None = None
    refuse: tuple[Callable[[Config], None], ...] = ()
    """Checks that raise UserError for what cannot be, before any stage has done any work."""
    version: int = 1
    only: Callable[[Config], bool] | None = None
    """Whether a run has this stage at all; None is always."""
    across: tuple[str, ...] = ()
    """Keys in which runs may differ that its module makes at once (`run_together`); none where it has no such way."""
    notes: tuple[str, ...] = ()
    """What it says of its inputs in the manifest, beside its artefacts (`Run.note`)."""
    unless: str = ""
    """What makes a run have it, for who asks for it in vain."""


def wanted(stages: Sequence[Stage], config: Config) -> tuple[Stage, ...]:
    """The stages that a run with this config has; none reads what no stage writes."""
    kept = [stage for stage in stages if stage.only is None or stage.only(config)]
    written = {artefact for stage in kept for artefact in stage.writes}
    return tuple(replace(stage, reads=tuple(one for one in stage.reads if one in written)) for stage in kept)


UNANSWERED = "unanswered"
"""What an artefact's entry in the manifest says under this name: requests that failed, when it was made, for a reason
that may pass."""


def ask_again(manifest: Mapping[str, Any], stage: Stage) -> str | None:
    """Why a stage that is fresh by its key asks again what failed, or None: faults are not results."""
    entries = [manifest["artefacts"].get(artefact, {}) for artefact in stage.writes] if stage.asks else []
    failed = max((entry.get(UNANSWERED, 0) for entry in entries), default=0)
    return f"{failed:,} requests failed for a reason that may have passed" if failed else None


def check(stages: Sequence[Stage], config: Config) -> None:
    """Refuse what does not exist before any work is done: backends and their settings, models, what stages name."""
    for what in plugins.CHOSEN:
        plugins.chosen(what, config)
    for stage in stages:
        if stage.asks and plugins.asked_model(stage.asks.role, config) == "":
            key = plugins.model_key(stage.asks.role, config)
            raise UserError(f"{key}: not set; name a language model, a folder or a hub name")
    for stage in stages:
        for refuse in stage.refuse:
            refuse(config)


def stage_keys(stages: Sequence[Stage], config: Config) -> dict[str, str]:
    """By stage, the hash of everything but artefacts that its result depends on."""
    resolved = config.model_dump(mode="json") | {what: plugins.identify(what, config) for what in plugins.CHOSEN}
    # What is set of a backend that nobody asks changes nothing.
    own = {f"{what}s": getattr(config, what) for what in plugins.CHOSEN}
    resolved |= {kind: {name: resolved[kind][name] for name in resolved[kind] if name == own[kind]} for kind in own}
    outside = {find: find(config) for find in {find for stage in stages for find in stage.outside}}  # Each once.
    keys = {}
    for stage in stages:
        part = {key: _cut(key, _find(resolved, key), stage.by_content) for key in stage.keys}
        asked = plugins.asked_model(stage.asks.role, config) if stage.asks else None
        language = stage.asks.fingerprint(asked, config) if stage.asks and asked is not None else []
        found = [outside[find] for find in stage.outside]
        keys[stage.name] = hash_value([__version__, stage.version, part, found, language])
    return keys


def hash_together(stage: Stage, config: Config) -> str:
    """The same for all runs that the stage can make at once; `Stage.across` says in what they may differ."""
    blank = config.model_copy(update=dict.fromkeys(stage.across, ""))
    return hash_value([stage_keys((stage,), blank)[stage.name], config.batch])


def _find(tree: Any, key: str) -> Any:
    for name in key.split("."):
        tree = tree[name]
    return tree


def _cut(table: str, value: object, paths: Sequence[str]) -> object:
    """A table of the config without the paths in it."""
    return {k: v for k, v in value.items() if f"{table}.{k}" not in paths} if isinstance(value, dict) else value
