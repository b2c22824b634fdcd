"""Tunes a reader: step by step within a budget, judged as it goes on latents that it must not learn from.

`tune` works on one fold and knows nothing of what is tuned: a `Pupil` is a language model with an adapter
(`rewrite.simulators.readers`) or any other reader that learns from examples. What it leaves in its folder is the
pupil's own files, `learned.json` (the latents that it met, and its curve: `Judged`, one a judgement), last of all
`reader.json` (`Learned`) and, until then, `state.safetensors`, from which a killed run goes on.

The judgement is the area under the curve and Pearson's correlation, both over all asked positions of the held-out
windows, and the area within a window. It chooses nothing: a reader learns until its budget is spent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from rewrite.config import TuneConfig
from rewrite.run.files import write_json
from rewrite.simulators.examples import Example, Lessons

WARMUP = 20
"""Steps over which the learning rate rises [steps]."""
LEAST_RATE = 0.1
"""Of the learning rate, at the end of the budget."""
STATE = "state.safetensors"
LEARNED = "learned.json"
READER = "reader.json"


@dataclass(frozen=True)
class Learned:
    """What a reader must have in common with who reads with it."""

    model: str
    """Its name, for the user."""
    base: str
    """A hash of what it holds."""
    layout: str
    """A hash of how explanation and text are laid out, or of the head's shape."""


@runtime_checkable
class Pupil(Protocol):
    """Something that learns to read explanations."""

    @property
    def learned(self) -> Learned:
        """What it will have learned on."""
        ...

    @property
    def tokens(self) -> int:
        """What went through it in learning [tokens]."""
        ...

    def spent(self, config: TuneConfig) -> float:
        """The share of its budget that is spent; 0 where it has none but time."""
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

    def keep(self, file: Path, told: dict[str, Any]) -> None:
        """Write all that learning needs to go on, with what the caller wants to know."""
        ...

    def go_on(self, file: Path) -> dict[str, Any]:
        """Go on from there."""
        ...


@dataclass(frozen=True)
class Step:
    """A step's loss, before it [nats], and the latents that it was about."""

    loss: float
    latents: frozenset[int]


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
    config = lessons.config
    folder.mkdir(exist_ok=True)
    held, state = lessons.hold_out(fold), folder / STATE
    step, before, met, curve = 0, 0.0, set[int](), list[Judged]()
    if state.exists():
        was = pupil.go_on(state)
        step, before, met, curve = was["step"], was["seconds"], set(was["met"]), [Judged(**row) for row in was["curve"]]
    began = time.monotonic() - before
    losses: list[float] = []
    while True:
        seconds = time.monotonic() - began
        share = max(pupil.spent(config), seconds / 60 / config.minutes if config.minutes else 0)
        if (step % config.every == 0 or share >= 1) and (not curve or curve[-1].step < step):
            curve.append(judge(pupil, held, step, seconds, float(np.mean(losses)) if losses else None))
            told(curve[-1])
            losses = []
            kept = {"step": step, "seconds": seconds, "met": sorted(met), "curve": [asdict(one) for one in curve]}
            pupil.keep(state, kept)
        if share >= 1:
            break
        rate = config.learning_rate * min(1, (step + 1) / WARMUP) * (1 - (1 - LEAST_RATE) * share)
        done = pupil.learn(lessons, fold, step, rate)
        losses.append(done.loss)
        met |= done.latents
        step += 1
    pupil.save(folder)
    write_json(folder / LEARNED, {"latents": sorted(met), "curve": [asdict(one) for one in curve]})
    state.unlink()
    write_json(folder / READER, {**asdict(pupil.learned), **made})


def judge(pupil: Pupil, held: Sequence[Sequence[Example]], step: int, seconds: float, loss: float | None) -> Judged:
    """What a reader makes of held-out windows."""
    read = pupil.read(held) if held else []
    examples = [example for group in held for example in group]
    truth = [example.strengths for example in examples]
    within = [area(t >= 1, r) for t, r in zip(truth, read, strict=True)]
    told = [one for one in within if one is not None]
    t, r = (np.concatenate([np.zeros(0), *parts]) for parts in (truth, read))
    varies = len(t) > 1 and t.std() > 0 and r.std() > 0
    return Judged(
        step=step,
        tokens=pupil.tokens,
        seconds=round(seconds, 1),
        loss=loss,
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
