"""Shapes in signatures are checked as the tests run; models and corpora that several tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOM = Path(__file__).parents[1] / "rewrite"
# Files that name shapes; the others' types are mypy's business, and checking them again takes a third of the time.
SHAPED = [file for file in sorted(ROOM.rglob("*.py")) if "from jaxtyping import" in file.read_text(encoding="utf-8")]
install_import_hook(
    [".".join(file.relative_to(ROOM.parent).with_suffix("").parts).removesuffix(".__init__") for file in SHAPED],
    "beartype.beartype",
)

from makers.small import small_config  # noqa: E402  (after the hook, which checks what it imports)

from rewrite.run.runner import go  # noqa: E402
from rewrite.run.store import Run  # noqa: E402
from rewrite.stages import STAGES  # noqa: E402

WHOLE = {"browser", "llama", "small_run", "analysed", "outcomes", "run_folder", "stories", "diagnosed"}
"""Fixtures that start a browser or a server, or make a whole run."""
LONG = (
    *("test_splits", "test_sweep", "test_sweep_ray", "test_llm_run", "test_llm_kill", "test_identities", "test_status"),
    *("test_tune_run", "test_cli", "test_notebooks", "test_study", "test_docs"),
    *("test_engines", "test_diagnose", "test_kill", "test_towers", "test_planted", "test_page_foreign", "test_compare"),
)
"""Files that take longest, in the order in which they begin, or one of the two processes would end alone with them. The
first makes runs of its own while the other process makes the one that they share."""
UNTRACED = {
    "test_identities",
    "test_splits",
    "test_status",
    "test_llm_run",
    "test_tune_run",
    "test_planted",
    "test_kill",
    "test_notebooks",
    "test_docs",
    "test_sweep",
    "test_together",
    "test_latent_windows",
}
"""Files whose tests run whole stages again, each line of which other tests trace: coverage is not counted there, which
would take a third of their time."""
SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what `make test FAST=1` leaves out, and say what coverage leaves out."""
    for item in items:
        if WHOLE.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
        if item.path.stem in UNTRACED:
            item.add_marker("no_cover")
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def stories() -> Path:
    """The folder of a real pretrained model beside the checkout."""
    folder = SHARED / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: needs the stories260K model beside the checkout")
    return folder


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder of `small_config()`, one for all processes; read it, do not change it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "runs" / "small"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"), Run(folder, "test") as run:
        go(STAGES, small_config(), run, "report", lambda line: None)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small chat model with random weights (tests/makers/tiny.py)."""
    from makers.tiny import make_tiny

    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real browser, offline (tests/makers/browser.py)."""
    from makers.browser import open_browser

    with open_browser() as found:
        yield found
