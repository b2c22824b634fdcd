"""Configs of whole runs of the real pipeline: one of twenty seconds, which all tests share, and one of five."""

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
    "evaluate.control_seeds=2",
    "cost.check=20",
    "analyse.resamples=999",
    "diagnose.documents=0",
]

TINY = [
    *SMALL,
    "corpus.max_documents=40",
    "corpus.train=18",
    "corpus.calibrate=8",
    "coder.latents=32",
    "coder.k=4",
    "coder.tokens=20000",
    "collect.train_tokens=10000",
    "evaluate.fractions=[0.5, 1.0]",
    "evaluate.random_seeds=1",
    "evaluate.control_seeds=1",
    "cost.documents=4",
    "cost.check=4",
    "cost.steps=1",
]
"""For runs of a test's own, which more would prove no better."""


def small_config(*more: str) -> Config:
    """The bundled subject on a few documents: the real pipeline, in seconds."""
    return load_config(None, [*SMALL, *more])


def tiny_config(*more: str) -> Config:
    """The same on fewer documents, with fewer latents and fewer draws."""
    return load_config(None, [*TINY, *more])
