"""Score: how good each explanation is, on the calibrate split, which no explanation was made from.

1. What the simulation says of it costs nothing more: the correlation of strengths and true activations, and the R² of
   calibrated ones (`rewrite.statistics.scores`).
2. Where `score.scorers` asks for it, a language model judges which held-out windows fit the explanation
   (`rewrite.explainers.judge`), a block of latents at a time.

`4_scores.parquet` has a row per latent of the coder. For `simulation`, `r2` and each scorer S that was asked for there
are S, S_low and S_high (null where there is none) and S_why, which says why S is null and is empty where it is not. A
scorer that judges also has S_precision, the precision at the latent's true base rate (null for `fuzz`, whose windows
are all active), and S_faults, the windows that have no judgement, counted by the kind of failure, as JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from rewrite.arms.batches import document_pairs
from rewrite.coder.activations import ActivationStore, Split
from rewrite.config import Config, UserError
from rewrite.display.progress import bar
from rewrite.engines.base import Answer, Engine, Fault, OpenEngine
from rewrite.engines.calls import Calls
from rewrite.engines.ledger import Planned
from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import load_explanations, suppose
from rewrite.explainers.judge import SHOW, Drawn, HeldOut, Sheet, draw_windows, hold_out
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.statistics.scores import Accuracy, Scored, score_judgements, score_simulations
from rewrite.text.sampling import draw_latents

AT_ONCE = 32
"""Latents whose questions are handed to the engine together [latents]."""
NOT_REWRITTEN = "not rewritten: sample.latents left it out"

Columns = dict[str, pa.Array]


def run(config: Config, run: Run) -> None:
    """Write `4_scores.parquet`."""
    with Calls(config, run, "score") as calls:
        score(config, run, calls.open)
        calls.latents = len(draw_latents(config.sample, open_store(run).latents))


def plan(config: Config, run: Run, awaited: frozenset[str]) -> Planned:
    """What judging would cost at most; explanations that are not there yet are supposed."""
    store = open_store(run)
    if "explain" not in awaited:
        explanations = load_explanations(run.path("3_explanations.jsonl"))
    else:
        explanations = suppose(config, range(store.latents))
    with Calls(config, run, "score", dry=True) as calls:
        judged_columns(config, store.calibrate, explanations, calls.open)
        return calls.met


def open_store(run: Run) -> ActivationStore:
    """The true activations that scores rest on."""
    return ActivationStore(run.path("2_activations"), ("calibrate",))


def score(config: Config, run: Run, open_engine: OpenEngine) -> None:
    """All scores; no engine is opened where no scorer is asked for."""
    store = open_store(run)
    columns: Columns = {"latent": pa.array(range(store.latents), pa.int32())}
    columns |= simulation_columns(config, store.calibrate, Simulations(run.path("4_simulations"), store.latents))
    if config.score.scorers:
        explanations = load_explanations(run.path("3_explanations.jsonl"))
        columns |= judged_columns(config, store.calibrate, explanations, open_engine)
    with run.writing("4_scores.parquet") as path:
        pq.write_table(pa.table(columns), path)


def simulation_columns(config: Config, split: Split, simulations: Simulations) -> Columns:
    """The columns of `simulation` and `r2`."""
    rewritten = simulations.rewritten
    missing = simulations.missing(split.shards)
    absent = ~rewritten | simulations.absent(split.shards)
    scores = score_simulations(
        lambda: document_pairs(split, simulations), absent, simulations.scale, config.analyse.alpha
    )
    known = {int(i): missing.get(int(i), NOT_REWRITTEN) for i in np.flatnonzero(absent)}
    still = "its activation does not vary on the calibrate split, or fewer than 2 documents were simulated"
    constant = "its strength or its activation does not vary on the calibrate split"
    return _scored("simulation", scores.correlation, known, constant) | _scored("r2", scores.r2, known, still)


def _scored(name: str, scored: Scored, known: Mapping[int, str], otherwise: str) -> Columns:
    lacking = np.isnan(scored.value)
    why = [known.get(i, otherwise) if lacks else "" for i, lacks in enumerate(lacking)]
    return {
        name: _nullable(scored.value),
        f"{name}_low": _nullable(scored.low),
        f"{name}_high": _nullable(scored.high),
        f"{name}_why": pa.array(why, pa.string()),
    }


def _nullable(values: Float[np.ndarray, " latent"]) -> pa.Array:
    """Numbers with null for NaN."""
    return pa.array(values, pa.float64(), from_pandas=True)


@dataclass
class Verdicts:
    """What one scorer says of the latents so far."""

    accuracy: dict[int, Accuracy] = field(default_factory=dict)
    why: dict[int, str] = field(default_factory=dict)
    faults: dict[int, Counter[str]] = field(default_factory=dict)

    def columns(self, name: str, latents: int) -> Columns:
        """The scorer's columns; a latent that it says nothing of was not rewritten."""
        found = [self.accuracy.get(i, Accuracy()) for i in range(latents)]
        scored = Scored(*(np.array([getattr(a, key) for a in found]) for key in ("value", "low", "high")))
        known = {i: self.why.get(i, NOT_REWRITTEN) for i in range(latents)}
        faults = [json.dumps(self.faults.get(i, {}), sort_keys=True) for i in range(latents)]
        return _scored(name, scored, known, "") | {
            f"{name}_precision": _nullable(np.array([a.precision for a in found])),
            f"{name}_faults": pa.array(faults, pa.string()),
        }


