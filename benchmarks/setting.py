"""A finished run of the bundled subject that several benchmarks measure on."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from rewrite.config import Config
from rewrite.run.configs import load_config
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.stages import STAGES

SETTINGS = [
    "corpus.train=200",
    "corpus.calibrate=20",
    "corpus.test=40",
    "corpus.max_windows=8",
    "coder.tokens=100_000",
    "collect.train_tokens=100_000",
]


def config(*more: str) -> Config:
    """The default config at a size that takes a minute."""
    return load_config(None, [*SETTINGS, *more])


@functools.cache
def finished_run() -> Path:
    """A run folder, finished up to the simulations."""
    folder = Path(tempfile.mkdtemp(prefix="rewrite-bench-"))
    with Run(folder, "bench") as run:
        go(STAGES, config(), run, "simulate", lambda line: None)
    return folder
