"""Tuned readers: on disk, in use, and what a language model is told when it is tuned and when it reads.

A reader is a folder, or the same on the hub: an adapter as peft writes it, `reader.json` beside it, and `learned.json`,
what from and how (`rewrite.simulators.tuning`). reader.json names the model that the adapter belongs to, with a hash of
what it holds, the layout that it has learned, and the run that it comes from. A reader is refused where model or layout
are not those that it would meet.

A tuned reader is told less than one that is not: no worked examples, and one token after which the digit stands. It
reads the same `Branches` when it learns and when it simulates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from rewrite.config import TuneConfig, UserError
from rewrite.engines.base import Branches, Engine, Learner, Lesson
from rewrite.engines.learned import LEARNED, Learned, check_learned, find_learned
from rewrite.engines.learning import Step
from rewrite.run.files import read_json
from rewrite.simulators.examples import Example, Lessons
from rewrite.simulators.layout import BRANCH, PROMPT, layout
from rewrite.simulators.schemes import AllAtOnce
from rewrite.simulators.tuning import READER

FOLDS = "folds.json"


def tuned_scheme(renormalise: bool = True) -> AllAtOnce:
    """How a tuned language model is asked."""
    return AllAtOnce(renormalise, prompt=PROMPT, branch=BRANCH)


TUNED = tuned_scheme()


def name_fold(fold: int) -> str:
    """The folder of a fold's reader."""
    return f"fold-{fold}"


def learned_by(model: str, identity: Mapping[str, str]) -> Learned:
    """Of a language model, by an engine's or a learner's identity."""
    return Learned(model, identity["model"], layout(identity.get("template", "")))


def find_reader(adapter: str) -> dict[str, Any]:
    """What a reader says of itself. Raises UserError for one that is not there."""
    found: dict[str, Any] = read_json(_find(adapter) / READER)
    return found


def check_reader(simulator: str, adapter: str, here: Learned) -> Path:
    """Where a reader is, for a simulator to read with. Raises UserError for one that learned on another model or reads
    another layout."""
    place = _find(adapter)
    check_learned(f"simulators.{simulator}", adapter, read_json(place / READER), here)
    return place


def list_readers(adapter: str, latents: int) -> list[tuple[str, frozenset[int]]]:
    """The readers that an adapter is, each with the latents that it reads: a reader by itself reads all; of all the
    readers of a run (`4_reader`) each reads those of its fold, which it never met if this is the run's own coder, and
    its share of those that have no fold there (`check_unmet`). Raises UserError as `check_folds` does."""
    every = frozenset(range(latents))
    if not is_all(adapter):
        return [(adapter, every)]
    folds = list(check_folds(Path(adapter)))
    others = every.difference(*(own for _, own in folds))
    shares = (frozenset(latent for latent in others if latent % len(folds) == number) for number in range(len(folds)))
    return [(str(place), own & every | share) for (place, own), share in zip(folds, shares, strict=True)]


def check_unmet(simulator: str, adapter: str, coder: str, latents: Sequence[int]) -> None:
    """Raise UserError where one of these latents of a coder, by its hash, would be read by one of the readers of a run
    that has learned from it: what a fold has not held out is what all of them may have learned from. A reader that is
    named by itself is not looked at."""
    if not is_all(adapter) or find_reader(adapter).get("coder") != coder:
        return
    for place, own in list_readers(adapter, max(latents, default=0) + 1):
        met = sorted(own.intersection(latents).intersection(read_json(Path(place) / LEARNED)["latents"]))
        if met:
            raise UserError(
                f"simulators.{simulator}.adapter = {adapter}: {len(met):,} latents of this coder, {met[0]} the first, "
                f"would be read by {Path(place).name}, which learned from them; set sample.latents to those in its "
                f"{FOLDS}, or tune again"
            )


def is_all(adapter: str) -> bool:
    """Whether an adapter is the folder of all readers of a run."""
    return (Path(adapter) / FOLDS).is_file()


def _find(adapter: str) -> Path:
    """A reader's folder, on disk or brought from the hub; it describes itself. Of all readers of a run the first."""
    first = str(Path(adapter) / name_fold(0)) if is_all(adapter) else adapter
    return find_learned(first, READER, "`rewrite tune`")


@dataclass(frozen=True)
class Reader:
    """An engine and the latents that it reads; a tuned one also reads without an explanation."""

    engine: Engine
    latents: frozenset[int]
    tuned: bool = False


def check_folds(tuned: Path) -> Iterator[tuple[Path, frozenset[int]]]:
    """The readers that a run tuned, each with the latents of its fold. Raises UserError for one that has learned from a
    latent that it is to read."""
    folds: dict[str, int] = read_json(tuned / FOLDS)["folds"]
    for fold in range(max(folds.values()) + 1):
        place = tuned / name_fold(fold)
        own = frozenset(int(latent) for latent, of in folds.items() if of == fold)
        met = own.intersection(read_json(place / LEARNED)["latents"])
        if met:
            raise UserError(
                f"{place}: this reader has learned from latent {min(met)}, which it is to read; delete {tuned} and "
                "tune again"
            )
        yield place, own


@dataclass(frozen=True)
class LanguageModelPupil:
    """A language model with an adapter that learns from examples (`rewrite.simulators.tuning.Pupil`)."""

    model: str
    learner: Learner

    @property
    def learned(self) -> Learned:
        """See `Pupil.learned`."""
        return learned_by(self.model, self.learner.identity)

    @property
    def tokens(self) -> int:
        """See `Pupil.tokens`."""
        return self.learner.tokens

    def spent(self, config: TuneConfig) -> float:
        """See `Pupil.spent`."""
        return self.tokens / config.tokens if config.tokens else 0.0

    def learn(self, lessons: Lessons, fold: int, step: int, rate: float) -> Step:
        """See `Pupil.learn`."""
        groups = lessons.draw(fold, step)
        loss = self.learner.learn([[Lesson(_lay_out(e), e.strengths) for e in group] for group in groups], rate)
        return Step(loss, frozenset(example.latent for group in groups for example in group))

    def read(self, groups: Sequence[Sequence[Example]]) -> list[Float[np.ndarray, " asked"]]:
        """See `Pupil.read`."""
        read = self.learner.read([[_lay_out(example) for example in group] for group in groups])
        return [digits @ np.arange(10) / digits.sum(1) for group in read for digits in group]

    def save(self, folder: Path) -> None:
        """See `Pupil.save`."""
        self.learner.save(folder)

    def keep(self, file: Path, told: dict[str, Any]) -> None:
        """See `Pupil.keep`."""
        self.learner.keep(file, told)

    def go_on(self, file: Path) -> dict[str, Any]:
        """See `Pupil.go_on`."""
        return self.learner.go_on(file)


def _lay_out(example: Example) -> Branches:
    """An example as the simulator would ask it."""
    (item,) = TUNED.ask(example.explanation, example.tokens, example.asked)
    assert isinstance(item.request, Branches)
    return item.request
