"""The config of a whole run of the real pipeline, in seconds."""

from __future__ import annotations

from rewrite.config import Config
from rewrite.run.configs import load_config

SMALL = [
    "corpus.max_documents=60",
    "corpus.train=36",
    "corpus.calibrate=12",
    "corpus.window=64",
    "corpus.max_windows=3",
    "coder.latents=128",
    "coder.k=8",
    "coder.tokens=40000",
    "coder.warmup=5",
    "collect.train_tokens=40000",
    "collect.shard=5",
    "evaluate.fractions=[0.0, 0.1, 1.0]",
    "evaluate.random_seeds=2",
    "analyse.resamples=999",
    "diagnose.documents=0",
]


def small_config(*more: str) -> Config:
    """The bundled subject on a few documents: the real pipeline, in seconds."""
    return load_config(None, [*SMALL, *more])
