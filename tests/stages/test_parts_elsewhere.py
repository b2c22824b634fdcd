"""Collect, evaluate and cost by forks and by workers: the same bytes as by one process, whoever dies."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from makers.small import small_config

from rewrite.config import Config
from rewrite.run import parts
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.stages import STAGES

MADE = ("2_activations", "5_losses.parquet", "5_places.parquet", "5_costs.parquet", "5_costs.json")
ELSEWHERE = ("executor=processes", "executors.processes.workers=2", "sweep.threads=1")
EXECUTORS = ["processes", pytest.param("ray", marks=pytest.mark.skipif(not find_spec("ray"), reason="needs ray"))]


def hashes(folder: Path) -> dict[str, str]:
    """Of all artefacts."""
    entries: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["artefacts"]
    return {name: entry["sha256"] for name, entry in entries.items()}


def without(small_run: Path, folder: Path, names: tuple[str, ...] = MADE) -> Path:
    """A copy of a run that has not made these."""
    shutil.copytree(small_run, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in names:
        del manifest["artefacts"][name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def make(folder: Path, config: Config, last: str = "cost") -> None:
    with Run(folder, "test") as run:
        go(STAGES, config, run, last, lambda line: None)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_workers_make_the_same_bytes(executor: str, small_run: Path, tmp_path: Path) -> None:
    """Collect and evaluate, too, of which a worker is killed, below."""
    folder = without(small_run, tmp_path / "r", ("5_costs.parquet", "5_costs.json"))
    make(folder, small_config(*ELSEWHERE, f"executor={executor}"))
    assert hashes(folder) == hashes(small_run)
    assert not list(folder.glob(".partial-*"))


def test_forks_make_the_same_bytes(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = without(small_run, tmp_path / "r")
    monkeypatch.setattr(parts, "count_processes", lambda: 2)
    make(folder, small_config())
    assert hashes(folder) == hashes(small_run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "work", "made"),
    [("collect", "collect_shard", ("2_activations",)), ("evaluate", "score_shard", ("5_losses.parquet",))],
)
def test_a_killed_worker_changes_no_byte(
    stage: str, work: str, made: tuple[str, ...], small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = without(small_run, tmp_path / "r", made)
    with ThreadPoolExecutor() as pool:
        killed = pool.submit(kill_at_first, folder, work)
        make(folder, small_config(*ELSEWHERE), stage)
    assert f"process {killed.result()}, was killed by SIGKILL; tried again" in capsys.readouterr().err
    assert hashes(folder) == hashes(small_run)
    assert not list((folder / "2_activations").glob(".*"))


def kill_at_first(folder: Path, work: str) -> int | None:
    """Kill one of this process's workers once the first part of some work is there; which one."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if list(folder.glob(f".partial-*/**/{work}-*.safetensors")):
            for worker in multiprocessing.active_children():
                worker.kill()
                return worker.pid
        time.sleep(0.005)
    raise AssertionError("no part was made")


@pytest.mark.parametrize("stage", ["collect_shard", "score_shard", "attribute_shard"])
def test_an_interrupted_stage_goes_on_from_its_parts(
    stage: str, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, save, made = without(small_run, tmp_path / "r"), parts.save_arrays, list[str]()

    def stop_at_third(path: Path, arrays: parts.Arrays) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        note(path, arrays)

    def note(path: Path, arrays: parts.Arrays) -> None:
        made.extend([path.stem] if path.stem.startswith(stage) else [])
        save(path, arrays)

    monkeypatch.setattr(parts, "save_arrays", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        make(folder, small_config())
    monkeypatch.setattr(parts, "save_arrays", note)
    make(folder, small_config())
    assert len(made) == len(set(made)) > 2
    assert hashes(folder) == hashes(small_run)
