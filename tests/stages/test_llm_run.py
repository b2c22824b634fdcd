"""Language models explain, simulate and judge in a whole run, on a real model in process and on a real server."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from makers.faults import fault_server
from makers.servers import llama_server
from makers.small import small_config

from rewrite.coder.activations import ActivationStore
from rewrite.commands.status import status
from rewrite.config import Config, UserError
from rewrite.run.configs import load_config
from rewrite.run.files import read_json
from rewrite.run.freshness import check, stage_keys
from rewrite.run.runner import go, plan
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.stages import STAGES
from rewrite.text.corpus import SPLITS

pytestmark = pytest.mark.slow

LANGUAGE = ("explainer=llm", "simulator=llm", "sample.latents=6", "sample.windows=1", "explainers.llm.windows=10")
NOISE = ("simulators.llm.least_mass=0", "analyse.least_mass=0")
"""A model of random weights does not answer with digits."""
CONFIGS = Path(__file__).parents[2] / "data" / "configs"


def config_of(model: Path, cache: Path, *more: str) -> Config:
    models = (f"explainers.llm.model={model}", f"simulators.llm.model={model}", f"score.model={model}")
    return small_config(*LANGUAGE, *NOISE, *models, f"calls.cache={cache}", *more)


def run_to(folder: Path, config: Config, last: str = "report") -> dict[str, object]:
    """Run up to a stage; returns the ledger."""
    with Run(folder, "test") as run:
        go(STAGES, config, run, last, lambda line: None)
        ledger: dict[str, object] = run.manifest["calls"]
    return ledger


@pytest.fixture(scope="module")
def base(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose coder and activations are there already; copy it."""
    folder = tmp_path_factory.mktemp("llm") / "base"
    shutil.copytree(small_run, folder)
    return folder


