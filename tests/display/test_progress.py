"""How far a stage has come: lines where there is no terminal, seldom, and true."""

from __future__ import annotations

import time

import pytest

from rewrite.display import progress
from rewrite.display.progress import bar, tell


def test_a_log_is_told_what_how_far_and_how_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    assert list(bar(range(3), "simulate", "shards", 3)) == [0, 1, 2]
    with bar(what="evaluate", unit="windows", total=1200) as counted:
        counted.update(600)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("simulate: ") and "of 3 shards" in lines[0] and "\r" not in "".join(lines)
    assert any(line.startswith("evaluate: 600 of 1,200 windows, ") and line.endswith(" left") for line in lines)


def test_lines_are_seldom_and_short_stages_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in bar(range(1000), "quick", "things", 1000):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "EVERY", 0.1)
    began = time.monotonic()
    for _ in bar(range(40), "slow", "things", 40):
        time.sleep(0.01)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= (time.monotonic() - began) / 0.1


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "told"),
    [
        (3, 8, 1200.0, "simulate: 3 of 8 shards, 0.0025 a second, 33 minutes left"),
        (50, None, 10.0, "simulate: 50 shards, 5 a second"),
        (0, 8, 5.0, "simulate: 0 of 8 shards"),
        (10, 100_000, 100.0, "simulate: 10 of 100,000 shards, 0.1 a second, 277.8 hours left"),
        (9, 10, 9.0, "simulate: 9 of 10 shards, 1 a second, 1 seconds left"),
    ],
)
def test_a_line(done: int, total: int | None, elapsed: float, told: str) -> None:
    state = {"n": done, "total": total, "elapsed": elapsed, "prefix": "simulate", "unit": " shards"}
    assert tell(state) == told
