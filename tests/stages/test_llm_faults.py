"""What goes wrong where language models are asked, in a whole run: asked again, refused in one line, chosen among."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from makers.faults import fault_server
from makers.llm_runs import NOISE, config_of, run_to, strengths_of
from makers.small import small_config

from rewrite.commands.status import status
from rewrite.config import UserError
from rewrite.run.freshness import stage_keys
from rewrite.run.runner import go, plan
from rewrite.run.store import Run
from rewrite.stages import STAGES

pytestmark = pytest.mark.slow


def test_candidates_are_tried_by_the_simulator_and_priced_before(
    small_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    few = ("sample.latents=3", "explainers.llm.windows=4", "explainers.llm.trial_windows=4")
    several = ("explainers.llm.layout=contexts", "explainers.llm.candidates=2", "explainers.llm.rounds=1")
    config = config_of(tiny_model, tmp_path / "calls.sqlite", *few, *several)
    with Run(tmp_path / "r") as run:
        planned = plan(STAGES, config, run, "explain", lambda line: None)["explain"].planned
    ledger = run_to(tmp_path / "r", config, "explain")["explain"]
    rows = [json.loads(line) for line in (tmp_path / "r" / "3_explanations.jsonl").read_text().splitlines()]
    tried = [row["tried"] for row in rows if "tried" in row]
    assert tried and all(len(own) >= 2 for own in tried)
    for row in rows:
        fits = [one["fit"] for one in row.get("tried", []) if one["fit"] is not None]
        if fits:
            assert row["text"] == next(one["text"] for one in row["tried"] if one["fit"] == max(fits))
    assert planned.calls >= ledger["calls"] and planned.tokens_in >= ledger["tokens_in"]  # type: ignore[index]
    # The simulator is part of what such explanations depend on.
    other = config_of(tiny_model, tmp_path / "calls.sqlite", *few, *several, "simulators.llm.renormalise=false")
    assert stage_keys(STAGES, config)["explain"] != stage_keys(STAGES, other)["explain"]


def test_a_simulator_that_reads_no_explanations_cannot_choose(
    small_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    several = ("sample.latents=3", "explainers.llm.candidates=2", "simulator=oracle")
    with pytest.raises(UserError, match="reads no explanations, so none can be tried out with it; use another"):
        run_to(tmp_path / "r", config_of(tiny_model, tmp_path / "calls.sqlite", *several), "explain")


def test_a_model_that_does_not_answer_with_digits_stops_the_run(
    small_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    cache = tmp_path / "calls.sqlite"
    config = config_of(tiny_model, cache, "explainer=patterns", "simulators.llm.least_mass=0.1")
    with pytest.raises(UserError, match=r"probability of 0\.0.* it would say \".*least_mass = 0") as caught:
        run_to(tmp_path / "r", config, "simulate")
    assert "\n" not in str(caught.value)
    with Run(tmp_path / "r", "test") as run:
        assert run.manifest["calls"]["simulate"]["calls"] == 1, "a window in one call: nothing more was asked"


def test_faults_are_not_results_and_are_asked_again(small_run: Path, tmp_path: Path) -> None:
    """A server that is down while a stage runs, and there again: what failed is asked, and only that."""
    shutil.copytree(small_run, tmp_path / "r")
    few = ("sample.latents=2", "sample.documents=2", "sample.windows=1", "sample.positions=3")
    with fault_server() as server:
        config = small_config(
            *("simulator=llm", "simulators.llm.model=m", "simulators.llm.scheme=last_token", *NOISE, *few),
            *("engine=openai", f"engines.openai.base_url={server.base_url}", "engines.openai.retries=0"),
            f"calls.cache={tmp_path / 'calls.sqlite'}",
        )
        server.choose = lambda prompt, tries: "broken" if hash_of(prompt) % 2 else ""
        ledger = run_to(tmp_path / "r", config, "simulate")
        failed = sum(kind["requests"] for kind in ledger["simulate"]["failed"].values())  # type: ignore[index]
        assert failed > 3
        assert "failed for a reason that may have passed" in status(tmp_path / "r").write("table")
        server.choose = lambda prompt, tries: ""
        arrived = len(server.arrivals)
        run_to(tmp_path / "r", config, "simulate")
        assert len(server.arrivals) - arrived == failed
        assert not np.isnan(strengths_of(tmp_path / "r")).any()
        run_to(tmp_path / "r", config, "simulate")
        assert len(server.arrivals) - arrived == failed, "all is answered now"


def test_another_simulator_leaves_nothing_to_be_asked_again(small_run: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    few = ("sample.latents=2", "sample.documents=2", "sample.windows=1", "sample.positions=3")
    with fault_server() as server:
        server.choose = lambda prompt, tries: "broken" if hash_of(prompt) % 2 else ""
        config = small_config(
            *("simulator=llm", "simulators.llm.model=m", "simulators.llm.scheme=last_token", *NOISE, *few),
            *("engine=openai", f"engines.openai.base_url={server.base_url}", "engines.openai.retries=0"),
            f"calls.cache={tmp_path / 'calls.sqlite'}",
        )
        run_to(tmp_path / "r", config, "simulate")
    said: list[str] = []
    for _ in range(2):
        with Run(tmp_path / "r", "test") as run:
            go(STAGES, small_config(*few), run, "simulate", said.append)
    assert [line.partition(":")[0] for line in said] == ["simulate"]


def test_what_fails_for_good_is_not_asked_again(small_run: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    few = ("sample.latents=2", "sample.documents=2", "sample.windows=1", "sample.positions=3")
    with fault_server() as server:
        config = small_config(
            *("simulator=llm", "simulators.llm.model=m", "simulators.llm.scheme=last_token", *NOISE, *few),
            *("engine=openai", f"engines.openai.base_url={server.base_url}", "engines.openai.concurrency=1"),
            f"calls.cache={tmp_path / 'calls.sqlite'}",
        )
        server.choose = lambda prompt, tries: "unknown field" if len(server.arrivals) > 2 else ""
        run_to(tmp_path / "r", config, "simulate")
        arrived = len(server.arrivals)
        assert arrived > 5
        run_to(tmp_path / "r", config, "simulate")
        assert len(server.arrivals) == arrived


def hash_of(prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