@pytest.fixture(scope="module")
def finished(base: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run in which a language model explains and simulates, in process."""
    folder = tmp_path_factory.mktemp("llm") / "run"
    shutil.copytree(base, folder)
    run_to(folder, config_of(tiny_model, folder.parent / "calls.sqlite"))
    return folder


def strengths_of(folder: Path) -> np.ndarray:
    """Every strength of the test split at the simulated positions, positions × rewritten latents."""
    store = ActivationStore(folder / "2_activations", SPLITS)
    simulations = Simulations(folder / "4_simulations", store.latents)
    parts = []
    for shard in store.test.shards:
        text = simulations.show(shard, store.test.load(shard).text)
        parts.append(simulations.strengths(shard, len(text.ids)).toarray()[text.counted()][:, simulations.rewritten])
    return np.concatenate(parts)


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


def test_a_rerun_asks_nothing_and_ends_with_the_same_bytes(finished: Path, base: Path, tiny_model: Path) -> None:
    again = finished.parent / "again"
    shutil.copytree(base, again)
    ledger = run_to(again, config_of(tiny_model, finished.parent / "calls.sqlite"))
    for stage in ("explain", "simulate"):
        assert ledger[stage]["calls"] == 0  # type: ignore[index]
        assert ledger[stage]["cached"] > 0  # type: ignore[index]
    for artefact in ("3_explanations.jsonl", "6_stats.json"):
        assert (again / artefact).read_bytes() == (finished / artefact).read_bytes()
    for file in (finished / "4_simulations").iterdir():
        assert (again / "4_simulations" / file.name).read_bytes() == file.read_bytes()


def test_no_renormalising_is_read_off_the_same_answers(finished: Path, base: Path, tiny_model: Path) -> None:
    paper = finished.parent / "paper"
    shutil.copytree(base, paper)
    config = config_of(tiny_model, finished.parent / "calls.sqlite", "simulators.llm.renormalise=false")
    ledger = run_to(paper, config, "simulate")
    assert ledger["simulate"]["calls"] == 0  # type: ignore[index]
    renormalised, raw = strengths_of(finished), strengths_of(paper)
    assert (raw <= renormalised + 1e-3).all() and (raw < renormalised - 1e-3).any()


def test_evaluation_counts_exactly_what_was_simulated(base: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "r")
    sampled = ("sample.positions=3", "sample.documents=9")
    config = config_of(tiny_model, tmp_path / "calls.sqlite", *sampled, "explainer=patterns")
    run_to(tmp_path / "r", config, "evaluate")
    rows = pq.read_table(tmp_path / "r" / "5_losses.parquet").to_pylist()
    tokens = {(row["arm"], row["fraction"], row["order"], row["seed"]): 0 for row in rows}
    for row in rows:
        tokens[row["arm"], row["fraction"], row["order"], row["seed"]] += row["tokens"]
    # 9 documents, one window each, 3 positions a window.
    assert set(tokens.values()) == {27}
    assert len({row["document"] for row in rows}) == 9


def test_a_dry_run_says_what_a_run_then_asks(base: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "r")
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
    finished: Path, base: Path, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(base, tmp_path / "r")
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


def test_candidates_are_tried_by_the_simulator_and_priced_before(base: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "r")
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


def test_a_simulator_that_reads_no_explanations_cannot_choose(base: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "r")
    several = ("sample.latents=3", "explainers.llm.candidates=2", "simulator=oracle")
    with pytest.raises(UserError, match="reads no explanations, so none can be tried out with it; use another"):
        run_to(tmp_path / "r", config_of(tiny_model, tmp_path / "calls.sqlite", *several), "explain")


def test_a_dry_run_leaves_a_finished_run_its_description(base: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "r")
    few = ("sample.windows=1", "sample.documents=1", "sample.positions=1", f"calls.cache={tmp_path / 'calls.sqlite'}")
    config = small_config("simulator=llm", f"simulators.llm.model={tiny_model}", *NOISE, *few)
    before = json.loads((tmp_path / "r" / "manifest.json").read_text())
    with Run(tmp_path / "r") as run:
        planned = plan(STAGES, config, run, "report", lambda line: None)
    assert planned["simulate"].planned.calls == 2 * 128
    after = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert {name: after[name] for name in before} == before


def test_a_budget_stops_a_run_that_then_goes_on(base: Path, tiny_model: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "r")
    config = config_of(tiny_model, tmp_path / "calls.sqlite")
    limited = config.model_copy(update={"calls": config.calls.model_copy(update={"max_calls": 40})})
    with pytest.raises(UserError, match=r"calls\.max_calls = 40"):
        run_to(tmp_path / "r", limited)
    ledger = run_to(tmp_path / "r", config)
    whole = json.loads((finished / "manifest.json").read_text())["calls"]
    for stage in ("explain", "simulate"):
        assert ledger[stage]["calls"] == whole[stage]["calls"]  # type: ignore[index]
    assert (tmp_path / "r" / "6_stats.json").read_bytes() == (finished / "6_stats.json").read_bytes()


@pytest.mark.timeout(300)
def test_a_real_server_gives_the_same_strengths(
    finished: Path, base: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the key that it is given is nowhere in what the run leaves."""
    monkeypatch.setenv("SECRET_OF_THE_TEST", "marker-7f3a91c2")
    shutil.copytree(base, tmp_path / "r")
    shutil.copy(finished / "3_explanations.jsonl", tmp_path / "explained.jsonl")
    few = (
        "sample.positions=2",
        "sample.documents=8",
        "sample.latents=3",
        f"explain.file={tmp_path / 'explained.jsonl'}",
    )
    shutil.copytree(base, tmp_path / "here")
    run_to(tmp_path / "here", config_of(tiny_model, tmp_path / "here.sqlite", *few), "simulate")
    with llama_server(tiny_model, tmp_path) as base_url:
        config = config_of(
            tiny_model,
            tmp_path / "calls.sqlite",
            *few,
            "engine=openai",
            f"engines.openai.base_url={base_url}",
            f"engines.openai.tokenizer={tiny_model}",
            "engines.openai.key_variable=SECRET_OF_THE_TEST",
        )
        run_to(tmp_path / "r", config)
    # llama.cpp's arithmetic is its own.
    np.testing.assert_allclose(strengths_of(tmp_path / "r"), strengths_of(tmp_path / "here"), atol=0.02)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"marker-7f3a91c2" not in file.read_bytes()


def test_the_papers_protocol_runs_small(tiny_model: Path, tmp_path: Path) -> None:
    models = [f"{role}.model={tiny_model}" for role in ("explainers.llm", "simulators.llm", "score")]
    config = load_config(CONFIGS / "paper-small.toml", [*models, f"calls.cache={tmp_path / 'calls.sqlite'}"])
    run_to(tmp_path / "r", config)
    page = (tmp_path / "r" / "7_report" / "report.md").read_text()
    rows = pq.read_table(tmp_path / "r" / "5_losses.parquet").to_pylist()
    assert {"simulated", "simulated_topk", "zero", "zero_layer"} <= {row["arm"] for row in rows}
    assert {row["order"] for row in rows if row["arm"] == "simulated"} == {"best", "random"}
    assert "the last position of a window" in page
    assert "detection" in page


def test_the_small_protocol_differs_in_sizes_and_places_alone() -> None:
    import tomllib

    large, small = (tomllib.loads((CONFIGS / f"{name}.toml").read_text()) for name in ("paper", "paper-small"))
    elsewhere = {"subject", "hookpoint", "device", "engine", "model", "source", "stream", "engines", "calls"}
    sizes = {
        "max_documents",
        "train",
        "calibrate",
        "test",
        "latents",
        "k",
        "tokens",
        "batch",
        "train_tokens",
        "windows",
    }
    sizes |= {"min_windows", "max_words", "together", "fractions", "random_seeds", "least_mass"}

    check(STAGES, load_config(CONFIGS / "paper.toml"))

    def compare(a: dict[str, object], b: dict[str, object]) -> None:
        for key in {*a, *b} - elsewhere - sizes:
            if isinstance(a.get(key), dict):
                compare(a[key], b[key])  # type: ignore[arg-type]
            else:
                assert a.get(key) == b.get(key), key

    compare(large, small)


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


def test_a_model_that_does_not_answer_with_digits_stops_the_run(base: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "r")
    cache = tmp_path / "calls.sqlite"
    config = config_of(tiny_model, cache, "explainer=patterns", "simulators.llm.least_mass=0.1")
    with pytest.raises(UserError, match=r"probability of 0\.0.* it would say \".*least_mass = 0") as caught:
        run_to(tmp_path / "r", config, "simulate")
    assert "\n" not in str(caught.value)
    with Run(tmp_path / "r", "test") as run:
        assert run.manifest["calls"]["simulate"]["calls"] == 1, "a window in one call: nothing more was asked"


def test_without_a_mind_to_say_digits_there_is_no_verdict(finished: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "r")
    config = config_of(tiny_model, finished.parent / "calls.sqlite", "analyse.least_mass=0.1")
    run_to(tmp_path / "r", config)
    stats = read_json(tmp_path / "r" / "6_stats.json")
    assert stats["verdict"]["sentence"].startswith("No verdict: where ratings are read")
    assert {row["verdict"] for row in stats["comparisons"]} == {None}
    assert "hardly answers with digits" in (tmp_path / "r" / "7_report" / "index.html").read_text()


def test_faults_are_not_results_and_are_asked_again(base: Path, tmp_path: Path) -> None:
    """A server that is down while a stage runs, and there again: what failed is asked, and only that."""
    shutil.copytree(base, tmp_path / "r")
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


def test_what_fails_for_good_is_not_asked_again(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "r")
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
