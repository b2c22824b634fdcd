"""Runs of the small pipeline in which a language model of random weights explains and simulates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from makers.small import small_config

from rewrite.coder.activations import ActivationStore
from rewrite.config import Config
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.stages import STAGES
from rewrite.text.corpus import SPLITS

LANGUAGE = ("explainer=llm", "simulator=llm", "sample.latents=6", "sample.windows=1", "explainers.llm.windows=10")
NOISE = ("simulators.llm.least_mass=0", "analyse.least_mass=0")
"""A model of random weights does not answer with digits."""
CHEAP = (
    *("cost.documents=2", "cost.check=2", "cost.steps=1", "evaluate.random_seeds=1", "evaluate.fractions=[1.0]"),
    'evaluate.controls=["mean", "zero_layer", "shuffled", "quantised"]',
)


def config_of(model: Path, cache: Path, *more: str) -> Config:
    models = (f"explainers.llm.model={model}", f"simulators.llm.model={model}", f"score.model={model}")
    return small_config(*LANGUAGE, *NOISE, *CHEAP, *models, f"calls.cache={cache}", *more)


def run_to(folder: Path, config: Config, last: str = "report") -> dict[str, object]:
    """Run up to a stage; returns the ledger."""
    with Run(folder, "test") as run:
        go(STAGES, config, run, last, lambda line: None)
        ledger: dict[str, object] = run.manifest["calls"]
    return ledger


def strengths_of(folder: Path) -> np.ndarray:
    """Every strength of the test split at the simulated positions, positions × rewritten latents."""
    store = ActivationStore(folder / "2_activations", SPLITS)
    simulations = Simulations(folder / "4_simulations", store.latents)
    parts = []
    for shard in store.test.shards:
        text = simulations.show(shard, store.test.load(shard).text)
        parts.append(simulations.strengths(shard, len(text.ids)).toarray()[text.counted()][:, simulations.rewritten])
    return np.concatenate(parts)
