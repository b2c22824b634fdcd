"""The stages in order: what each reads, what it writes, and what its result depends on.

    train → collect → explain → (tune →) simulate → score → evaluate → cost (→ diagnose) → analyse → report

`rewrite.run.runner` runs them. A stage is the file of its name here: `run(config, run)` reads artefacts of the run
folder and writes its own; one that may ask a language model also has `plan(config, run, awaited)`, which only counts;
`awaited` names the stages before it that are only planned too. `--help` and `status` read this table: neither it nor
what it imports takes an array library, and a stage's own file is imported where it runs.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rewrite.config import Config, UserError
from rewrite.engines.fingerprints import check_tunes, fingerprint_asked, fingerprint_model
from rewrite.engines.ledger import check_prices
from rewrite.run import plugins
from rewrite.run.files import hash_source, hash_value, on_hub, once
from rewrite.run.freshness import Asks, Stage
from rewrite.simulators.layout import layout
from rewrite.text.sources import fingerprint_corpus

# --- what lies outside a run folder -----------------------------------------------------------------------------------


def subject(config: Config) -> str:
    return once((config.subject, config.revision), lambda: hash_source(config.subject, config.revision))


def corpus(config: Config) -> str:
    return once(config.corpus, lambda: fingerprint_corpus(config.corpus))


def given_coder(config: Config) -> str:
    return hash_source(config.coder.path, config.coder.revision)


def given_task(config: Config) -> str:
    return hash_source(config.diagnose.task)


def check_task(config: Config) -> None:
    """Refuse a task that is not there before anything is computed for it."""
    task = config.diagnose.task
    if task and task != "laundry" and not Path(task).is_file():
        raise UserError(f"diagnose.task = {task}: no such file; name a JSONL file, or `laundry`")


def given_explanations(config: Config) -> str:
    return hash_source(config.explain.file)


def chosen_by(config: Config) -> str:
    """Where an explainer chooses among several explanations: the simulator that tries them."""
    if config.explain.file or not getattr(plugins.chosen("explainer", config), "tries_out", False):
        return ""
    model = plugins.asked_model("simulator", config)
    simulator = plugins.chosen("simulator", config).model_dump(mode="json")
    return hash_value([plugins.identify("simulator", config), simulator, ask_reader(model, config) if model else None])


def learned_from(config: Config) -> list[int]:
    """How many more latents are explained for a reader to learn from, and by which draw."""
    return [config.tune.latents, config.tune.seed] if plugins.learns(config) else []


def also_explained(config: Config) -> str:
    """What else explanations depend on: who chooses among them, and who learns from them."""
    learned, chosen = learned_from(config), chosen_by(config)
    return hash_value([chosen, learned]) if learned else chosen


def ask_adapted(role: plugins.Chosen, model: str, config: Config) -> list[object]:
    """What the answers of an explainer or a simulator depend on: as for any language model, and the adapter that it is
    given."""
    adapter: str = getattr(plugins.chosen(role, config), "adapter", "")
    return fingerprint_asked(model, config) + ([fingerprint_model(adapter)] if adapter else [])


ask_reader = partial(ask_adapted, "simulator")
ask_explainer = partial(ask_adapted, "explainer")


def taught(config: Config) -> str:
    """What a reader learns by: the simulator, but for those of its settings that only matter when it reads."""
    if not plugins.learns(config):
        return ""
    settings = plugins.chosen("simulator", config)
    reading: frozenset[str] = getattr(settings, "reading", frozenset())
    learned = {key: value for key, value in settings.model_dump(mode="json").items() if key not in reading}
    return hash_value([plugins.identify("simulator", config), learned])


def ask_learner(model: str, config: Config) -> list[object]:
    """What learning depends on beside that: the model and, where the run's engine tunes it, that engine, the prompt."""
    if not getattr(plugins.chosen("simulator", config), "on_engine", False):
        return [fingerprint_model(model)]
    return [*fingerprint_asked(model, config)[:-1], layout()]


def check_given(config: Config) -> None:
    """Raise UserError where a coder or explanations are named that are not there."""
    for key, path in (("coder.path", config.coder.path), ("explain.file", config.explain.file)):
        if path and not Path(path).exists() and not (key == "coder.path" and on_hub(path)):
            raise UserError(f"{key} = {path}: not there; name a file or folder that is")


