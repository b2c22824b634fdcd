"""Minutes that each stage will take, from measured seconds a token (`rewrite.commands.new.pace`) and the sizes.

What no forward pass tells, the rules of `patterns` and the arithmetic around the arms, is taken from runs on two cores:
`EXPLAIN`, `READ`, `WRITE`, `FIXED`. What language models take is theirs to say: `--dry-run` counts their calls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rewrite.arms.controls import DRAWN
from rewrite.arms.plan import plan_arms
from rewrite.coder.coder import Coder
from rewrite.commands.new.pace import Pace
from rewrite.config import Config
from rewrite.run import plugins
from rewrite.run.freshness import wanted
from rewrite.stages import STAGES

EXPLAIN = (0.012, 1.2e-7)
"""Seconds that `patterns` takes for a latent, and for it and each token of the train split [s]."""
READ = 3.5e-8
"""Seconds that `patterns` takes to read one explanation at one position [s]."""
WRITE = 6e-6
"""Seconds that an arm's own arithmetic takes at a position, beside decoding [s], with 1,024 latents."""
FIXED = {"analyse": 0.5, "report": 3.0, "score": 0.5}
"""Seconds that a stage takes whatever the sizes [s]."""


@dataclass(frozen=True)
class Amounts:
    """Tokens of each split, windows capped as the config says."""

    train: int
    calibrate: int
    test: int
    test_documents: int


def estimate(config: Config, pace: Pace, amounts: Amounts, coder: Coder) -> dict[str, float | None]:
    """Minutes by stage, in order; None where a language model's answers are waited for."""
    latents, kept = coder.latents, min(config.collect.train_tokens, amounts.train)
    held = amounts.calibrate + amounts.test
    asked = held / config.corpus.window if config.sample.positions == "last" else held
    share = asked / max(held, 1)
    arms = count_arms(config, coder)
    write = pace.decode + WRITE * latents / 1024
    documents = min(config.cost.documents or amounts.test_documents, amounts.test_documents)
    costed = share * amounts.test * documents / max(amounts.test_documents, 1)
    steps = {
        "train": config.coder.tokens * (pace.to + pace.train) * (config.coder.path is None)
        + amounts.calibrate * (pace.to + 3 * pace.whole + 2 * pace.decode),
        "collect": (kept + held) * (pace.to + pace.encode),
        "explain": latents * (EXPLAIN[0] + EXPLAIN[1] * kept),
        "simulate": asked * latents * READ,
        "score": FIXED["score"] + asked * latents * READ / 4,
        "evaluate": kept * latents * READ + share * amounts.test * (pace.to + arms * (pace.whole + write)),
        "cost": costed * (pace.to + config.cost.steps * (pace.back + write) + config.cost.check * (pace.whole + write)),
        "diagnose": _diagnose(config, pace, amounts),
        "analyse": FIXED["analyse"],
        "report": FIXED["report"] + asked * latents * READ / 4 + 0.001 * latents,
    }
    waits = {"explain": _asks(config, "explainer"), "simulate": _asks(config, "simulator"), "tune": True}
    waits["score"] = bool(config.score.scorers)
    names = [stage.name for stage in wanted(STAGES, config)]
    return {name: None if waits.get(name) else steps.get(name, 0.0) / 60 for name in names}


def count_arms(config: Config, coder: Coder) -> int:
    """How many arms evaluate writes."""
    every = np.arange(coder.latents)
    drawn = sum(name in config.evaluate.controls for name in DRAWN) * config.evaluate.control_seeds
    return len(plan_arms(config, coder, every, np.zeros(coder.latents, dtype=bool))) + drawn


def _diagnose(config: Config, pace: Pace, amounts: Amounts) -> float:
    """Some fifty passes over its documents, and two a head over some of them."""
    each = amounts.test / max(amounts.test_documents, 1)
    return each * pace.whole * (60 * config.diagnose.documents + 100 * config.diagnose.heads)


def _asks(config: Config, role: str) -> bool:
    return plugins.asked_model(role, config) is not None  # type: ignore[arg-type]
