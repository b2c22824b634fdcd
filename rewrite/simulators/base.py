"""What a simulator is: it reads explanations and a text, and predicts a strength at each position for each latent.

A backend is one module here with `class Settings(Section)` and

    build(explanations, latents, settings, peek, open_engine) -> Simulator

- `explanations`: those there are, in any order; a latent without one, or whose text is None, is missing.
- `latents`: how many there are, the width of the matrices.
- `peek`: shows the true activations (`rewrite.simulators.base.Peek`). Only controls such as the oracle may look: every
  other simulator sees the explanations and the text, nothing else.
- `open_engine`: `open_engine(model)` gives a language model to those that need one (`rewrite.engines.base.Engine`).

One that is tuned on the run's own explanations says so by a property `learns` of its settings. Its module has

    pupils(lessons, settings, config, open_learner) -> a function that opens a `rewrite.simulators.tuning.Pupil`

for each fold, and its `build` takes `tuned`, the folder of all readers, last; None on a dry run, where there are none
yet. Its settings may also say `on_engine` (the run's engine tunes it), `reading` (settings that do not matter in
learning) and `calls = False` (it asks no engine, so that a dry run has nothing to count). One that screens
(`rewrite.simulators.screens`) has `audits`, the share of documents about which it is asked in full, and `audit_seed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from rewrite.explainers.base import Explanation
from rewrite.text.windows import Text


@runtime_checkable
class Simulator(Protocol):
    """Predicts strengths; the same for a window whatever other windows stand beside it."""

    @property
    def scale(self) -> float:
        """Top of the scale of strengths, which starts at 0."""
        ...

    def simulate(self, text: Text) -> Strengths:
        """Strengths at the counted positions of `text`, positions × latents; what failed is named as missing."""
        ...


@dataclass(frozen=True)
class Unread:
    """What a tuned simulator says where it is told no explanation, and which of its readers reads each latent."""

    strengths: Float[np.ndarray, "counted reader"]
    reader: Int[np.ndarray, " latent"]


@dataclass(frozen=True)
class Screened:
    """What a simulator that screens did with a text. Of the asked positions and the latents that are not missing, a
    pair that has an entry in `Strengths.values` passed the screen, also where that entry is 0 or NaN; one that has none
    was held back and stands for strength 0. Of those, `audit` has what the simulator says all the same where the text
    was asked about in full (`Text.full`): for the estimate of what the screen misses, never written."""

    by: str
    """The screen's name."""
    pairs: int
    """Asked positions × latents that are not missing."""
    full: Bool[np.ndarray, " position"]
    audit: csr_array
    """Positions × latents, NaN where an answer failed."""


@dataclass(frozen=True)
class Strengths:
    """A simulator's raw output for a `Text`: positions × latents on its own scale, 0 where nothing is stored.

    `missing` names the latents that could not be predicted anywhere, with the reason: their columns are empty and mean
    "not known", never zero. A value that is missing at one position only is stored as NaN, and `faults` counts such
    values by the kind of failure.

    A simulator that reads probabilities stores every prediction, zeros too, and beside each entry of `values` what a
    calibrator may want to know of it: `zero`, the probability of strength 0, and `outside`, the probability of an
    answer that is no strength at all.
    """

    values: csr_array
    missing: dict[int, str] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    zero: Float[np.ndarray, " entry"] | None = None
    outside: Float[np.ndarray, " entry"] | None = None
    unread: Unread | None = None
    screened: Screened | None = None


@runtime_checkable
class Peek(Protocol):
    """The true activations, for controls such as the oracle; no simulator that reads explanations may look."""

    @property
    def maximum(self) -> Float[np.ndarray, " latent"]:
        """Each latent's largest activation on the train split."""
        ...

    def __call__(self, text: Text) -> csr_array:
        """The true activations of a text, positions × latents."""
        ...


def find_missing(explanations: Sequence[Explanation], latents: int) -> dict[int, str]:
    """The latents that have no explanation to read, and why."""
    why = {e.latent: None if e.text is not None else e.why or "no explanation" for e in explanations}
    reasons = {latent: why.get(latent, "no explanation") for latent in range(latents)}
    return {latent: reason for latent, reason in reasons.items() if reason is not None}
