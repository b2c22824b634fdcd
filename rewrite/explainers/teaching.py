"""Teaches a language model to explain: asked about a latent as an explainer asks, it learns to say what another
explainer said of it.

1. Every pass over the latents asks each once, about other windows of the train split.
2. It is judged by its loss on latents that it does not learn from (`tune.held_out`).
3. What it leaves in its folder is the adapter, `learned.json`, last of all `explainer.json`
   (`rewrite.explainers.taught`) and, until then, the state from which a killed run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from rewrite.config import TuneConfig, UserError
from rewrite.engines.base import Learner, Question
from rewrite.engines.learned import LEARNED, Learned
from rewrite.engines.learning import STATE, Moment, Step, attend
from rewrite.explainers.taught import EXPLAINER
from rewrite.run.files import write_json

LEAST = 10
"""Latents below which nothing is taught."""
Row = dict[str, float | int | None]


Ask = Callable[[Sequence[int], int], Iterable[tuple[int, Question]]]
"""The questions about some latents, in a pass by its number; one that cannot be asked about is left out."""


class Lessons:
    """Questions about latents, each with what was said of it."""

    def __init__(self, said: Mapping[int, str], ask: Ask, config: TuneConfig) -> None:
        self.said, self.ask, self.config = said, ask, config
        drawn = np.random.default_rng(config.seed).permutation(sorted(said)).tolist()
        held = min(config.held_out, len(drawn) // 5)
        self.held, self.learned = sorted(drawn[:held]), sorted(drawn[held:])
        if len(self.learned) < LEAST:
            raise UserError(
                f"sample.latents: leaves {len(said)} explained latents to learn from, fewer than {LEAST} and a fifth; "
                "explain more, or choose fewer in sample.latents"
            )

    def of(self, latents: Sequence[int], turn: int = 0) -> list[tuple[Question, str]]:
        """The question about each latent in this pass, and the answer."""
        return [(question, f" {self.said[latent]}") for latent, question in self.ask(latents, turn)]

    def drawn(self, step: int) -> tuple[list[int], int]:
        """The latents of a step, and the pass that it belongs to."""
        turn, place = divmod(step, -(-len(self.learned) // self.config.batch))
        order = np.random.default_rng([self.config.seed, turn]).permutation(self.learned).tolist()
        return order[place * self.config.batch :][: self.config.batch], turn


class ExplainerPupil:
    """A language model with an adapter that learns to explain (`rewrite.engines.learning.Pupil`)."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.keep, self.go_on = learner.keep, learner.go_on

    def spent(self, config: TuneConfig) -> float:
        """See `Pupil.spent`."""
        return self.learner.tokens / config.tokens if config.tokens else 0.0


def teach(
    learner: Learner,
    lessons: Lessons,
    folder: Path,
    learned: Learned,
    made: Mapping[str, object],
    told: Callable[[Row], None],
) -> None:
    """Teach within the budget and write what was learned, with what is to be known of where it comes from (`made`);
    `told` hears every judgement. Goes on where a killed run stopped."""

    def learn(step: int, rate: float) -> Step:
        latents, turn = lessons.drawn(step)
        return Step(learner.learn_answers(lessons.of(latents, turn), rate), frozenset(latents))

    def judge(moment: Moment) -> Row:
        held = learner.judge_answers(lessons.of(lessons.held)) if lessons.held else None
        row: Row = {**asdict(moment), "tokens": learner.tokens, "held_out": held, "latents": len(lessons.held)}
        told(row)
        return row

    folder.mkdir(exist_ok=True)
    course = attend(ExplainerPupil(learner), lessons.config, folder, learn, judge)
    learner.save(folder)
    write_json(folder / LEARNED, {"latents": sorted(course.met), "curve": course.curve})
    (folder / STATE).unlink()
    write_json(folder / EXPLAINER, {**asdict(learned), **made})
