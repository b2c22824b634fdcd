"""Teach a language model to explain as a finished run does: `rewrite teach RUN --out FOLDER`.

1. The run's explanations are the answers, its train split the evidence; of both nothing else is read.
2. The latents that `sample.latents` chooses are left out: they are those that it will be able to explain.
3. `explainers.llm` says which model learns and what it is shown, `tune` how long. A killed one goes on where it
   stopped, with the same settings; with others it begins anew.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rewrite.coder.activations import ActivationStore
from rewrite.coder.evidence import gather_evidence
from rewrite.config import Config, UserError
from rewrite.engines.base import Question
from rewrite.engines.fingerprints import check_tunes
from rewrite.engines.learned import Learned
from rewrite.explainers.exemplars import Windows
from rewrite.explainers.explanations import load_explanations
from rewrite.explainers.layouts import LAYOUTS
from rewrite.explainers.llm import Settings
from rewrite.explainers.llm.build import NEVER, LanguageModelExplainer
from rewrite.explainers.taught import learned_by
from rewrite.explainers.teaching import Lessons, Row
from rewrite.explainers.teaching import teach as learn
from rewrite.patterns import grammar
from rewrite.run import plugins
from rewrite.run.configs import read_recorded
from rewrite.run.files import hash_value, make_folder, read_json, write_json
from rewrite.run.finished import Finished, open_finished
from rewrite.text.sampling import draw_latents

EXPLAINED = "3_explanations.jsonl"
MADE = "made.json"
"""In the folder until it is done: what it is made from and with."""


def teach(run: Path, out: Path, overrides: Sequence[str]) -> list[str]:
    """Teach, and write `out`; a line for each thing to know. Raises UserError where the run has no explanations, no
    model is named or it cannot be tuned, too few latents are left, or `out` is there already or cannot be written."""
    if out.exists():
        raise UserError(f"--out {out}: is there already; name another folder")
    finished = open_finished(run, last=EXPLAINED)
    config = read_recorded(run / "manifest.json", finished.manifest, overrides).config
    settings = plugins.settings("explainers", "llm", config.explainers.get("llm", {}))
    assert isinstance(settings, Settings)
    _check(config, settings)
    make_folder(out.parent, f"--out {out}")
    lessons = _open_lessons(config, settings, finished)
    engine = plugins.load("engines", config.engine)
    learner = engine.learn(settings.model, plugins.chosen("engine", config), config.tune.rank, config.tune.seed)
    learned = learned_by(settings.model, learner.identity, LAYOUTS[settings.layout].template)
    made = _describe(config, settings, finished)
    beside = _begin(out, learned, made)
    learn(learner, lessons, beside, learned, made, _say)
    (beside / MADE).unlink()
    beside.replace(out)
    return [
        f"{out}: learned from {len(lessons.learned):,} latents, judged on {len(lessons.held):,} others",
        f"to explain with it: --set explainer=llm --set explainers.llm.model={settings.model} "
        f"--set explainers.llm.adapter={out}",
    ]


def _check(config: Config, settings: Settings) -> None:
    if not settings.model:
        raise UserError("explainers.llm.model: not set; name the language model that is to learn")
    if settings.chain_of_thought or settings.adapter:
        raise UserError(
            "explainers.llm.chain_of_thought, adapter: set; who is taught begins as the model and answers at once"
        )
    check_tunes(config.engine)
    if not (config.tune.tokens or config.tune.minutes):
        raise UserError("tune.tokens and tune.minutes are both 0: it would never end; set one")


def _open_lessons(config: Config, settings: Settings, finished: Finished) -> Lessons:
    """What is learned from: latents that are not those chosen by `sample.latents`, of which something was said."""
    store = ActivationStore(finished.path("2_activations"), ("train",))
    if not config.sample.latents:
        raise UserError("sample.latents = 0: all latents are to be explained, none is left to learn from; choose some")
    chosen = set(draw_latents(config.sample, store.latents).tolist())
    said = {
        one.latent: one.text
        for one in load_explanations(finished.path(EXPLAINED))
        if one.text not in (None, NEVER, grammar.NEVER) and one.latent not in chosen
    }
    evidence = gather_evidence(store.train, sorted(said), at_once=None)
    engine = plugins.load("engines", config.engine).build(settings.model, plugins.chosen("engine", config))
    windows = Windows(evidence, settings.window)

    def ask(latents: Sequence[int], turn: int) -> list[tuple[int, Question]]:
        drawn = settings.model_copy(update={"seed": settings.seed + turn})
        return LanguageModelExplainer(drawn, engine, taught=True).ask(windows, latents)

    return Lessons(said, ask, config.tune)


def _begin(out: Path, learned: Learned, made: Mapping[str, object]) -> Path:
    """The folder beside `out` that is written; what a killed one left there is kept where it was made alike."""
    beside = out.with_name(f".{out.name}.writing")
    same = hash_value([vars(learned), made])
    if not (beside / MADE).is_file() or read_json(beside / MADE) != same:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        write_json(beside / MADE, same)
    return beside


def _describe(config: Config, settings: Settings, finished: Finished) -> dict[str, Any]:
    """Where an explainer comes from, for who explains with it."""
    artefacts = finished.manifest["artefacts"]
    return {
        "subject": config.subject,
        "hookpoint": config.hookpoint,
        "coder": artefacts["1_coder"]["sha256"],
        "explanations": artefacts[EXPLAINED]["sha256"],
        "words_of": config.explain.file or config.explainer,
        "sample": config.sample.model_dump(mode="json", include={"latents", "seed"}),
        "shown": settings.model_dump(mode="json"),
        "tune": config.tune.model_dump(mode="json"),
    }


def _say(row: Row) -> None:
    """One line a judgement."""
    told = ", ".join(
        f"{what} {row[key]:.3f}" for key, what in (("loss", "loss"), ("held_out", "on latents held out")) if row[key]
    )
    line = f"teach: step {row['step']}, {row['tokens']:,} tokens, {row['seconds']:.0f} s: {told or 'nothing held out'}"
    tqdm.write(line, file=sys.stderr)
