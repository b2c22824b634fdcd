"""A study that several files look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import rewrite
from rewrite.commands.study import Study
from rewrite.run import brought


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    """Classes that a file gives are forgotten for the tests of other files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(brought, "_GIVEN", {})
        yield


@pytest.fixture(scope="module")
def study(session: None, small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that goes on with a copy of a finished run."""
    folder = tmp_path_factory.mktemp("study") / "r"
    shutil.copytree(small_run, folder)
    return rewrite.study(run=folder)
