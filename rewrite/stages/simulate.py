"""Simulate: read the explanations, predict a strength for every latent at every counted position.

`4_simulations/` holds, for each shard of the calibrate and test splits, `<split>-<shard>.safetensors` (the strengths'
CSR arrays) and `<split>-<shard>.json` (what is missing, and why), and `simulator.json` (the scale). An interrupted run
goes on from its last finished shard.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array
from tqdm import tqdm

from rewrite import plugins
from rewrite.activations import ActivationStore, pack_sparse
from rewrite.config import Config
from rewrite.records import Explanation, Text
from rewrite.store import Run, save_arrays, write_json


class TrueActivations:
    """The `Peek` of a run: what the collect stage stored for the shard at hand and the train split's maxima."""

    def __init__(self, store: ActivationStore):
        self._store, self._shard = store, ""

    def show(self, shard: str) -> None:
        """Say which shard's text is simulated next."""
        self._shard = shard

    @cached_property
    def maximum(self) -> Float[np.ndarray, " latent"]:
        """Each latent's largest activation on the train split."""
        highest = np.zeros(self._store.latents, dtype=np.float32)
        for shard in self._store.shards("train"):
            activations = self._store.load(shard).activations
            np.maximum.at(highest, activations.indices, activations.data)
        return highest

    def __call__(self, text: Text) -> csr_array:
        """The true activations of the shard at hand."""
        return self._store.load(self._shard).activations


def run(config: Config, run: Run) -> None:
    """Write `4_simulations`."""
    store = ActivationStore(run.path("2_activations"))
    explanations = load_explanations(run.path("3_explanations.jsonl"))
    name = config.simulator
    settings = plugins.settings("simulators", name, config.simulators.get(name, {}))
    truth = TrueActivations(store)
    simulator = plugins.load("simulators", name).build(explanations, store.latents, settings, truth)
    shards = [shard for split in ("calibrate", "test") for shard in store.shards(split)]
    with run.writing("4_simulations", resumable=True) as folder:
        for shard in tqdm(shards, desc="simulate", unit=" shards", disable=None):
            if (folder / f"{shard}.json").exists():
                continue
            truth.show(shard)
            strengths = simulator.simulate(store.load(shard).text)
            save_arrays(folder / f"{shard}.safetensors", pack_sparse(strengths.values))
            # The list of what is missing comes last: where it stands, the shard is whole.
            write_json(folder / f"{shard}.json", {"missing": {str(k): v for k, v in strengths.missing.items()}})
        write_json(folder / "simulator.json", {"name": name, "scale": simulator.scale})


def load_explanations(path: Path) -> list[Explanation]:
    """The explanations as the explain stage wrote them."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    return [Explanation(row["latent"], row["text"], row["why"]) for row in rows]
