"""The tracker's hook: off by default, numbers as they stand in the artefacts, and a run never ends for it."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from makers.small import small_config

from rewrite.config import UserError
from rewrite.run.freshness import stage_keys
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.run.tracking import read_numbers
from rewrite.stages import STAGES


def run_again(folder: Path, *settings: str) -> list[str]:
    """Analyse anew, as far as the report; what was said."""
    said: list[str] = []
    with Run(folder, "test") as run:
        go(STAGES, small_config("analyse.margin=0.06", *settings), run, "analyse", said.append)
    return said


@pytest.fixture
def folder(small_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(small_run, tmp_path / "r")
    return tmp_path / "r"


def test_it_is_off_by_default_and_no_stage_depends_on_it(folder: Path) -> None:
    assert small_config().track.to == "none"
    assert stage_keys(STAGES, small_config()) == stage_keys(STAGES, small_config("track.to=wandb", "track.name=x"))
    assert run_again(folder) == ["analyse: its settings or its code changed"]
    assert not (folder / "track").exists()


def test_numbers_are_those_of_the_artefacts(folder: Path) -> None:
    stages = {stage.name: stage for stage in STAGES}
    stats = json.loads((folder / "6_stats.json").read_text())
    with Run(folder, "test") as run:
        coder, numbers = read_numbers(run, stages["train"]), read_numbers(run, stages["analyse"])
    metrics = json.loads((folder / "1_coder" / "metrics.json").read_text())
    assert coder.pop("seconds/1_coder") > 0
    assert coder == {f"coder/{name}": value for name, value in metrics.items()}
    by_arm = {(row["arm"], row["fraction"], row["order"]): row for row in stats["arms"]}
    assert numbers["gap"] == stats["gap"]["nats"]
    assert numbers["loss/zero"] == by_arm["zero", None, ""]["loss"]
    assert numbers["recovered/simulated/best/1"] == by_arm["simulated", 1.0, "best"]["recovered"]
    drawn = next(row for row in stats["averages"] if row["arm"] == "shuffled")
    assert numbers["recovered/shuffled/1"] == drawn["recovered"], "draws are averaged"
    assert all(isinstance(value, int | float) for value in numbers.values())


def test_what_is_not_installed_is_refused_before_any_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next((n for n in ("trackio", "wandb") if importlib.util.find_spec(n) is None), None)
    if name is None:
        pytest.skip("every tracker is installed here")
    with pytest.raises(UserError, match=rf"track.to = {name}: needs {name}; install it: pip install 'rewrite-in-words"):
        run_again(folder, f"track.to={name}")


def test_tensorboard_reads_what_was_sent(folder: Path) -> None:
    reader: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert run_again(folder, "track.to=tensorboard") == ["analyse: its settings or its code changed"]
    events = reader.EventAccumulator(str(folder / "track"))
    events.Reload()
    stats = json.loads((folder / "6_stats.json").read_text())
    (event,) = events.Scalars("gap")
    assert event.value == pytest.approx(stats["gap"]["nats"])
    assert event.step == [stage.name for stage in STAGES if stage.only is None].index("analyse") + 1
    assert "recovered/simulated/best/1" in events.Tags()["scalars"]
    assert run_again(folder, "track.to=tensorboard") == [], "nothing ran, so nothing is sent"
    assert len(list((folder / "track").iterdir())) == 1


def test_a_tracker_that_fails_is_told_of_once_and_left(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    (folder / "track").write_text("in its way")
    said = run_again(folder, "track.to=tensorboard")
    (told,) = [line for line in said if line.startswith("track.to = tensorboard: ")]
    assert "the run goes on" in told and "\n" not in told
    assert json.loads((folder / "6_stats.json").read_text())["verdict"]
