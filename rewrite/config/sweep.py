"""Many runs: a grid of settings, and how its points are launched."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rewrite.config.base import Section


class SweepConfig(Section):
    """The grid of `rewrite sweep`, a run a point, and how workers are launched, for it and for the shards of a run."""

    grid: dict[str, Any] = Field(default_factory=dict)
    """The values of each key that varies: `hookpoint = ["layers.0.mlp", "layers.2.mlp"]`, `"coder.seed" = [0, 1]`.
    Every combination is a point. `--grid KEY=a,b` adds a key or takes the place of one."""
    together: int = Field(8, ge=1)
    """Points whose activations are collected in one pass over the text, where they differ in hookpoint and coder alone
    [points]; all their coders are in memory at once, and one worker makes the pass."""
    threads: int = Field(0, ge=0)
    """Threads that a worker computes with [threads]; 0 takes what the machine or `OMP_NUM_THREADS` says. The last bits
    of a sum depend on it: two runs are equal to the byte where it is the same."""
    retries: int = Field(2, ge=0)
    """How often what a worker was doing when it died is tried again, by another [tries]."""
