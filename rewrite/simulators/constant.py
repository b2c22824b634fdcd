"""A simulator that says the same of every latent everywhere: what calibration alone can do, with nothing to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array

from rewrite.config import Section
from rewrite.engines.base import OpenEngine
from rewrite.explainers.base import Explanation
from rewrite.simulators.base import Peek, Simulator, Strengths
from rewrite.text.windows import Text


class Settings(Section):
    """Settings under `simulators.constant`."""

    strength: float = Field(0.0, ge=0, le=9)
    """The strength given to every latent at every position [0 to 9]."""
    calls: ClassVar[bool] = False
    """It asks no engine."""


@dataclass(frozen=True)
class Constant:
    """Says `strength` everywhere."""

    strength: float
    latents: int
    scale: float = 9.0

    def simulate(self, text: Text) -> Strengths:
        """See `Simulator.simulate`."""
        values = np.zeros((len(text.ids), self.latents), dtype=np.float32)
        values[text.counted()] = self.strength
        return Strengths(csr_array(values))


def build(
    explanations: Sequence[Explanation], latents: int, settings: Settings, peek: Peek, open_engine: OpenEngine
) -> Simulator:
    """See `rewrite.simulators.base`; neither the explanations nor the truth is looked at."""
    return Constant(settings.strength, latents)
