"""Learning by AdamW within a budget, which goes on after a kill as if nothing had been: weights, moments and how far it
has come are kept in one safetensors file.

`attend` knows nothing of what is learned: it gives each step its learning rate, has the learner judged now and then,
and ends when the budget is spent. The judgements choose nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rewrite.config import TuneConfig

if TYPE_CHECKING:
    import torch

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
CLIP = 1.0
"""The gradient's norm is held to this."""
WARMUP = 20
"""Steps over which the learning rate rises [steps]."""
LEAST_RATE = 0.1
"""Of the learning rate, at the end of the budget."""
STATE = "state.safetensors"
"""Where a learner stands, in its folder, until it is done."""


class Pupil(Protocol):
    """What learns."""

    def spent(self, config: TuneConfig) -> float:
        """The share of its budget that is spent; 0 where it has none but time."""
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
class Moment:
    """When a learner is judged: after how many steps, how long [s], and the mean loss since the judgement before
    [nats]; None before the first step."""

    step: int
    seconds: float
    loss: float | None


@dataclass(frozen=True)
class Course:
    """What came of it: the latents that were met, and the judgements."""

    met: frozenset[int]
    curve: list[dict[str, Any]]


def attend(
    pupil: Pupil,
    config: TuneConfig,
    folder: Path,
    learn: Callable[[int, float], Step],
    judge: Callable[[Moment], dict[str, Any]],
) -> Course:
    """Learn until the budget is spent, from where a killed run stopped: `learn(step, rate)` is one step. At least one
    budget is set. The state is left in `folder`, for the caller to delete when all else is written."""
    step, before, met, state = 0, 0.0, set[int](), folder / STATE
    curve: list[dict[str, Any]] = []
    if state.exists():
        was = pupil.go_on(state)
        step, before, met, curve = was["step"], was["seconds"], set(was["met"]), was["curve"]
    began = time.monotonic() - before
    losses: list[float] = []
    while True:
        seconds = time.monotonic() - began
        share = max(pupil.spent(config), seconds / 60 / config.minutes if config.minutes else 0)
        if (step % config.every == 0 or share >= 1) and (not curve or curve[-1]["step"] < step):
            curve.append(judge(Moment(step, round(seconds, 1), sum(losses) / len(losses) if losses else None)))
            losses = []
            pupil.keep(state, {"step": step, "seconds": seconds, "met": sorted(met), "curve": curve})
        if share >= 1:
            return Course(frozenset(met), curve)
        rate = config.learning_rate * min(1, (step + 1) / WARMUP) * (1 - (1 - LEAST_RATE) * share)
        done = learn(step, rate)
        losses.append(done.loss)
        met |= done.latents
        step += 1


def step(loss: torch.Tensor, optimizer: torch.optim.Optimizer, rate: float) -> None:
    """One step down a loss at a learning rate."""
    import torch

    weights = [one for group in optimizer.param_groups for one in group["params"]]
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(weights, CLIP)
    optimizer.step()


def keep(file: Path, weights: Mapping[str, Any], optimizer: torch.optim.Optimizer, told: Mapping[str, Any]) -> None:
    """Write a safetensors file, which is there whole or not at all."""
    import torch
    from safetensors.torch import save_file

    tensors = {name: one.detach() for name, one in weights.items()}
    for name, one in weights.items():
        own = optimizer.state.get(one, {})
        tensors |= {f"{moment}:{name}": torch.as_tensor(own[moment]) for moment in MOMENTS if moment in own}
    beside = file.with_suffix(".writing")
    whole = {name: one.contiguous() for name, one in tensors.items()}
    save_file(whole, beside, metadata={"told": json.dumps(dict(told))})
    beside.replace(file)


def go_on(file: Path, weights: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put back what `keep` wrote; returns what the caller told."""
    import torch
    from safetensors import safe_open

    opened: Any = safe_open(file, framework="pt")
    with opened as source, torch.no_grad():
        names = set(source.keys())
        for name, one in weights.items():
            one.copy_(source.get_tensor(name))
            own = {moment: source.get_tensor(f"{moment}:{name}") for moment in MOMENTS if f"{moment}:{name}" in names}
            optimizer.state[one] = {m: value if m == "step" else value.to(one.device) for m, value in own.items()}
        told: dict[str, Any] = json.loads(source.metadata()["told"])
    return told
