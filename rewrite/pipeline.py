"""The stages in order: what each reads, what it writes, and which part of the config it depends on.

    train → collect → explain → simulate → evaluate → analyse → report

`go` runs every stage up to the one asked for, skipping what is fresh. A stage's module is imported only when it runs,
so that a run with nothing to do does not wait for torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rewrite import __version__, plugins
from rewrite.calibrate import CALIBRATORS
from rewrite.config import Config, UserError, list_keys
from rewrite.corpus import fingerprint_corpus
from rewrite.store import Run, hash_path, hash_value, read_json

SUBJECT = ("hookpoint", "dtype", "device")
NOT_KEYED = {"corpus": {"source"}, "coder": {"path"}}  # paths: what they hold counts, by hash


@dataclass(frozen=True)
class Stage:
    """One stage; `version` rises when its code gives other results for the same input."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    keys: tuple[str, ...]
    outside: tuple[str, ...] = ()
    version: int = 1


STAGES = (
    Stage("train", (), ("1_coder",), (*SUBJECT, "corpus", "coder"), ("subject", "corpus", "coder.path")),
    Stage("collect", ("1_coder",), ("2_activations",), (*SUBJECT, "corpus", "collect"), ("subject", "corpus")),
    Stage("explain", ("2_activations",), ("3_explanations.jsonl",), ("explainer", "explainers"), ("explain.file",)),
    Stage(
        "simulate",
        ("2_activations", "3_explanations.jsonl"),
        ("4_simulations",),
        ("simulator", "simulators"),
    ),
    Stage(
        "evaluate",
        ("1_coder", "2_activations", "4_simulations"),
        ("5_latents.parquet", "5_losses.parquet"),
        (*SUBJECT, "calibrator", "evaluate", "simulate"),
        ("subject",),
    ),
    Stage("analyse", ("5_latents.parquet", "5_losses.parquet"), ("6_stats.json",), ("analyse",)),
    Stage(
        "report",
        ("1_coder", "3_explanations.jsonl", "5_latents.parquet", "6_stats.json"),
        ("7_report",),
        ("hookpoint", "explainer", "simulator", "calibrator"),
    ),
)


def go(config: Config, run: Run, last: str, say: Callable[[str], None]) -> None:
    """Run the stages up to `last`, skipping those whose artefacts are fresh; `say` hears what is done and why."""
    check(config)
    run.describe(config)
    outside = {
        "subject": _hash_source(config.subject, config.revision),
        "corpus": fingerprint_corpus(config.corpus),
        "coder.path": _hash_source(config.coder.path),
        "explain.file": _hash_source(config.explain.file),
    }
    for stage in STAGES:
        key = stage_key(stage, config, outside)
        reasons = [run.stale(artefact, key, stage.reads) for artefact in stage.writes]
        reason = next((r for r in reasons if r), None)
        if reason:
            say(f"{stage.name}: {reason}")
            run.begin(key, stage.reads)
            importlib.import_module(f"rewrite.stages.{stage.name}").run(config, run)
        if stage.name == last:
            return


def check(config: Config) -> None:
    """Refuse what does not exist before any work is done: backends and their settings, calibrators, files."""
    plugins.settings("explainers", config.explainer, config.explainers.get(config.explainer, {}))
    plugins.settings("simulators", config.simulator, config.simulators.get(config.simulator, {}))
    if config.calibrator not in CALIBRATORS:
        raise UserError(f"calibrator = {config.calibrator}: no such calibrator; there are: {', '.join(CALIBRATORS)}")
    for key, path in (("coder.path", config.coder.path), ("explain.file", config.explain.file)):
        if path and not Path(path).exists():
            raise UserError(f"{key} = {path}: not there; name a file or folder that is")


def stage_key(stage: Stage, config: Config, outside: dict[str, str]) -> str:
    """Hash of everything but artefacts that a stage's result depends on."""
    resolved = config.model_dump(mode="json")
    part = {k: _without(resolved[k], NOT_KEYED.get(k, set())) for k in stage.keys}
    return hash_value([__version__, stage.version, part, [outside[name] for name in stage.outside]])


def _without(value: object, names: set[str]) -> object:
    return {k: v for k, v in value.items() if k not in names} if isinstance(value, dict) else value


def _hash_source(source: str | None, revision: str = "") -> str:
    """The content's hash where the source is on disk, else the hub's name and revision."""
    if not source:
        return ""
    return hash_path(Path(source)) if Path(source).exists() else f"{source}@{revision}"


def backend_keys() -> dict[str, tuple[str, str]]:
    """The settings of every explainer and simulator, as `rewrite.config.list_keys` gives the others."""
    keys: dict[str, tuple[str, str]] = {}
    kinds: tuple[plugins.Kind, ...] = ("explainers", "simulators")
    for kind in kinds:
        for name in plugins.names(kind):
            keys |= list_keys(plugins.load(kind, name).Settings, f"{kind}.{name}.")
    return keys


def verdict(run: Run) -> str:
    """The verdict of a finished run and where its report is."""
    sentence: str = read_json(run.path("6_stats.json"))["verdict"]["sentence"]
    return f"{sentence}\nreport: {run.path('7_report') / 'report.md'}"
