"""A stage's parts: the same whoever makes them, gone on with after a kill, and told in one line where they fail."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from makers.small import small_config

from rewrite.config import UserError
from rewrite.run import parts
from rewrite.run.parts import Arrays, Share, one_by_one

SIZES = {"a": 3, "b": 1, "c": 2, "d": 5}


def square(tools: dict[str, int], name: str) -> Arrays:
    """Work that says who did it."""
    if tools[name] < 0:
        raise UserError(f"{name}: is negative; give another")
    return {"square": np.array([tools[name] ** 2]), "process": np.array([os.getpid()])}


def squares(folder: Path, *more: str, tools: dict[str, int] = SIZES) -> dict[str, tuple[int, int]]:
    folder.mkdir(exist_ok=True)
    made = Share(small_config(*more), folder)(square, tools, SIZES, "squares")
    return {name: (int(part["square"][0]), int(part["process"][0])) for name, part in zip(SIZES, made, strict=True)}


@pytest.mark.parametrize("granted", [1, 2, 3])
def test_forks_make_what_one_process_makes(granted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "count_processes", lambda: granted)
    made = squares(tmp_path)
    assert [value for value, _ in made.values()] == [9, 1, 4, 25]
    assert [int(part["square"][0]) for part in one_by_one(square, SIZES, SIZES, "squares")] == [9, 1, 4, 25]
    processes = {process for _, process in made.values()}
    assert len(processes) == granted and (os.getpid() in processes) == (granted == 1)


def test_no_fork_is_asked_for_several_threads_and_few_parts_are_not_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "count_processes", lambda: 4)
    monkeypatch.setattr(parts, "settle", lambda threads: None)  # This process goes on with what it has.
    assert {process for _, process in squares(tmp_path / "2", "sweep.threads=2").values()} == {os.getpid()}
    assert len({process for _, process in squares(tmp_path / "1", "sweep.threads=1").values()}) == 4
    monkeypatch.setattr(parts, "count_processes", lambda: 9)
    assert {process for _, process in squares(tmp_path / "9").values()} == {os.getpid()}


def test_torch_computes_in_a_fork_though_this_process_has_begun_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenMP's threads are not there in a fork, where whoever asks for some waits for ever."""
    monkeypatch.setattr(parts, "count_processes", lambda: 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        large = torch.randn(1000, 1000)
        expected = float((large @ large).sigmoid().sum())
        made = list(Share(small_config(), tmp_path)(multiply, large, SIZES, "products"))
    finally:
        torch.set_num_threads(threads)
    assert all(float(part["sum"][0]) == pytest.approx(expected, rel=1e-3) for part in made)


def multiply(large: torch.Tensor, name: str) -> Arrays:
    return {"sum": (large @ large).sigmoid().sum()[None].numpy()}


def test_what_is_made_after_a_kill_is_made_with_as_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last bits depend on their number: a run that went on would not be the one that was never stopped."""
    monkeypatch.setattr(parts, "count_processes", lambda: 2)
    share, threads = Share(small_config(), tmp_path), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = [int(part["threads"][0]) for part in share(count_threads, SIZES, SIZES, "threads")]
        (tmp_path / "count_threads-c.safetensors").unlink()
        again = [int(part["threads"][0]) for part in share(count_threads, SIZES, SIZES, "threads")]
        assert first == again == [1] * 4
        assert torch.get_num_threads() == 2, "what this process makes next is not made by one"
    finally:
        torch.set_num_threads(threads)


def count_threads(tools: object, name: str) -> Arrays:
    return {"threads": np.array([torch.get_num_threads()])}


def test_what_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "count_processes", lambda: 1)
    with pytest.raises(UserError, match="c: is negative; give another"):
        squares(tmp_path, tools=SIZES | {"c": -1})
    # The largest first; what came before the one that failed is kept.
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["square-a", "square-d"]
    assert [value for value, _ in squares(tmp_path, tools=SIZES | {"a": 100}).values()] == [9, 1, 4, 25]


def test_workers_make_the_same_and_the_first_fault_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = ("executor=processes", "executors.processes.workers=1", "sweep.threads=1")
    with pytest.raises(UserError, match="squares: 1 of 4 windows not made; c: c: is negative; give another"):
        squares(tmp_path, *elsewhere, tools=SIZES | {"c": -1})
    assert "squares: c: c: is negative" in capsys.readouterr().err
    made = squares(tmp_path, *elsewhere)
    assert [value for value, _ in made.values()] == [9, 1, 4, 25]
    assert os.getpid() not in {process for _, process in made.values()}
