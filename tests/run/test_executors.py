"""Executors do the same jobs to the same end, whatever dies: real processes, real kills, a real Ray where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from makers import jobs

from rewrite.config import UserError
from rewrite.run import plugins
from rewrite.run.executors import local, processes
from rewrite.run.executors.base import Executor, Job, attempt
from rewrite.run.launching import launch

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install '.[ray]'")
NAMES = ["local", "processes", pytest.param("ray", marks=needs_ray)]


def open_executor(name: str, **settings: object) -> Executor:
    module = plugins.load("executors", name)
    given = {"workers": 2, **settings} if name == "processes" else settings
    executor: Executor = module.build(module.Settings.model_validate(given), 1)
    return executor


@pytest.fixture
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))  # Ray's workers find the jobs there.
    found = open_executor(request.param)
    yield found
    found.close()


@pytest.mark.parametrize("named", ["", "4", "4,"])
def test_workers_that_want_more_gpus_than_are_named_are_refused(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    with pytest.raises(UserError, match=r"gpus = 1: 2 workers want 2 GPUs.*names [01]; set fewer"):
        open_executor("processes", gpus=1)


@pytest.mark.parametrize("threads", ["", "many", "0", "1,2"])
def test_workers_are_counted_whatever_the_environment_says(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    found = processes.build(processes.Settings(), 0)
    assert 1 <= found.slots <= (os.cpu_count() or 1)


def test_each_is_found_by_its_name() -> None:
    assert plugins.names("executors") == ["local", "processes", "ray"]
    with pytest.raises(UserError, match=r"executor = proceses: no such executor; did you mean processes\?"):
        plugins.load("executors", "proceses")


@pytest.mark.parametrize("executor", NAMES, indirect=True)
def test_jobs_are_done_after_those_that_they_need(executor: Executor, tmp_path: Path) -> None:
    told: list[str] = []
    needs = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ("elsewhere",)}
    todo = [
        Job(name, jobs.write, {"folder": str(tmp_path), "name": name, "needs": () if name == "e" else own}, own)
        for name, own in needs.items()
    ]
    assert launch(executor, todo, 0, told.append) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == list(needs)
    assert sorted(told) == sorted(f"{line.partition(':')[0]}: done, {i + 1} of 5" for i, line in enumerate(told))


@pytest.mark.parametrize("executor", NAMES, indirect=True)
def test_one_fault_keeps_no_other_from_going_on(
    executor: Executor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path)
    todo = [
        Job("refused", jobs.refuse),
        Job("broken", jobs.break_down),
        Job("waiting", jobs.write, {"folder": folder, "name": "waiting"}, ("broken",)),
        Job("done", jobs.write, {"folder": folder, "name": "done"}),
    ]
    faults = launch(executor, todo, 2, lambda line: None)
    assert faults["refused"] == "coder.k = 0: too few; set more"
    assert faults["broken"].startswith("ZeroDivisionError: a (a fault of the program")
    assert faults["waiting"] == "waits for broken"
    assert [path.name for path in tmp_path.iterdir()] == ["done"]


@pytest.mark.parametrize("executor", NAMES[1:], indirect=True)
def test_what_a_dead_worker_had_is_done_by_another(executor: Executor, tmp_path: Path) -> None:
    told: list[str] = []
    folder = str(tmp_path)
    todo = [Job("hurt", jobs.die_once, {"folder": folder, "name": "hurt"})]
    todo += [Job(name, jobs.write, {"folder": folder, "name": name}) for name in "abc"]
    assert launch(executor, todo, 1, told.append) == {}
    assert (tmp_path / "hurt").read_text() != (tmp_path / "died").read_text(), "another process did it"
    assert sum("tried again" in line for line in told) == 1


@pytest.mark.parametrize("executor", NAMES[1:], indirect=True)
def test_what_kills_every_worker_is_given_up(executor: Executor, tmp_path: Path) -> None:
    todo = [Job("deadly", jobs.die, {"folder": str(tmp_path)}), Job("next", jobs.refuse, {}, ("deadly",))]
    faults = launch(executor, todo, 2, lambda line: None)
    assert (tmp_path / "deaths").read_text() == "xxx", "once and two tries more"
    assert "its worker" in faults["deadly"] and "\n" not in faults["deadly"]
    assert faults["next"] == "waits for deadly"


@pytest.mark.parametrize("executor", NAMES[1:2], indirect=True)
def test_jobs_are_done_side_by_side(executor: Executor, tmp_path: Path) -> None:
    pairs = [("a", "b"), ("b", "a")]
    todo = [Job(a, jobs.wait_for, {"folder": str(tmp_path), "name": a, "other": b}) for a, b in pairs]
    assert launch(executor, todo, 0, lambda line: None) == {}
    assert (tmp_path / "a").read_text() != (tmp_path / "b").read_text()


def test_a_worker_has_its_own_threads_and_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    before = dict(os.environ)
    executor = processes.Processes(slots=2, threads=3, gpus=2)
    for name in ("a", "b"):
        executor.start(Job(name, jobs.tell_environment, {"folder": str(tmp_path), "name": name}))
    assert sorted(executor.wait().job.name for _ in "ab") == ["a", "b"]
    executor.close()
    assert (tmp_path / "a").read_text() == "3 4,5"
    assert (tmp_path / "b").read_text() == "3 6,7"
    assert dict(os.environ) == before


def test_how_many_workers_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert processes.build(processes.Settings(), 0).slots == 1, "a point takes all cores"
    assert processes.build(processes.Settings(), 2).slots == 4
    assert processes.build(processes.Settings(workers=3), 2).slots == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert processes.build(processes.Settings(), 0).slots == 8
    assert local.build(local.Settings(), 0).slots == 1


def test_ray_that_is_not_installed_gives_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module = plugins.load("executors", "ray")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"executor = ray: needs ray; install it: pip install 'rewrite-in-words\[ray\]'"
    ):
        module.build(module.Settings(), 0)


@needs_ray
def test_ray_says_in_one_line_what_it_has_not() -> None:
    with pytest.raises(
        UserError, match=r"executors\.ray\.gpus = 64: no node of the cluster has more than \d+; set less"
    ):
        open_executor("ray", gpus=64)
    with pytest.raises(UserError, match=r"executors\.ray\.address = 127\.0\.0\.1:1: no cluster there"):
        open_executor("ray", address="127.0.0.1:1")


def test_relative_paths_are_from_where_a_job_was_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers begin where its cluster was started."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    job = Job("a", write_one, {"file": "a.txt"})
    monkeypatch.chdir(tmp_path / "there")
    assert attempt(job) == "" and (tmp_path / "here" / "a.txt").read_text() == "1"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "a.txt").unlink()
    (tmp_path / "here").rmdir()
    assert "here: cannot be entered where the worker is (No such file or directory)" in attempt(job)


def write_one(file: str) -> None:
    Path(file).write_text("1")
