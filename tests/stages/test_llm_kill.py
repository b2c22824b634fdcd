"""A run that is killed ten times while a server answers ends like an unbroken one, and pays for nothing twice."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from makers.commands import Command
from makers.servers import Counts, counting_proxy, llama_server
from makers.small import SMALL
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

KILLS, CONCURRENCY, LIST = 10, 2, 3
SAMPLE = ("sample.latents=4", "sample.documents=5", "sample.windows=1", "sample.positions=3")


def start(folder: Path, model: Path, base_url: str, cache: Path) -> Command:
    language = [
        "simulator=llm",
        "simulators.llm.least_mass=0",
        f"simulators.llm.model={model}",
        "engine=openai",
        f"engines.openai.base_url={base_url}",
        f"engines.openai.tokenizer={model}",
        f"engines.openai.concurrency={CONCURRENCY}",
        f"engines.openai.list_size={LIST}",
        f"calls.cache={cache}",
    ]
    settings = [word for setting in (*SMALL, *SAMPLE, *language) for word in ("--set", setting)]
    return Command("simulate", "--run", str(folder), *settings)


def kill_after(process: Command, counts: Counts, wanted: int) -> bool:
    """Kill once the server has been asked so many prompts in all; False where the run ended before."""
    while process.poll() is None:
        if counts.total >= wanted:
            process.kill()
            return True
        time.sleep(0.005)
    assert process.wait() == 0
    return False


@pytest.mark.timeout(600)
def test_a_run_killed_ten_times_asks_for_nothing_twice(small_run: Path, terse_model: Path, tmp_path: Path) -> None:
    with llama_server(terse_model, tmp_path) as server:
        with counting_proxy(server) as counts:
            shutil.copytree(small_run, tmp_path / "whole")
            assert start(tmp_path / "whole", terse_model, counts.base_url, tmp_path / "whole.sqlite").wait() == 0
            distinct = counts.total
        with counting_proxy(server) as counts:
            draws = random.Random(1)
            moments = sorted(draws.uniform(0.02, 0.95) * distinct for _ in range(KILLS))
            shutil.copytree(small_run, tmp_path / "killed")
            killed = 0
            for number, moment in enumerate(moments):
                process = start(tmp_path / "killed", terse_model, counts.base_url, tmp_path / "killed.sqlite")
                # What was in flight at each kill is asked again, and counts again.
                killed += kill_after(process, counts, int(moment) + number * CONCURRENCY * LIST // 2)
            assert start(tmp_path / "killed", terse_model, counts.base_url, tmp_path / "killed.sqlite").wait() == 0
            asked = counts.total
        with counting_proxy(server) as counts:
            shutil.copytree(small_run, tmp_path / "again")
            assert start(tmp_path / "again", terse_model, counts.base_url, tmp_path / "killed.sqlite").wait() == 0
            assert counts.total == 0, "what was paid for is never asked again"
    assert killed == KILLS
    assert distinct == 4 * 10 * 3
    assert distinct <= asked <= distinct + KILLS * CONCURRENCY * LIST
    whole, ended, again = (tmp_path / name / "4_simulations" for name in ("whole", "killed", "again"))
    names = sorted(file.name for file in whole.iterdir())
    assert names == sorted(file.name for file in ended.iterdir())
    for name in names:
        assert (ended / name).read_bytes() == (again / name).read_bytes(), "an unbroken run on the same answers"
        if name.endswith(".safetensors"):
            compare(load_file(whole / name), load_file(ended / name))


def compare(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Equal, but for the last bits of a server's answers: they depend on which prompts it happened to read together."""
    assert one.keys() == other.keys()
    for name, values in one.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, other[name], rtol=4e-3, err_msg=name)
        else:
            np.testing.assert_array_equal(values, other[name], err_msg=name)
