"""Shards that the workers of an executor make, and what is known of those that an earlier session made."""

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
from makers.faults import fault_server
from makers.llm_runs import NOISE, config_of, run_to
from makers.small import small_config

from rewrite.config import UserError
from rewrite.run.freshness import UNANSWERED
from rewrite.stages import simulate

ELSEWHERE = ("executor=processes", "executors.processes.workers=2", "sweep.threads=1")
FEW = ("explainer=patterns", "sample.latents=2", "sample.windows=1", "sample.positions=2", "collect.shard=4")
KEPT = ("calls", "tokens_in", "tokens_out", "failed", "cached")
"""Of the ledger; each worker processes the beginning that prompts share for itself."""


def made(folder: Path) -> tuple[str, dict[str, Any]]:
    """The hash of the strengths, and what they cost."""
    manifest = json.loads((folder / "manifest.json").read_text())
    ledger = manifest["calls"]["simulate"]
    return manifest["artefacts"]["4_simulations"]["sha256"], {key: ledger[key] for key in KEPT}


@pytest.fixture(scope="module")
def alone(small_run: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model's readings of several shards, made in this process."""
    folder = tmp_path_factory.mktemp("alone") / "r"
    shutil.copytree(small_run, folder)
    run_to(folder, config_of(tiny_model, folder.parent / "calls.sqlite", *FEW, "sweep.threads=1"), "simulate")
    assert len(list((folder / "4_simulations").glob("*-*.json"))) >= 4
    return folder


@pytest.mark.traced
@pytest.mark.parametrize(
    "executor", ["processes", pytest.param("ray", marks=pytest.mark.skipif(not find_spec("ray"), reason="needs ray"))]
)
def test_workers_leave_the_same_bytes_and_the_same_ledger(
    executor: str, alone: Path, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(alone, tmp_path / "r")
    (tmp_path / "r/manifest.json").write_text(without_simulations(alone))
    elsewhere = (*ELSEWHERE, f"executor={executor}")
    run_to(tmp_path / "r", config_of(tiny_model, tmp_path / "calls.sqlite", *FEW, *elsewhere), "simulate")
    assert made(tmp_path / "r") == made(alone)
    assert {file.name for file in (tmp_path / "r/4_simulations").iterdir()} == {
        file.name for file in (alone / "4_simulations").iterdir()
    }


def without_simulations(folder: Path) -> str:
    """The manifest of a run that has spent and simulated nothing yet."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["artefacts"]["4_simulations"], manifest["calls"], manifest["ledger"]
    return json.dumps(manifest)


@pytest.mark.slow
def test_a_killed_worker_changes_no_byte(
    alone: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(alone, tmp_path / "r")
    (tmp_path / "r/manifest.json").write_text(without_simulations(alone))
    config = config_of(tiny_model, tmp_path / "calls.sqlite", *FEW, *ELSEWHERE)
    with ThreadPoolExecutor() as pool:
        killed = pool.submit(kill_at_first_shard, tmp_path / "r")
        run_to(tmp_path / "r", config, "simulate")
    assert f"process {killed.result()}, was killed by SIGKILL; tried again" in capsys.readouterr().err
    assert made(tmp_path / "r")[0] == made(alone)[0]


def kill_at_first_shard(folder: Path) -> int | None:
    """Kill one of this process's workers while shards are missing; which one."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if list(folder.glob(".partial-*-4_simulations/*-*.json")):
            for worker in multiprocessing.active_children():
                worker.kill()
                return worker.pid
        time.sleep(0.01)
    raise AssertionError("no shard was made")


def test_what_failed_before_an_interruption_is_asked_again(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard whose requests failed for a passing reason, then Ctrl-C: the session that goes on did not see them."""
    shutil.copytree(alone, tmp_path / "r")
    (tmp_path / "r/manifest.json").write_text(without_simulations(alone))
    with fault_server() as server:
        config = small_config(
            *("simulator=llm", "simulators.llm.model=m", "simulators.llm.scheme=last_token", *NOISE, *FEW),
            *("engine=openai", f"engines.openai.base_url={server.base_url}", "engines.openai.retries=0"),
            f"calls.cache={tmp_path / 'calls.sqlite'}",
        )
        save, saved = simulate.save_strengths, list[str]()

        def interrupted(folder: Path, shard: str, *more: Any) -> None:
            save(folder, shard, *more)
            saved.append(shard)
            server.choose = lambda prompt, tries: ""
            if len(saved) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(simulate, "save_strengths", interrupted)
        server.choose = lambda prompt, tries: "broken"
        with pytest.raises(KeyboardInterrupt):
            run_to(tmp_path / "r", config, "simulate")
        run_to(tmp_path / "r", config, "simulate")
        manifest = json.loads((tmp_path / "r/manifest.json").read_text())
        failed = sum(kind["requests"] for kind in manifest["calls"]["simulate"]["failed"].values())
        assert manifest["artefacts"]["4_simulations"][UNANSWERED] == failed > 0
        arrived = len(server.arrivals)
        run_to(tmp_path / "r", config, "simulate")
        assert len(server.arrivals) - arrived == failed


def test_a_shard_of_which_is_not_known_what_was_met_is_made_again(
    alone: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between a shard and what was met of it."""
    shutil.copytree(alone, tmp_path / "r")
    (tmp_path / "r/manifest.json").write_text(without_simulations(alone))
    config, save = config_of(tiny_model, tmp_path / "calls.sqlite", *FEW, "sweep.threads=1"), simulate.save_strengths
    saved: list[str] = []

    def killed(folder: Path, shard: str, *more: Any) -> None:
        save(folder, shard, *more)
        saved.append(shard)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(simulate, "save_strengths", killed)
    with pytest.raises(KeyboardInterrupt):
        run_to(tmp_path / "r", config, "simulate")
    run_to(tmp_path / "r", config, "simulate")
    assert [saved.count(shard) for shard in saved[:3]] == [1, 2, 2]
    manifest = json.loads((tmp_path / "r/manifest.json").read_text())
    assert manifest["artefacts"]["4_simulations"][UNANSWERED] == 0
    assert made(tmp_path / "r")[0] == made(alone)[0]


@pytest.mark.traced
def test_workers_share_neither_a_budget_nor_a_ledger(tiny_model: Path, tmp_path: Path) -> None:
    config = config_of(tiny_model, tmp_path / "calls.sqlite", *ELSEWHERE)
    simulate.check_elsewhere(config, 1)
    with pytest.raises(UserError, match="executor = processes: 2 machines cannot share the ledger of a run's calls"):
        simulate.check_elsewhere(config, 2)
    simulate.check_elsewhere(small_config(*ELSEWHERE), 2)
    limited = config_of(tiny_model, tmp_path / "calls.sqlite", *ELSEWHERE, "calls.max_calls=9")
    with pytest.raises(UserError, match=r"calls\.max_calls: several workers cannot keep to one budget"):
        simulate.check_elsewhere(limited, 1)
