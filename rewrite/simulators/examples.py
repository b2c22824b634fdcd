"""What a reader is tuned on: windows of the train split in which a latent fires, and others, with what it truly does.

1. Rewritten latents are dealt into folds. The reader of a fold learns from every explained latent that is not in it, so
   it has met neither the explanation nor a firing of any latent that it will read (`Lessons`).
2. A lesson is some windows of one latent: half of them hold a firing, one holds a token on which the latent fires
   elsewhere and no firing (a near miss), the rest are drawn from all text. Latents are drawn evenly, however often they
   fire.
3. Of a window the positions with a firing are learned from and as many others as make up `tune.positions`; the target
   is 9 · activation / the latent's maximum on the train split.

Every draw is named by seed, fold and step, so a run that goes on draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from rewrite.coder.evidence import Evidence
from rewrite.config import TuneConfig, UserError
from rewrite.explainers.base import Explanation
from rewrite.text.windows import show_tokens

TOP = 9.0
LEAST = 4
"""Firings on the train split below which nothing is learned from a latent."""
FOLDS, STEPS, HELD = range(3)


@dataclass(frozen=True)
class Example:
    """A window, what a latent is said to do, and how strongly it truly fires at the positions that are asked."""

    latent: int
    explanation: str
    tokens: list[str]
    asked: Bool[np.ndarray, " position"]
    strengths: Float[np.ndarray, " asked"]


def deal(latents: Int[np.ndarray, " chosen"], config: TuneConfig) -> Int[np.ndarray, " chosen"]:
    """The fold of each rewritten latent, as even as can be."""
    order = np.random.default_rng([config.seed, FOLDS]).permutation(len(latents))
    return order % config.folds


class Lessons:
    """Draws examples for the readers of all folds. `explanations` are of the rewritten latents and of the others; those
    that failed, or whose latent hardly fires, are left out."""

    def __init__(
        self,
        evidence: Evidence,
        explanations: Sequence[Explanation],
        rewritten: Int[np.ndarray, " chosen"],
        config: TuneConfig,
    ) -> None:
        self.evidence, self.config, self.rewritten = evidence, config, rewritten
        self.folds = dict(zip(rewritten.tolist(), deal(rewritten, config).tolist(), strict=True))
        firings = evidence.firings
        told = {e.latent: e.text for e in explanations if e.text and firings[e.latent] >= LEAST}
        self.texts = {latent: text for latent, text in sorted(told.items())}

    def teachers(self, fold: int) -> Int[np.ndarray, " teacher"]:
        """The latents that a fold's reader learns from. Raises UserError where there are none."""
        found = [latent for latent in self.texts if self.folds.get(latent, -1) != fold]
        if not found:
            raise UserError(
                f"tune.folds = {self.config.folds}: no explained latent is left to learn from; set tune.folds to 2 or "
                "more, or rewrite fewer with sample.latents"
            )
        return np.array(found)

    def draw(self, fold: int, step: int) -> list[list[Example]]:
        """What one step learns from."""
        generator = np.random.default_rng([self.config.seed, STEPS, fold, step])
        teachers = self.teachers(fold)
        chosen = generator.choice(teachers, size=self.config.batch, replace=len(teachers) < self.config.batch)
        return [self._windows(int(latent), generator) for latent in chosen]

    def hold_out(self, fold: int) -> list[list[Example]]:
        """Windows of some latents of the fold, on which its reader is judged and from which nothing is learned."""
        generator = np.random.default_rng([self.config.seed, HELD, fold])
        own = [latent for latent in self.texts if self.folds.get(latent, -1) == fold]
        chosen = generator.permutation(own)[: self.config.held_out].tolist()
        return [self._windows(latent, generator, blank=False) for latent in chosen]

    def _windows(self, latent: int, generator: np.random.Generator, blank: bool = True) -> list[Example]:
        text = "" if blank and generator.random() < self.config.unread else self.texts[latent]
        firing = (self.config.windows + 1) // 2
        kinds = [self._fired(latent)] * firing + [self._near(latent)]
        kinds += [self.counted] * (self.config.windows - len(kinds))
        return [self._example(latent, text, int(generator.choice(kind)), generator) for kind in kinds]

    def _example(self, latent: int, text: str, place: int, generator: np.random.Generator) -> Example:
        """A window somewhere around a position, within the window that the subject saw."""
        source, width = self.evidence.text, self.config.window
        window = int(np.searchsorted(source.starts, place, side="right")) - 1
        first, last = int(source.starts[window]), int(source.starts[window + 1])
        begin = max(first, min(place - int(generator.integers(width)), last - width))
        end = min(begin + width, last)
        truth = self._activations(latent, begin, end)
        counted = np.arange(begin, end) > first
        wanted = np.flatnonzero(counted & (truth > 0))[: self.config.positions]
        others = generator.permutation(np.flatnonzero(counted & (truth == 0)))
        asked = np.zeros(end - begin, dtype=bool)
        asked[wanted] = True
        asked[others[: max(self.config.positions - len(wanted), 0)]] = True
        shown = show_tokens(source.ids[begin:end], source.vocabulary, source.pieces)
        return Example(latent, text, shown, asked, TOP * truth[asked] / self.column(latent)[1].max())

    def _activations(self, latent: int, begin: int, end: int) -> Float[np.ndarray, " position"]:
        rows, values = self.column(latent)
        low, high = np.searchsorted(rows, [begin, end])
        truth = np.zeros(end - begin)
        truth[rows[low:high] - begin] = values[low:high]
        return truth

    def column(self, latent: int) -> tuple[Int[np.ndarray, " firing"], Float[np.ndarray, " firing"]]:
        """Where a latent fires, ascending, and how strongly."""
        column = self.evidence.column(latent)
        return column.positions, column.values

    def _fired(self, latent: int) -> Int[np.ndarray, " place"]:
        return self.column(latent)[0]

    def _near(self, latent: int) -> Int[np.ndarray, " place"]:
        """Where one of the tokens on which the latent fires stands without a firing; anywhere if there is no such
        place."""
        ids, fired = self.evidence.text.ids, self._fired(latent)
        same = self.counted[np.isin(ids[self.counted], np.unique(ids[fired]))]
        near = np.setdiff1d(same, fired, assume_unique=True)
        return near if len(near) else self.counted

    @cached_property
    def counted(self) -> Int[np.ndarray, " place"]:
        """The positions at which anything may fire."""
        return np.flatnonzero(self.evidence.text.counted())
