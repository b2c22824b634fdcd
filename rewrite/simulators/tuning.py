"""Tunes a reader: step by step within a budget, judged as it goes on latents that it must not learn from.

`tune` works on one fold and knows nothing of what is tuned: a `Pupil` is a language model with an adapter
(`rewrite.simulators.readers`) or any other reader that learns from examples. What it leaves in its folder is the
pupil's own files, `learned.json` (the latents that it met, and its curve: `Judged`, one a judgement), last of all
`reader.json` (`Learned`) and, until then, `state.safetensors`, from which a killed run goes on.

The judgement is the area under the curve and Pearson's correlation, both over all asked positions of the held-out
windows, and the area within a window. It chooses nothing: a reader learns until its budget is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from rewrite.engines import learning
from rewrite.engines.learned import LEARNED, Learned
from rewrite.engines.learning import STATE, Moment, Step, attend
from rewrite.run.files import write_json
from rewrite.simulators.examples import Example, Lessons

READER = "reader.json"


@runtime_checkable
class Pupil(learning.Pupil, Protocol):
    """Something that learns to read explanations."""

    @property
    def learned(self) -> Learned:
        """What it will have learned on."""
        ...

    @property
    def tokens(self) -> int:
        """What went through it in learning [tokens]."""
        ...

    def learn(self, lessons: Lessons, fold: int, step: int, rate: float) -> Step:
        """Learn from what it draws for a step."""
        ...

    def read(self, groups: Sequence[Sequence[Example]]) -> list[Float[np.ndarray, " asked"]]:
        """The strengths at the asked positions of each example, 0 to 9, as the pupil is now."""
        ...

    def save(self, folder: Path) -> None:
        """Write what was learned."""
        ...


@dataclass(frozen=True)
class Judged:
    """How a reader reads held-out latents; None where there is nothing to tell apart."""

    step: int
    tokens: int
    seconds: float
    loss: float | None
    """Mean over the steps since the judgement before [nats]; None before the first step."""
    auc: float | None
    auc_within: float | None
    """Mean over the windows that hold both."""
    correlation: float | None
    positions: int
    latents: int


def tune(
    pupil: Pupil, lessons: Lessons, fold: int, folder: Path, made: Mapping[str, object], told: Callable[[Judged], None]
) -> None:
    """Tune one fold's reader and write it, with what the run says of itself (`made`); `told` hears every judgement.
    Goes on where a killed run stopped. At least one budget is set."""
    folder.mkdir(exist_ok=True)
    held = lessons.hold_out(fold)

    def look(moment: Moment) -> dict[str, Any]:
        judged = judge(pupil, held, moment)
        told(judged)
        return asdict(judged)

    course = attend(pupil, lessons.config, folder, partial(pupil.learn, lessons, fold), look)
    pupil.save(folder)
    write_json(folder / LEARNED, {"latents": sorted(course.met), "curve": course.curve})
    (folder / STATE).unlink()
    write_json(folder / READER, {**asdict(pupil.learned), **made})


def judge(pupil: Pupil, held: Sequence[Sequence[Example]], moment: Moment) -> Judged:
    """What a reader makes of held-out windows."""
    read = pupil.read(held) if held else []
    examples = [example for group in held for example in group]
    truth = [example.strengths for example in examples]
    within = [area(t >= 1, r) for t, r in zip(truth, read, strict=True)]
    told = [one for one in within if one is not None]
    t, r = (np.concatenate([np.zeros(0), *parts]) for parts in (truth, read))
    varies = len(t) > 1 and t.std() > 0 and r.std() > 0
    return Judged(
        step=moment.step,
        tokens=pupil.tokens,
        seconds=moment.seconds,
        loss=moment.loss,
        auc=area(t >= 1, r),
        auc_within=float(np.mean(told)) if told else None,
        correlation=float(np.corrcoef(t, r)[0, 1]) if varies else None,
        positions=len(t),
        latents=len(held),
    )


def area(fires: Bool[np.ndarray, " n"], strengths: Float[np.ndarray, " n"]) -> float | None:
    """The area under the receiver's curve: how often a firing gets the higher of two strengths, ties half (Mann &
    Whitney 1947). None where all fire or none does."""
    count = int(fires.sum())
    if not 0 < count < len(fires):
        return None
    # Here, for the settings of every simulator are known to `--help`, which should not wait for scipy.
    from scipy.stats import rankdata

    above = rankdata(strengths)[fires].sum() - count * (count + 1) / 2
    return float(above / (count * (len(fires) - count)))
