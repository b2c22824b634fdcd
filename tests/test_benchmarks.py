"""What the benchmarks of scale say follows from what they measured, and their random setting is one that runs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from makers.finished_runs import Made, make_run

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import growth, wide, words
from benchmarks.__main__ import BENCHMARKS
from benchmarks.__main__ import main as benchmarks_main
from benchmarks.stages import STAGES, Taken, measure
from rewrite.coder.coder import check_fit
from rewrite.coder.files import load_coder
from rewrite.run.configs import load_config
from rewrite.stages import STAGES as TABLE
from rewrite.subject.subject import load_subject


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_slope_is_the_power_whatever_a_stage_takes_at_any_size(power: float) -> None:
    sizes = [growth.COMMON.tokens * growth.TIMES**step for step in range(3)]
    seconds = tuple(7.0 + 0.1 * size**power for size in sizes)
    assert growth.slope(seconds) == pytest.approx(power)  # type: ignore[arg-type]


def test_what_hardly_grows_has_no_slope() -> None:
    assert growth.slope((2.0, 2.0 + growth.LEAST / 4, 2.0 + growth.LEAST / 2)) is None
    assert growth.slope((2.0, 1.9, 4.0)) is None, "not steadily"
    assert growth.tell_slope([2.0, 2.1, 2.2]) == "– (2.0, 2.1, 2.2 s)"


def test_one_size_is_raised_at_a_time_to_ten_times() -> None:
    assert growth.raise_size("tokens", 2) == replace(growth.COMMON, tokens=10 * growth.COMMON.tokens)
    assert growth.raise_size("documents", 1).documents == round(growth.COMMON.documents * 10**0.5)
    assert "coder.latents=1280" in growth.raise_size("latents", 2).settings()


def test_memory_is_told_beside_that_at_the_common_size() -> None:
    first, last = ({stage: Taken(1.0, 1.0, 1024 * mib) for stage in STAGES} for mib in (200, 300))
    lines = list(growth.tell_memory("tokens", first, last | {"report": Taken(1.0, 1.0, 1024 * 400)}))
    assert lines[0] == "peak memory at ten times the tokens, all stages 2.00 (200 to 400 MiB)"
    assert lines[1].startswith("train 1.50 (200 to 300 MiB); collect 1.50")


def test_the_stages_are_those_of_a_run_that_asks_for_no_more() -> None:
    sizes = load_config(None, growth.COMMON.settings())
    assert list(STAGES) == [stage.name for stage in TABLE if stage.only is None or stage.only(sizes)]


def test_a_command_that_fails_ends_the_benchmark() -> None:
    taken = measure([sys.executable, "-c", "x = b'0' * 50_000_000"])
    assert taken.peak > 50_000_000 / 1024 and taken.seconds > 0
    with pytest.raises(SystemExit, match="failed: "):
        measure([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_commands_peak_is_its_own_and_not_that_of_who_started_it() -> None:
    held = b"0" * 200_000_000
    taken = measure([sys.executable, "-S", "-c", "pass"])
    assert taken.peak < 100_000 < len(held) / 1024


def test_the_random_coder_stands_at_the_random_subject(tmp_path: Path) -> None:
    size = wide.Wide(latents=96, k=4, width=64, layers=2)
    wide.make_subject(size, tmp_path / "subject")
    wide.make_coder(size, tmp_path / "coder")
    config = load_config(None, wide.settings(size, tmp_path))
    subject, coder = load_subject(config), load_coder(tmp_path / "coder", config.hookpoint)
    check_fit(coder, subject)
    assert (coder.latents, coder.k, subject.width) == (96, 4, 64)
    assert subject.model.get_input_embeddings().weight.shape == (wide.VOCABULARY, 64)
    assert coder.encode(torch.randn(10, 64)).nnz == 40


def test_a_curve_of_words_is_read_off_finished_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few, many = 'Fires on "one two" (9).', 'Fires on "one", "two", "three" (9); "four" (5).'
    for name, text, kept in (("b", few, 0.3), ("a", many, 0.7)):
        make_run(tmp_path / "swept" / name, Made(text=text, kept=kept, noise=0.05))
    make_run(tmp_path / "alone", Made(text=few, kept=0.5, noise=0.05))
    read, heard = f"read={tmp_path / 'swept'}", f"heard={tmp_path / 'alone'}"
    words.main(str(tmp_path / "curves.png"), "planted", read, heard)
    curves = words.read_curves([read, heard])
    (first, second), (third,) = curves["read"], curves["heard"]
    assert (first.words, second.words, third.words) == (5, 8, 5)
    assert [round(p.recovered, 1) for p in (first, second, third)] == [0.3, 0.7, 0.5]
    assert first.low < first.recovered < first.high < second.low
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert capsys.readouterr().out.count("Point(") == 3


def test_an_unknown_benchmark_is_told_in_one_line_before_any_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^benchmarks: trian: no such benchmark; there are: simulate, .*page$"):
        benchmarks_main(["train", "trian"])
    assert capsys.readouterr().out == ""


def test_the_benchmarks_that_there_are_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmarks_main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and all(name in told for name in BENCHMARKS)
