"""Shapes in signatures are checked whenever the tests run; models and corpora that several tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
install_import_hook("rewrite", "beartype.beartype")

from rewrite.config import Config, load_config  # noqa: E402  (after the hook, which checks what it imports)
from rewrite.running import go  # noqa: E402
from rewrite.store import Run  # noqa: E402

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def stories() -> Path:
    """The folder of a real pretrained model beside the checkout."""
    folder = SHARED / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: needs the stories260K model beside the checkout")
    return folder


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
]


def small_config(*more: str) -> Config:
    """The bundled subject on a few documents: the real pipeline, in seconds."""
    return load_config(None, [*SMALL, *more])


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder of `small_config()`; read it, do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    with Run(folder, "test") as run:
        go(small_config(), run, "report", lambda line: None)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small chat model with random weights (tests/tiny.py)."""
    from tiny import make_tiny

    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real browser, offline (tests/browser.py)."""
    from browser import open_browser

    with open_browser() as found:
        yield found
