"""A simulator that replays the true activations: the positive control and the ceiling of any simulator.

With `levels = 0` its strengths are the activations themselves, to be used with the `identity` calibrator; with 10
levels they are round(9 · a / maximum), the finest that a reader who answers 0 to 9 could say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array

from rewrite.config import Section
from rewrite.engines.base import OpenEngine
from rewrite.explainers.base import Explanation
from rewrite.simulators.base import Peek, Simulator, Strengths
from rewrite.text.windows import Text


class Settings(Section):
    """Settings under `simulators.oracle`."""

    levels: int = Field(0, ge=0, le=91)
    """Levels that the activations are rounded to, 0 among them [levels]; 0 replays them exactly."""


@dataclass(frozen=True)
class Oracle:
    """Replays what `peek` shows."""

    peek: Peek
    levels: int

    @property
    def scale(self) -> float:
        """9 when rounded; else the largest activation, since strengths are activations."""
        return 9.0 if self.levels else float(self.peek.maximum.max())

    def simulate(self, text: Text) -> Strengths:
        """See `Simulator.simulate`."""
        truth = self.peek(text)
        if self.levels == 0:
            return Strengths(truth)
        top = self.levels - 1
        share = truth.data / np.maximum(self.peek.maximum[truth.indices], 1e-30)
        rounded = np.rint(np.minimum(share, 1) * top) * np.float32(9 / top)
        return Strengths(csr_array((rounded.astype(np.float32), truth.indices, truth.indptr), shape=truth.shape))


def build(
    explanations: Sequence[Explanation], latents: int, settings: Settings, peek: Peek, open_engine: OpenEngine
) -> Simulator:
    """See `rewrite.simulators.base`; the explanations are not looked at."""
    return Oracle(peek, settings.levels)