def judged_columns(
    config: Config, split: Split, explanations: Sequence[Explanation], open_engine: OpenEngine
) -> Columns:
    """The columns of each scorer that is asked for; needs no simulation."""
    if not config.score.model:
        raise UserError("score.model: not set; name the language model that judges, or leave score.scorers empty")
    held = hold_out((shard for _, shard in split.walk()), config.score.window)
    if not len(held.ids):
        raise UserError(
            f"score.window = {config.score.window}: no window of the calibrate split is as long; set it to at most "
            f"corpus.window = {config.corpus.window}"
        )
    engine = open_engine(config.score.model)
    verdicts: dict[str, Verdicts] = {scorer: Verdicts() for scorer in config.score.scorers}
    texts = {e.latent: e for e in explanations}
    latents = draw_latents(config.sample, split.latents)
    with bar(what="score", unit="scores", total=len(latents) * len(verdicts)) as progress:
        for begin in range(0, len(latents), AT_ONCE):
            block = latents[begin : begin + AT_ONCE]
            explained = [texts.get(int(i), Explanation(int(i), None)) for i in block]
            judge_block(config, held, explained, engine, verdicts, progress.update)
    columns: Columns = {}
    for scorer, said in verdicts.items():
        columns |= said.columns(scorer, split.latents)
    return columns


def judge_block(
    config: Config,
    held: HeldOut,
    block: Sequence[Explanation],
    engine: Engine,
    verdicts: Mapping[str, Verdicts],
    done: Callable[[int], object],
) -> None:
    """Judge some latents by every scorer in one go, and add what comes of it to the verdicts; `done` hears of so many
    scores that need no more answers."""
    sheets: list[tuple[Drawn, Sheet]] = []
    for explanation in block:
        drawn = draw_windows(held, explanation.latent, config.score) if explanation.text else _no_text(explanation)
        for scorer, said in verdicts.items():
            if isinstance(drawn, Drawn) and explanation.text:
                shown = SHOW[scorer](held, drawn, config.score)
                sheets.append((drawn, Sheet(scorer, explanation.text, shown)))
            else:
                said.why[explanation.latent] = str(drawn)
    done(len(block) * len(verdicts) - len(sheets))
    replies = ask_all(engine, [sheet for _, sheet in sheets], config, done)
    for (drawn, sheet), answers in zip(sheets, replies, strict=True):
        said = verdicts[sheet.scorer]
        marked = sheet.mark(answers, config.score)
        said.faults[drawn.latent] = marked.faults
        accuracy = Accuracy()
        if not marked.why:
            # In fuzz all windows are active: their share of all windows says nothing of what is marked.
            base_rate = drawn.base_rate if sheet.scorer == "detection" else None
            accuracy = score_judgements(marked.judged, base_rate, config.analyse.alpha)
        if np.isnan(accuracy.value):
            said.why[drawn.latent] = marked.why or "only windows that fit, or only windows that do not, were judged"
        said.accuracy[drawn.latent] = accuracy


def _no_text(explanation: Explanation) -> str:
    return f"no explanation: {explanation.why}" if explanation.why else "no explanation"


def ask_all(
    engine: Engine, sheets: Sequence[Sheet], config: Config, done: Callable[[int], object]
) -> list[list[Answer | Fault]]:
    """The replies to each sheet's questions, in order, asked in one go; `done` hears of each sheet that has all."""
    asked = [list(sheet.ask(engine, config.score)) for sheet in sheets]
    places = [(sheet, number) for sheet, own in enumerate(asked) for number in range(len(own))]
    replies: list[list[Answer | Fault]] = [[Fault("server error", "no answer came")] * len(own) for own in asked]
    awaited = Counter(sheet for sheet, _ in places)
    for place, reply in engine.generate([question for own in asked for question in own]):
        sheet, number = places[place]
        replies[sheet][number] = reply
        awaited[sheet] -= 1
        done(int(not awaited[sheet]))
    return replies
