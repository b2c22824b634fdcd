"""Tune: a reader learns, on the train split, what explanations say of a text.

The simulator that the config names is tuned once a fold (`rewrite.simulators.examples`), so that every rewritten latent
is read by a reader that has met neither its explanation nor its firings. A killed run goes on within the fold.

`4_reader` holds a folder a fold, `fold-0` and so on, each a reader by itself, and `folds.json`, which latent is read by
which.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from tqdm import tqdm

from rewrite.coder.activations import ActivationStore
from rewrite.coder.evidence import gather_evidence
from rewrite.config import Config
from rewrite.engines.base import Learner
from rewrite.engines.fingerprints import check_tunes
from rewrite.engines.ledger import Planned
from rewrite.explainers.explanations import load_explanations
from rewrite.run import plugins
from rewrite.run.files import write_json
from rewrite.run.store import Run
from rewrite.simulators.examples import Lessons
from rewrite.simulators.readers import FOLDS, name_fold
from rewrite.simulators.tuning import READER, Judged, tune
from rewrite.text.sampling import draw_latents


def run(config: Config, run: Run) -> None:
    """Write `4_reader`."""
    store = ActivationStore(run.path("2_activations"), ("train",))
    rewritten = draw_latents(config.sample, store.latents)
    explanations = load_explanations(run.path("3_explanations.jsonl"))
    # Lessons are drawn from any latent at any time: all that are explained are held.
    evidence = gather_evidence(store.train, [e.latent for e in explanations], at_once=None)
    lessons = Lessons(evidence, explanations, rewritten, config.tune)
    settings = plugins.chosen("simulator", config)
    module: Any = plugins.load("simulators", config.simulator)
    for fold in range(config.tune.folds):
        lessons.teachers(fold)  # Refused before any reader is tuned.
    with run.writing("4_reader", resumable=True) as folder:
        pupil = module.pupils(lessons, settings, config.tune, partial(open_learner, config))
        for fold in range(config.tune.folds):
            place = folder / name_fold(fold)
            if not (place / READER).exists():
                tune(pupil(), lessons, fold, place, _describe(config, run), partial(say, fold))
        write_json(folder / FOLDS, {"folds": {str(latent): fold for latent, fold in lessons.folds.items()}})


def plan(config: Config, run: Run, awaited: frozenset[str]) -> Planned:
    """Tuning asks nobody: the model is in this process."""
    return Planned()


def open_learner(config: Config, model: str) -> Learner:
    """The run's engine with a model that learns. Raises UserError for an engine that tunes none."""
    check_tunes(config.engine)
    module = plugins.load("engines", config.engine)
    learner: Learner = module.learn(model, plugins.chosen("engine", config), config.tune.rank, config.tune.seed)
    return learner


def say(fold: int, judged: Judged) -> None:
    """One line a judgement, above any progress bar."""
    loss = "" if judged.loss is None else f", loss {judged.loss:.3f}"
    told = ", ".join(
        f"{name} {value:.3f}"
        for name, value in (("AUC", judged.auc), ("within a window", judged.auc_within), ("r", judged.correlation))
        if value is not None
    )
    line = f"tune: reader {fold}, step {judged.step}, {judged.tokens:,} tokens, {judged.seconds:.0f} s{loss}"
    tqdm.write(f"{line}; {judged.latents} latents held out: {told or 'nothing to tell apart'}", file=sys.stderr)


def _describe(config: Config, run: Run) -> Mapping[str, object]:
    """Where a reader comes from, for who reads elsewhere with it."""
    return {
        "subject": config.subject,
        "hookpoint": config.hookpoint,
        "coder": run.manifest["artefacts"]["1_coder"]["sha256"],
        "explainer": config.explain.file or config.explainer,
        "tune": config.tune.model_dump(mode="json"),
    }
