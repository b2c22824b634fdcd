"""Learning by AdamW, which goes on after a kill as if nothing had been: weights, moments and the caller's word are
kept in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
CLIP = 1.0
"""The gradient's norm is held to this."""


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
