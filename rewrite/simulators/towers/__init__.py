"""A reader in two parts: a language model reads each text and each explanation once, and a small head joins them.

1. The model is left as it is. Of a text it gives the hidden states of some layers at each position, of an explanation
   those at each of its tokens (`rewrite.engines.base.States`).
2. The head (`rewrite.simulators.towers.head`) is tuned on the train split with the same folds as any reader, by
   cross-entropy against activation / maximum (`rewrite.simulators.towers.learning`).
3. A prediction costs no token: all latents at all positions of a text are a product of two matrices. Strengths below
   half a level of the calibrators (`rewrite.arms.calibrate.LEVELS`) are stored as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rewrite.config import TuneConfig
from rewrite.engines.base import Learner, OpenEngine
from rewrite.explainers.base import Explanation
from rewrite.simulators.base import Peek
from rewrite.simulators.examples import Lessons
from rewrite.simulators.towers.settings import Settings

if TYPE_CHECKING:
    from rewrite.simulators.towers.learning import TowersPupil
    from rewrite.simulators.towers.reading import Towers

__all__ = ["Settings", "build", "pupils"]


def build(
    explanations: Sequence[Explanation],
    latents: int,
    settings: Settings,
    peek: Peek,
    open_engine: OpenEngine,
    tuned: Path | None = None,
) -> Towers:
    """The simulator with the heads that the run tuned; the truth is not looked at."""
    from rewrite.simulators.towers import reading

    return reading.build(explanations, latents, settings, tuned)


def pupils(
    lessons: Lessons, settings: Settings, config: TuneConfig, open_learner: Callable[[str], Learner]
) -> Callable[[], TowersPupil]:
    """What opens a pupil for each fold (`rewrite.simulators.base`)."""
    from rewrite.simulators.towers import reading

    return reading.pupils(lessons, settings, config)
