"""What a stage's result depends on: where all of it is as it was, the result is fresh and the stage is skipped.

1. The parts of the config that the stage reads, with paths replaced by what they hold.
2. What lies outside the run folder: the subject, the corpus, a coder or explanations that are given.
3. Where a language model is asked: the model, the engine, its settings that change answers, the prompts.
4. The version of the package and of the stage's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rewrite import __version__, plugins
from rewrite.calibrate import CALIBRATORS
from rewrite.config import Config, UserError, list_keys
from rewrite.corpus import fingerprint_corpus
from rewrite.encoding import fingerprint_model
from rewrite.prompting import prompts_folder
from rewrite.store import hash_path, hash_value

Asks = Literal["", "explainer", "simulator", "score"]
NOT_KEYED = {"corpus": {"source"}, "coder": {"path"}}  # paths: what they hold counts, by hash
MODEL_KEYS = {"explainer": "explainers.llm.model", "simulator": "simulators.llm.model", "score": "score.model"}


@dataclass(frozen=True)
class Stage:
    """One stage; `version` rises when its code gives other results for the same input.

    `keys` are the parts of the config that it depends on, `outside` what lies outside the run folder, `asks` whether a
    language model may be asked: by the explainer or simulator that the config names, or by the scorers.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    keys: tuple[str, ...]
    outside: tuple[str, ...] = ()
    asks: Asks = ""
    version: int = 1


def hash_outside(config: Config) -> dict[str, str]:
    """What lies outside the run folder, by name, as it is now."""
    return {
        "subject": _hash_source(config.subject, config.revision),
        "corpus": fingerprint_corpus(config.corpus),
        "coder.path": _hash_source(config.coder.path),
        "explain.file": _hash_source(config.explain.file),
    }


def check(stages: Sequence[Stage], config: Config) -> None:
    """Refuse what does not exist before any work is done: backends and their settings, calibrators, files."""
    plugins.settings("explainers", config.explainer, config.explainers.get(config.explainer, {}))
    plugins.settings("simulators", config.simulator, config.simulators.get(config.simulator, {}))
    plugins.settings("engines", config.engine, config.engines.get(config.engine, {}))
    for stage in stages:
        if asked_model(stage.asks, config) == "":
            raise UserError(f"{MODEL_KEYS[stage.asks]}: not set; name a language model, a folder or a hub name")
    if config.calls.max_cost and not (config.calls.price_in or config.calls.price_out):
        raise UserError("calls.max_cost: no price is set, so no cost is known; set calls.price_in and calls.price_out")
    if config.calibrator not in CALIBRATORS:
        raise UserError(f"calibrator = {config.calibrator}: no such calibrator; there are: {', '.join(CALIBRATORS)}")
    for key, path in (("coder.path", config.coder.path), ("explain.file", config.explain.file)):
        if path and not Path(path).exists():
            raise UserError(f"{key} = {path}: not there; name a file or folder that is")


def asked_model(asks: Asks, config: Config) -> str | None:
    """The language model that is asked in a role, empty where it is not set; None where none is asked."""
    if asks == "score":
        return config.score.model if config.score.scorers else None
    if not asks or (asks == "explainer" and config.explain.file):
        return None
    if asks == "explainer":
        settings = plugins.settings("explainers", config.explainer, config.explainers.get(config.explainer, {}))
    else:
        settings = plugins.settings("simulators", config.simulator, config.simulators.get(config.simulator, {}))
    model: str | None = getattr(settings, "model", None)
    return model


def stage_key(stage: Stage, config: Config, outside: dict[str, str]) -> str:
    """Hash of everything but artefacts that a stage's result depends on."""
    resolved = config.model_dump(mode="json")
    part = {k: _without(_find(resolved, k), NOT_KEYED.get(k, set())) for k in stage.keys}
    asked = asked_model(stage.asks, config)
    language = [] if asked is None else [fingerprint_model(asked), *_engine_key(config), hash_path(prompts_folder())]
    return hash_value([__version__, stage.version, part, [outside[name] for name in stage.outside], language])


def _engine_key(config: Config) -> list[object]:
    """The engine and those of its settings that change what it answers."""
    settings = plugins.settings("engines", config.engine, config.engines.get(config.engine, {}))
    operational: frozenset[str] = getattr(settings, "operational", frozenset())
    return [config.engine, _without(settings.model_dump(mode="json"), set(operational))]


def _find(tree: Any, key: str) -> Any:
    for name in key.split("."):
        tree = tree[name]
    return tree


def _without(value: object, names: set[str]) -> object:
    return {k: v for k, v in value.items() if k not in names} if isinstance(value, dict) else value


def _hash_source(source: str | None, revision: str = "") -> str:
    """The content's hash where the source is on disk, else the hub's name and revision."""
    if not source:
        return ""
    return hash_path(Path(source)) if Path(source).exists() else f"{source}@{revision}"


def backend_keys() -> dict[str, tuple[str, str]]:
    """The settings of every explainer, simulator and engine, as `rewrite.config.list_keys` gives the others."""
    keys: dict[str, tuple[str, str]] = {}
    kinds: tuple[plugins.Kind, ...] = ("explainers", "simulators", "engines")
    for kind in kinds:
        for name in plugins.names(kind):
            keys |= list_keys(plugins.load(kind, name).Settings, f"{kind}.{name}.")
    return keys
