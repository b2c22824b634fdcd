"""A study, and a run that lacks its report, that several files look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import rewrite
from rewrite.commands.study import Study
from rewrite.run import brought
from rewrite.run.files import read_json, write_json


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


@pytest.fixture(scope="session")
def analysed(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `small_config()` up to its statistics, without a report; read it, do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "analysed"
    shutil.copytree(small_run, folder)
    shutil.rmtree(folder / "7_report")
    manifest = read_json(folder / "manifest.json")
    del manifest["artefacts"]["7_report"]
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.fixture
def copy(analysed: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    shutil.copytree(analysed, tmp_path / "r")
    return tmp_path / "r"