def check_tuned(config: Config) -> None:
    """Raise UserError where a reader is to be tuned, or read with, that this run cannot."""
    if getattr(plugins.chosen("simulator", config), "on_engine", False):
        check_tunes(config.engine)
        if plugins.learns(config) and not (config.tune.tokens or config.tune.minutes):
            raise UserError("tune.tokens and tune.minutes are both 0: tuning would never end; set one")
    if plugins.learns(config) and chosen_by(config):
        raise UserError(
            "explainers.llm.candidates, rounds: who would choose is tuned on what is chosen; tune without them, and "
            "let the reader choose in a run of its own with simulators.llm.adapter"
        )


# --- the stages -------------------------------------------------------------------------------------------------------

SUBJECT = ("hookpoint", "dtype", "device")

STAGES = (
    Stage(
        "train",
        reads=(),
        writes=("1_coder",),
        keys=(*SUBJECT, "corpus", "coder"),
        by_content=("corpus.source", "coder.path"),
        outside=(subject, corpus, given_coder),
        refuse=(check_given,),
    ),
    Stage(
        "collect",
        reads=("1_coder",),
        writes=("2_activations",),
        keys=(*SUBJECT, "corpus", "collect"),
        by_content=("corpus.source",),
        outside=(subject, corpus),
        version=2,
        across=("hookpoint",),
        notes=("corpus",),
    ),
    Stage(
        "explain",
        reads=("2_activations",),
        writes=("3_explanations.jsonl",),
        keys=("explainer", "explainers", "sample.latents", "sample.seed"),
        outside=(given_explanations, also_explained),
        asks=Asks("explainer", ask_explainer),
        refuse=(check_prices,),
    ),
    Stage(
        "tune",
        reads=("2_activations", "3_explanations.jsonl"),
        writes=("4_reader",),
        keys=("sample.latents", "sample.seed", "tune"),
        outside=(taught,),
        asks=Asks("simulator", ask_learner),
        refuse=(check_tuned,),
        only=plugins.learns,
        unless="set simulators.llm.tune = true for a simulator that learns to read",
    ),
    Stage(
        "simulate",
        reads=("2_activations", "3_explanations.jsonl", "4_reader"),
        writes=("4_simulations",),
        keys=("simulator", "simulators", "sample"),
        asks=Asks("simulator", ask_reader),
        version=2,
    ),
    Stage(
        "score",
        reads=("2_activations", "3_explanations.jsonl", "4_simulations"),
        writes=("4_scores.parquet",),
        keys=("score", "analyse.alpha"),
        asks=Asks("score", fingerprint_asked),
        version=3,
    ),
    Stage(
        "evaluate",
        reads=("1_coder", "2_activations", "4_simulations", "4_scores.parquet"),
        writes=("5_latents.parquet", "5_calibration.safetensors", "5_losses.parquet", "5_places.parquet"),
        keys=(*SUBJECT, "calibrator", "evaluate"),
        outside=(subject,),
        version=5,
    ),
    Stage(
        "cost",
        reads=("1_coder", "2_activations", "4_simulations", "4_scores.parquet"),
        writes=("5_costs.parquet", "5_costs.json"),
        keys=(*SUBJECT, "calibrator", "evaluate.missing", "cost", "analyse.alpha"),
        outside=(subject,),
        version=2,
    ),
    Stage(
        "diagnose",
        reads=(*("1_coder", "2_activations", "3_explanations.jsonl", "4_reader", "4_simulations", "5_costs.parquet"),),
        writes=("5_heads.parquet", "5_diagnosis.json"),
        keys=(*SUBJECT, "calibrator", "evaluate.missing", "diagnose", "analyse.alpha"),
        outside=(subject, given_task),
        refuse=(check_task,),
        version=3,
        only=lambda config: config.diagnose.documents > 0,
        unless="set diagnose.documents to take apart what a rewrite costs",
    ),
    Stage(
        "analyse",
        reads=("5_latents.parquet", "5_calibration.safetensors", "5_losses.parquet", "5_places.parquet"),
        writes=("6_stats.json",),
        keys=("analyse",),
        version=7,
    ),
    Stage(
        "report",
        reads=(
            *("1_coder", "2_activations", "3_explanations.jsonl", "4_reader", "4_simulations", "4_scores.parquet"),
            *("5_latents.parquet", "5_calibration.safetensors", "5_costs.parquet", "5_costs.json"),
            *("5_heads.parquet", "5_diagnosis.json", "6_stats.json"),
        ),
        writes=("7_report",),
        keys=(
            *("subject", "hookpoint", "corpus", "sample", "coder", "explain", "explainer", "explainers", "simulator"),
            *("simulators", "tune", "engine", "calibrator", "score", "evaluate.missing", "diagnose"),
        ),
        by_content=("corpus.source", "coder.path"),
        version=10,
    ),
)
