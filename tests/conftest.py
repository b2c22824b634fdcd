"""Shapes in signatures are checked as the tests run; models and corpora that several tests share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import hypothesis
import jaxtyping
import pytest
from filelock import FileLock
from jaxtyping import install_import_hook, jaxtyped
from makers.watching import aside, untraced, unwatched

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
hypothesis.settings.register_profile("suite", deadline=None)  # how long an example takes is no test's business
hypothesis.settings.load_profile("suite")
ROOM = Path(__file__).parents[1] / "rewrite"
# Files that name shapes; the others' types are mypy's business, and checking them again takes a third of the time.
SHAPED = [file for file in sorted(ROOM.rglob("*.py")) if "from jaxtyping import" in file.read_text(encoding="utf-8")]


def pytest_configure(config: pytest.Config) -> None:
    """Have the shapes checked of what is imported from now on; a process that only hands tests out imports nothing."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return
    # A function within a function is made at each call: to make its check too takes a hundred times as long.
    jaxtyping.jaxtyped = lambda **how: lambda one: one if "<locals>" in one.__qualname__ else jaxtyped(**how)(one)
    install_import_hook(
        [".".join(file.relative_to(ROOM.parent).with_suffix("").parts).removesuffix(".__init__") for file in SHAPED],
        "beartype.beartype",
    )
    gc.disable()  # What is imported stays: to look for garbage among it takes a fifth of the time.
    if sys.gettrace() is not None:
        import_libraries()


def pytest_collection_finish() -> None:
    """All is imported."""
    gc.freeze()
    gc.enable()


def import_libraries() -> None:
    """Import untraced what is slow to import, and set its long calls aside."""
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # As training sets it before it imports sparsify.
    with untraced(), redirect_stdout(None):
        import sparsify  # noqa: F401  (it brings torch and transformers)
        from matplotlib.figure import Figure
        from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Figure.savefig = aside(Figure.savefig)  # type: ignore[method-assign]
    for loaded in (PreTrainedModel, PreTrainedTokenizerBase):
        loaded.from_pretrained = classmethod(aside(loaded.from_pretrained.__func__))  # type: ignore[attr-defined]


WHOLE = {"browser", "llama", "small_run", "analysed", "outcomes", "run_folder", "stories", "diagnosed"}
"""Fixtures that start a browser or a server, or make a whole run."""
LONG = (
    *("test_splits", "test_sweep", "test_sweep_ray", "test_llm_run", "test_llm_paper", "test_llm_kill", "test_kill"),
    *("test_notebooks", "test_identities", "test_status", "test_planted", "test_study", "test_docs", "test_cli"),
    *("test_diagnose", "test_teaching", "test_replicas", "test_tune_run", "test_together", "test_page_foreign"),
    *("test_screen_run", "test_simulate_elsewhere", "test_parts_elsewhere", "test_towers", "test_engines"),
)
"""Files that take longest, in the order in which they begin, or one of the processes would end alone with them. The
first makes runs of its own while another process makes the one that they share."""
UNTRACED = {
    "test_identities",
    "test_splits",
    "test_status",
    "test_llm_run",
    "test_llm_faults",
    "test_llm_paper",
    "test_tune_run",
    "test_simulate_elsewhere",
    "test_parts_elsewhere",
    "test_planted",
    "test_kill",
    "test_notebooks",
    "test_docs",
    "test_sweep",
    "test_together",
    "test_latent_windows",
}
"""Files whose tests run whole stages again, each line and each shape of which other tests check: there neither is, nor
in their fixtures, which would take half of their time. Those of their tests that are marked `traced` are seen all the
same: nothing else runs what they run."""
SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what `make test FAST=1` leaves out, and begin with what takes longest."""
    for item in items:
        if WHOLE.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test of an untraced file as its users would: without what watches each line."""
    if item.path.stem in UNTRACED and not item.get_closest_marker("traced"):
        with unwatched():
            return (yield)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """The same of an untraced file's own fixtures; what all files share is watched whoever asks for it first."""
    if fixturedef.scope != "session" and request.path.stem in UNTRACED:
        with unwatched():
            return (yield)
    return (yield)


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
    from makers.small import small_config

    from rewrite.run.runner import go
    from rewrite.run.store import Run
    from rewrite.stages import STAGES

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "runs" / "small"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"), Run(folder, "test") as run:
        go(STAGES, small_config(), run, "collect", lambda line: None)
        with unwatched():  # Explaining is our own loops, which tests/patterns runs too.
            go(STAGES, small_config(), run, "explain", lambda line: None)
        go(STAGES, small_config(), run, "report", lambda line: None)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small chat model with random weights (tests/makers/tiny.py)."""
    from makers.tiny import make_tiny

    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def terse_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a small vocabulary, whose answers go on to their limit: a llama.cpp server lists all of it with
    each answer, and tests that ask it would wait for that."""
    from makers.tiny import make_tiny

    return make_tiny(tmp_path_factory.mktemp("models") / "terse", pieces=512, ends=False)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real browser, offline (tests/makers/browser.py)."""
    from makers.browser import open_browser

    with open_browser() as found:
        yield found
