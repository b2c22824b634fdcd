"""Language models explain, simulate and judge in a whole run, on a real model in process and on a real server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
from makers.llm_runs import NOISE, config_of, run_to, strengths_of
from makers.servers import llama_server
from makers.small import small_config

from rewrite.coder.activations import ActivationStore
from rewrite.commands.status import status
from rewrite.config import Control, UserError
from rewrite.run.files import read_json
from rewrite.run.runner import plan
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.stages import STAGES
from rewrite.text.corpus import SPLITS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(small_run: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run in which a language model explains and simulates, in process."""
    folder = tmp_path_factory.mktemp("llm") / "run"
    shutil.copytree(small_run, folder)
    run_to(folder, config_of(tiny_model, folder.parent / "calls.sqlite"))
    return folder


def test_a_whole_run_ends_with_a_report_of_what_was_asked(finished: Path) -> None:
    page = (finished / "7_report" / "report.md").read_text()
    stats = json.loads((finished / "6_stats.json").read_text())
    manifest = json.loads((finished / "manifest.json").read_text())
    assert stats["rewritten"] == 6
    assert "6 latents, the others keep their true values; 1 windows of a document" in page
    assert "Calls of language models" in page
    explanations = [json.loads(line) for line in (finished / "3_explanations.jsonl").read_text().splitlines()]
    assert len(explanations) == 6
    assert all(0 < len(e["text"].split()) <= 40 for e in explanations if e["text"] is not None)
    assert any(e["text"] for e in explanations), "a small model's answers are words, if not sense"
    shards = [json.loads(p.read_text()) for p in sorted((finished / "4_simulations").glob("*-*.json"))]
    assert all(shard["faults"] == {} for shard in shards)
    assert manifest["calls"]["simulate"]["calls"] > 0
    assert set(manifest["prompts"]) >= {"explain.jinja", "simulate_all_at_once.jinja"}


def test_strengths_differ_from_token_to_token_and_from_latent_to_latent(finished: Path) -> None:
    strengths = strengths_of(finished)
    explained = ~np.isnan(strengths).all(0) & (np.abs(strengths).sum(0) > 0)
    assert explained.sum() >= 2
    assert (strengths[:, explained].std(0) > 0.01).all()
    assert strengths[:, explained].std(1).mean() > 1e-3
    assert np.nanmin(strengths) >= 0 and np.nanmax(strengths) <= 9


def test_a_rerun_asks_nothing_and_ends_with_the_same_bytes(finished: Path, small_run: Path, tiny_model: Path) -> None:
    again = finished.parent / "again"
    shutil.copytree(small_run, again)
    ledger = run_to(again, config_of(tiny_model, finished.parent / "calls.sqlite"), "analyse")
    for stage in ("explain", "simulate"):
        assert ledger[stage]["calls"] == 0  # type: ignore[index]
        assert ledger[stage]["cached"] > 0  # type: ignore[index]
    for artefact in ("3_explanations.jsonl", "6_stats.json"):
        assert (again / artefact).read_bytes() == (finished / artefact).read_bytes()
    for file in (finished / "4_simulations").iterdir():
        assert (again / "4_simulations" / file.name).read_bytes() == file.read_bytes()


def test_no_renormalising_is_read_off_the_same_answers(finished: Path, small_run: Path, tiny_model: Path) -> None:
    paper = finished.parent / "paper"
    shutil.copytree(small_run, paper)
    config = config_of(tiny_model, finished.parent / "calls.sqlite", "simulators.llm.renormalise=false")
    ledger = run_to(paper, config, "simulate")
    assert ledger["simulate"]["calls"] == 0  # type: ignore[index]
    renormalised, raw = strengths_of(finished), strengths_of(paper)
    assert (raw <= renormalised + 1e-3).all() and (raw < renormalised - 1e-3).any()


