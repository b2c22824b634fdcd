"""The paper's protocol, whole and small, in a real model in process."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from makers.llm_runs import run_to

from rewrite.run.configs import load_config
from rewrite.run.freshness import check
from rewrite.stages import STAGES

pytestmark = pytest.mark.slow

FEWER = ("corpus.max_windows=8", "coder.tokens=10000", "cost.documents=2", "cost.check=2", "cost.steps=1")
CONFIGS = Path(__file__).parents[2] / "data" / "configs"


def test_the_papers_protocol_runs_small(tiny_model: Path, tmp_path: Path) -> None:
    models = [f"{role}.model={tiny_model}" for role in ("explainers.llm", "simulators.llm", "score")]
    config = load_config(CONFIGS / "paper-small.toml", [*models, *FEWER, f"calls.cache={tmp_path / 'calls.sqlite'}"])
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
