"""Explanations tried before one is kept: the run's own simulator reads them on train windows that no prompt has shown.

1. Of the windows in which the latent fires, those that no candidate's prompt shows are drawn in two halves, and to each
   as many in which it does not fire: one half to choose by, one to find errors in.
2. An explanation fits as well as its strengths correlate with the true activations on the first (Pearson's r over its
   positions; 0 where the strengths do not vary). One of which more than half is missing has no fit.
3. The errors are the positions of the other half where activation and strength, each as a share of its largest, differ
   most: missed firings and false ones. They are what a revision is shown, so that what is kept is chosen on text that
   it was not written from.

Choosing by simulation and revising by its errors: Bills et al. (2023), Language models can explain neurons in language
models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from rewrite.engines.base import Question
from rewrite.explainers.base import Explanation, Simulate, Tried
from rewrite.explainers.exemplars import Exemplar, Numbers, Windows
from rewrite.explainers.layouts import show_context
from rewrite.text.windows import Text

Column = Float[np.ndarray, " counted"]
FEWEST = 2
"""Windows in which a latent fires without which nothing can be tried [windows]."""
ERRORS = 4
"""Most errors of one kind that a revision is shown."""
CLEAR = 0.25
"""The least difference, as a share of the largest activation, that counts as an error."""
TRIED = 7
"""Names the draw."""


@dataclass(frozen=True)
class Trial:
    """Some windows of one latent with its true activations at the counted positions, as shares of its largest."""

    text: Text
    truth: Float[np.ndarray, " counted"]
    exemplars: tuple[Exemplar, ...]

    def fit(self, strengths: Float[np.ndarray, " counted"]) -> float | None:
        """How well strengths fit the truth; None where it cannot be told."""
        known = ~np.isnan(strengths)
        if 2 * known.sum() < len(known) or np.ptp(self.truth[known]) == 0:
            return None
        if np.ptp(strengths[known]) == 0:
            return 0.0
        return float(np.corrcoef(strengths[known], self.truth[known])[0, 1])

    def errors(self, strengths: Float[np.ndarray, " counted"]) -> tuple[list[str], list[str]]:
        """The worst missed and false firings, each as the line that ends with its token."""
        places = [(e, i) for e in self.exemplars for i in range(1, len(e.tokens))]
        missed = self.truth - np.nan_to_num(strengths)
        order = np.argsort(-missed, kind="stable").tolist()
        lost = [show_context(*places[i]) for i in order[:ERRORS] if missed[i] > CLEAR]
        false = [show_context(*places[i]) for i in order[::-1][:ERRORS] if missed[i] < -CLEAR]
        return lost, false


def hold_back(windows: Windows, latent: int, shown: Numbers, count: int, seed: int) -> tuple[Trial, Trial] | None:
    """Windows to choose by and windows to find errors in, at most `count` of each; None where too few are left."""
    firings = windows.firings(latent)
    draw = np.random.default_rng([seed, latent, TRIED])
    firing = draw.permutation(np.setdiff1d(firings.windows, shown))[: 2 * (count // 2)]
    if len(firing) < 2 * FEWEST:
        return None
    silent = draw.permutation(np.setdiff1d(windows.live, np.union1d(firings.windows, shown)))[: len(firing)]
    first, second = (
        _trial(windows, latent, np.concatenate([firing[half::2], silent[half::2]]), firings.maximum) for half in (0, 1)
    )
    return first, second


def _trial(windows: Windows, latent: int, numbers: Numbers, maximum: float) -> Trial:
    exemplars = tuple(windows.show(latent, int(number)) for number in numbers)
    rows = [np.arange(windows.begins[number], windows.ends[number]) for number in numbers]
    starts = np.concatenate([[0], np.cumsum([len(own) for own in rows])])
    whole = windows.text
    text = Text(whole.ids[np.concatenate(rows)], starts, whole.vocabulary, pieces=whole.pieces)
    truth = np.concatenate([e.activations for e in exemplars])[text.counted()] / maximum
    return Trial(text, truth.astype(np.float64), exemplars)


@dataclass
class Case:
    """One latent's explanations so far; `question` is what the best was the answer to, `missed` and `false` what the
    simulator got wrong with it."""

    latent: int
    questions: list[Question]
    trials: tuple[Trial, Trial] | None
    best: Explanation | None = None
    question: Question | None = None
    fit: float | None = None
    missed: Sequence[str] = ()
    false: Sequence[str] = ()
    tried: list[Tried] = field(default_factory=list)

    def consider(self, found: Sequence[tuple[Question, Explanation]], simulate: Simulate | None) -> None:
        """Try explanations, and keep one that fits better than the best before; without a fit, the first there is."""
        texts = [explanation.text for _, explanation in found if explanation.text is not None]
        columns = self._read(texts, simulate)
        for question, explanation in found:
            by, on = next(columns) if explanation.text is not None and self.trials else (None, None)
            fit = None if by is None or self.trials is None else self.trials[0].fit(by)
            self.tried.append(Tried(explanation.text, explanation.why, fit))
            first = self.best is None or (self.best.text is None and explanation.text is not None)
            if first or (fit is not None and (self.fit is None or fit > self.fit)):
                self.best, self.question, self.fit = explanation, question, fit
                self.missed, self.false = ((), ()) if on is None or self.trials is None else self.trials[1].errors(on)

    def _read(self, texts: Sequence[str], simulate: Simulate | None) -> Iterator[tuple[Column, Column]]:
        """The strengths that the simulator gives each text on both halves of the windows."""
        if texts and simulate and self.trials:
            first, second = (simulate(texts, trial.text) for trial in self.trials)
            yield from zip(first.T, second.T, strict=True)

    @property
    def answer(self) -> Explanation:
        """The best, with all that were tried where there are several."""
        assert self.best is not None, "at least one candidate was considered"
        return replace(self.best, tried=tuple(self.tried) if len(self.tried) > 1 else ())
