"""What only says something imports no library that does the work: help, the keys, a config to start from, `status`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from makers.small import small_config

import rewrite
from rewrite.run import plugins
from rewrite.run.configs import KINDS
from rewrite.run.store import Run

ARRAYS = ("numpy", "scipy", "torch", "transformers", "pyarrow", "jaxtyping", "jinja2", "matplotlib")
TABLES = ("torch", "transformers", "pyarrow", "scipy.stats", "scipy.optimize", "matplotlib")
"""For what tells of every backend: one that is a single file names a type of `scipy.sparse` beside its settings."""
BEGIN = "import sys, contextlib\nwith contextlib.suppress(SystemExit):\n    "
ROOT = Path(rewrite.__file__).parent
FOLDERS = [(kind, name) for kind in KINDS for name in plugins.names(kind) if (ROOT / kind / name).is_dir()]
"""The backends that keep their settings apart from what does the work."""


def find_imported(doing: str, libraries: tuple[str, ...] = ARRAYS) -> tuple[list[str], str]:
    """Those of the libraries that a process of its own has imported when it has done a thing, and all that it said."""
    script = f"{BEGIN}{doing}\nprint([m for m in {libraries!r} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *lines, found = said.stdout.splitlines()
    return json.loads(found.replace("'", '"')), "\n".join([*lines, said.stderr])


def find_asked(*words: str, libraries: tuple[str, ...] = ARRAYS) -> tuple[list[str], str]:
    """The same of a command."""
    return find_imported(f"import rewrite.__main__ as cli; cli.main({list(words)})", libraries)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("--help", "usage: rewrite [-h]"),
        ("run --help", "usage: rewrite run"),
        ("help", "simulators.towers"),
        ("help coder", "coder.k = "),
        ("config coder", "[coder]"),
        ("help simulators.towers", "simulators.towers.layers = "),
    ],
)
def test_what_may_be_asked_is_told_without_them(command: str, told: str) -> None:
    found, said = find_asked(*command.split())
    assert found == []
    assert told in said


def test_a_config_to_start_from_is_written_without_what_does_the_work() -> None:
    found, said = find_asked("config", libraries=TABLES)
    assert found == []
    assert "[simulators.towers]" in said and "[simulators.constant]" in said


def test_the_state_of_a_run_is_told_without_them(small_run: Path, tmp_path: Path) -> None:
    found, said = find_asked("status", "--run", str(small_run))
    assert found == []
    assert "9 of 9 stages are fresh" in said
    shutil.copytree(small_run, tmp_path / "r")
    with (tmp_path / "r" / "5_losses.parquet").open("ab") as stream:
        stream.write(b"!")
    (tmp_path / "r" / "6_stats.json").write_text("{")
    found, said = find_asked("status", "--run", str(tmp_path / "r"))
    assert found == []
    assert "damaged: 5_losses.parquet: not what was written" in said


def test_where_there_is_no_run_that_is_told_without_them(tmp_path: Path) -> None:
    found, said = find_asked("status", "--run", str(tmp_path / "none"))
    assert found == []
    assert "no run there" in said
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "manifest.json").write_text('{"artefacts": 3')
    found, said = find_asked("status", "--run", str(tmp_path / "bad"))
    assert found == []
    assert "manifest.json: not readable as JSON" in said


def test_the_state_of_a_sweep_is_told_without_them(tmp_path: Path) -> None:
    with Run(tmp_path / "one") as run:
        run.describe(small_config())
    mark = {"points": [{"name": "one"}, {"name": "two"}], "faults": {}, "command": "rewrite sweep"}
    (tmp_path / "sweep.json").write_text(json.dumps(mark))
    found, said = find_asked("status", "--run", str(tmp_path))
    assert found == []
    assert "0 of 2 points are fresh" in said and "two" in said


@pytest.mark.parametrize(
    "settings",
    [
        ["explainer=llm", "explainers.llm.model=some/model", "explainers.llm.candidates=2"],
        ["simulator=llm", "simulators.llm.model=some/model", "engine=openai", "score.scorers=['detection']"],
        ["simulator=llm", "simulators.llm.model=some/model", "simulators.llm.tune=true"],
        ["simulator=towers", "simulators.towers.model=some/model", "diagnose.documents=8", "engine=vllm"],
    ],
    ids=lambda settings: settings[0],
)
def test_a_run_of_language_models_is_told_without_them(settings: list[str], tmp_path: Path) -> None:
    with Run(tmp_path / "r") as run:
        run.describe(small_config("score.model=some/model", *settings))
    found, said = find_asked("status", "--run", str(tmp_path / "r"))
    assert found == []
    assert "not there yet" in said and "is not known" not in said


def test_settings_stand_apart_in_every_backend_that_is_a_folder() -> None:
    assert {kind for kind, _ in FOLDERS} == {"explainers", "simulators", "engines"}
    doing = f"from rewrite.run import plugins; print(*[plugins.table(*one).__module__ for one in {FOLDERS}])"
    found, said = find_imported(doing)
    assert found == []
    assert said.split() == [f"rewrite.{kind}.{name}" for kind, name in FOLDERS]


def test_executors_are_told_of_without_them() -> None:
    doing = "from rewrite.run import plugins; [plugins.load('executors', one) for one in plugins.names('executors')]"
    assert find_imported(doing)[0] == []