def test_evaluation_counts_exactly_what_was_simulated(small_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    every = f"evaluate.controls={json.dumps(get_args(Control))}"
    sampled = ("sample.positions=3", "sample.documents=9", every)
    config = config_of(tiny_model, tmp_path / "calls.sqlite", *sampled, "explainer=patterns")
    run_to(tmp_path / "r", config, "evaluate")
    rows = pq.read_table(tmp_path / "r" / "5_losses.parquet").to_pylist()
    tokens = {(row["arm"], row["fraction"], row["order"], row["seed"]): 0 for row in rows}
    for row in rows:
        tokens[row["arm"], row["fraction"], row["order"], row["seed"]] += row["tokens"]
    # 9 documents, one window each, 3 positions a window.
    assert set(tokens.values()) == {27}
    assert len({row["document"] for row in rows}) == 9


def test_a_dry_run_says_what_a_run_then_asks(small_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    config = config_of(tiny_model, tmp_path / "calls.sqlite", "explainer=patterns")
    with Run(tmp_path / "r") as run:
        planned = plan(STAGES, config, run, "report", lambda line: None)
        assert "calls" not in run.manifest
        assert not (tmp_path / "r" / "4_simulations" / "simulator.json").exists() or planned
    ledger = run_to(tmp_path / "r", config, "simulate")
    assert list(planned) == ["simulate"]
    assert planned["simulate"].planned.calls == ledger["simulate"]["calls"]  # type: ignore[index]
    assert planned["simulate"].planned.tokens_in == ledger["simulate"]["tokens_in"]  # type: ignore[index]


def test_a_dry_run_before_anything_is_explained_bounds_what_follows(
    finished: Path, small_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    with Run(tmp_path / "r") as run:
        planned = plan(STAGES, config_of(tiny_model, tmp_path / "calls.sqlite"), run, "report", lambda line: None)
    ledger = read_json(finished / "manifest.json")["calls"]
    rows = [json.loads(line) for line in (finished / "3_explanations.jsonl").read_text().splitlines()]
    texts = [row["text"] for row in rows if row["text"] is not None]
    assert len(set(texts)) == len(texts), "equal explanations would be asked about once"
    assert planned["explain"].planned.calls == ledger["explain"]["calls"]
    assert planned["explain"].planned.tokens_in == ledger["explain"]["tokens_in"]
    assert planned["explain"].planned.tokens_out >= ledger["explain"]["tokens_out"]
    assert planned["simulate"].planned.calls * len(texts) == ledger["simulate"]["calls"] * len(rows)
    assert planned["simulate"].planned.tokens_in >= ledger["simulate"]["tokens_in"]


def test_a_dry_run_leaves_a_finished_run_its_description(small_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    few = ("sample.windows=1", "sample.documents=1", "sample.positions=1", f"calls.cache={tmp_path / 'calls.sqlite'}")
    config = small_config("simulator=llm", f"simulators.llm.model={tiny_model}", *NOISE, *few)
    before = json.loads((tmp_path / "r" / "manifest.json").read_text())
    with Run(tmp_path / "r") as run:
        planned = plan(STAGES, config, run, "report", lambda line: None)
    assert planned["simulate"].planned.calls == 2 * 128
    after = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert {name: after[name] for name in before} == before


def test_a_budget_stops_a_run_that_then_goes_on(
    small_run: Path, tiny_model: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    config = config_of(tiny_model, tmp_path / "calls.sqlite")
    limited = config.model_copy(update={"calls": config.calls.model_copy(update={"max_calls": 40})})
    with pytest.raises(UserError, match=r"calls\.max_calls = 40"):
        run_to(tmp_path / "r", limited)
    ledger = run_to(tmp_path / "r", config, "analyse")
    whole = json.loads((finished / "manifest.json").read_text())["calls"]
    for stage in ("explain", "simulate"):
        assert ledger[stage]["calls"] == whole[stage]["calls"]  # type: ignore[index]
    assert (tmp_path / "r" / "6_stats.json").read_bytes() == (finished / "6_stats.json").read_bytes()


@pytest.mark.timeout(300)
def test_a_real_server_gives_the_same_strengths(
    finished: Path, small_run: Path, terse_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the key that it is given is nowhere in what the run leaves."""
    monkeypatch.setenv("SECRET_OF_THE_TEST", "marker-7f3a91c2")
    shutil.copytree(small_run, tmp_path / "r")
    shutil.copy(finished / "3_explanations.jsonl", tmp_path / "explained.jsonl")
    few = (
        "sample.positions=2",
        "sample.documents=8",
        "sample.latents=3",
        f"explain.file={tmp_path / 'explained.jsonl'}",
    )
    shutil.copytree(small_run, tmp_path / "here")
    run_to(tmp_path / "here", config_of(terse_model, tmp_path / "here.sqlite", *few), "simulate")
    with llama_server(terse_model, tmp_path) as base_url:
        config = config_of(
            terse_model,
            tmp_path / "calls.sqlite",
            *few,
            "engine=openai",
            f"engines.openai.base_url={base_url}",
            f"engines.openai.tokenizer={terse_model}",
            "engines.openai.key_variable=SECRET_OF_THE_TEST",
        )
        run_to(tmp_path / "r", config)
    # llama.cpp's arithmetic is its own.
    np.testing.assert_allclose(strengths_of(tmp_path / "r"), strengths_of(tmp_path / "here"), atol=0.02)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"marker-7f3a91c2" not in file.read_bytes()


def test_what_the_model_says_outside_the_digits_is_told(finished: Path) -> None:
    """A model of random weights spreads over its whole vocabulary; the numbers are those of the strengths on disk."""
    stats = read_json(finished / "6_stats.json")
    mass, store = stats["mass"], ActivationStore(finished / "2_activations", SPLITS)
    simulations = Simulations(finished / "4_simulations", store.latents)
    inside = np.concatenate([1 - simulations.outside(name).astype(float) for name in store.test.shards])  # type: ignore[union-attr]
    assert mass["predictions"] == len(inside) == sum(row["predictions"] for row in mass["positions"])
    assert mass["mean"] == pytest.approx(inside.mean())
    assert mass["median"] == pytest.approx(np.median(inside), abs=2e-3) and mass["median"] < 0.1
    assert mass["p10"] == pytest.approx(np.quantile(inside, 0.1), abs=2e-3)
    assert "made to look like ratings" in stats["warnings"][0]
    page = (finished / "7_report" / "report.md").read_text()
    assert "made to look like ratings" in page and "median mass on digits" in page
    assert "Mass on digits where ratings are read" in status(finished).write("table")


def test_without_a_mind_to_say_digits_there_is_no_verdict(finished: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "r")
    config = config_of(tiny_model, finished.parent / "calls.sqlite", "analyse.least_mass=0.1")
    run_to(tmp_path / "r", config)
    stats = read_json(tmp_path / "r" / "6_stats.json")
    assert stats["verdict"]["sentence"].startswith("No verdict: where ratings are read")
    assert {row["verdict"] for row in stats["comparisons"]} == {None}
    assert "hardly answers with digits" in (tmp_path / "r" / "7_report" / "index.html").read_text()
