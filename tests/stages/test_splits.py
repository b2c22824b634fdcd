"""No stage learns from a split that it may not: where only that split's documents change, all that it made stays the
same, byte for byte.

Three runs of the whole pipeline: `plain`; `other_test`, whose test documents have other texts, all but those of the
first shard; `other_calibrate`, whose calibrate documents have. Where a document of the test split stays, its losses
stay, in every arm: they rest on calibrators, an order of latents, means, thresholds, probes and draws that no test
document may have touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from makers.small import small_config

from rewrite.coder.activations import ActivationStore
from rewrite.config import Config
from rewrite.run.arrays import load_arrays
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.stages import STAGES
from rewrite.statistics.curves import load_curves
from rewrite.text.corpus import SPLITS, split_documents
from rewrite.text.documents import Document
from rewrite.text.sources import read_corpus

pytestmark = pytest.mark.slow

SHARD = 4
TEST = 12
QUICK = ("corpus.train=24", "corpus.calibrate=8", f"corpus.test={TEST}", "coder.tokens=15000", f"collect.shard={SHARD}")
SHORT = "explainers.patterns.max_words=8"
"""Attention over an explanation costs the square of its length."""
LEARNS = ("sample.latents=20", "tune.latents=20", "tune.held_out=4", "tune.every=8", "evaluate.fractions=[0.5, 1.0]")
TOWERS = ("layers=[0, 1]", "hidden=16", "rank=8", "steps=8", "latents=8", "others=64")
STAYS = next(seed for seed in range(99) if np.random.default_rng([seed, 0]).permutation(TEST)[0] < SHARD)
"""The seed by which the one document that costs are taken on is of the first shard."""
COSTS = ("cost.documents=1", "cost.check=2", "cost.steps=1", f"cost.seed={STAYS}")


@dataclass(frozen=True)
class Runs:
    """Finished runs by the split whose texts are others; what they share is the config, but for the corpus."""

    plain: Path
    other_test: Path
    other_calibrate: Path


def write_corpus(folder: Path, documents: Sequence[Document]) -> Path:
    folder.mkdir()
    for document in documents:
        (folder / document.name).write_text(document.text, encoding="utf-8")
    return folder


def configure(corpus: Path, model: Path) -> Config:
    towers = [f"simulators.towers.{setting}" for setting in (*TOWERS, f"model={model}")]
    return small_config("simulator=towers", f"corpus.source={corpus}", *QUICK, SHORT, *LEARNS, *COSTS, *towers)


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("splits")
    found = read_corpus(small_config().corpus).documents
    named = [Document(f"{number:02d}.txt", d.text[:4000]) for number, d in enumerate(found)]
    more = read_corpus(small_config("corpus.max_documents=150").corpus).documents
    own, spare = named[:44], [d.text for d in more[-44:]]
    splits = split_documents(own, configure(write_corpus(folder / "plain", own), tiny_model).corpus)
    changed = {"other_test": splits["test"][SHARD:], "other_calibrate": splits["calibrate"]}
    for name, others in changed.items():
        texts = [Document(d.name, spare[i][:4000]) if i in others else d for i, d in enumerate(own)]
        write_corpus(folder / name, texts)
    for name in ("plain", *changed):
        with Run(folder / f"run_{name}", "test") as run:
            go(STAGES, configure(folder / name, tiny_model), run, "cost", lambda line: None)
    return Runs(*(folder / f"run_{name}" for name in ("plain", "other_test", "other_calibrate")))


def contents(folder: Path, *patterns: str) -> dict[str, bytes]:
    """The bytes of the files that a pattern names, by their place in the run."""
    found = {str(file.relative_to(folder)): file.read_bytes() for pattern in patterns for file in folder.glob(pattern)}
    assert found, f"no {' or '.join(patterns)} in {folder}"
    return found


def check_same(one: Path, two: Path, *patterns: str) -> None:
    own, other = contents(one, *patterns), contents(two, *patterns)
    assert own.keys() == other.keys()
    assert [name for name in own if own[name] != other[name]] == []


def keep_learned(found: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in found.items() if name.endswith(".safetensors")}


def test_the_runs_differ_where_they_should(runs: Runs) -> None:
    for split, other in (("test", runs.other_test), ("calibrate", runs.other_calibrate)):
        own, changed = (ActivationStore(run / "2_activations", SPLITS).split(split) for run in (runs.plain, other))
        assert own.names == changed.names
        last = own.shards[-1]
        assert not np.array_equal(own.load(last).text.ids, changed.load(last).text.ids)


def test_a_stage_reads_the_splits_that_it_names(runs: Runs) -> None:
    store = ActivationStore(runs.plain / "2_activations", ("train",))
    with pytest.raises(AssertionError, match="split test is not read here, only train"):
        store.test  # noqa: B018
    with pytest.raises(AssertionError, match="not of the split train"):
        store.train.load("test-00000")


def test_the_coder_learns_from_the_train_split(runs: Runs) -> None:
    for other in (runs.other_test, runs.other_calibrate):
        check_same(runs.plain, other, "1_coder/layers*/*")
    check_same(runs.plain, runs.other_test, "1_coder/metrics.json")
    own, changed = (contents(run, "1_coder/metrics.json") for run in (runs.plain, runs.other_calibrate))
    assert own != changed, "a coder is measured on documents that it did not learn from"


def test_a_split_is_collected_by_itself(runs: Runs) -> None:
    mean, *others = "2_activations/means.safetensors", "2_activations/train-*", "2_activations/calibrate-*"
    check_same(runs.plain, runs.other_test, mean, *others)
    check_same(runs.plain, runs.other_calibrate, "2_activations/train-*", "2_activations/test-*")


def test_explanations_are_made_from_the_train_split(runs: Runs) -> None:
    for other in (runs.other_test, runs.other_calibrate):
        check_same(runs.plain, other, "3_explanations.jsonl")


def test_a_reader_is_tuned_on_the_train_split(runs: Runs) -> None:
    for other in (runs.other_test, runs.other_calibrate):
        own, changed = (keep_learned(contents(run, "4_reader/*/*")) for run in (runs.plain, other))
        assert own == changed and len(own) >= 2


def test_a_simulation_of_one_split_does_not_know_the_other(runs: Runs) -> None:
    check_same(runs.plain, runs.other_test, "4_simulations/calibrate-*", "4_simulations/test-00000.*")
    check_same(runs.plain, runs.other_calibrate, "4_simulations/test-*")


def test_latents_are_scored_on_the_calibrate_split(runs: Runs) -> None:
    check_same(runs.plain, runs.other_test, "4_scores.parquet")
    assert contents(runs.plain, "4_scores.parquet") != contents(runs.other_calibrate, "4_scores.parquet")


def test_calibrators_and_thresholds_are_fitted_on_the_calibrate_split(runs: Runs) -> None:
    own, other, third = (load_arrays(run / "5_calibration.safetensors") for run in vars(runs).values())
    fitted = own.keys() - vars(load_curves(runs.plain / "5_calibration.safetensors").test)
    assert fitted == {"scale", "mean", "values"}
    for name in fitted:
        np.testing.assert_array_equal(own[name], other[name], name)
    assert any(not np.array_equal(own[name], third[name]) for name in fitted)
    kept = ["density", "maximum", "mean"]
    tables = [pq.read_table(run / "5_latents.parquet", columns=kept) for run in (runs.plain, runs.other_test)]
    assert tables[0].equals(tables[1])


def losses_of_those_that_stay(run: Path) -> pd.DataFrame:
    frame = pq.read_table(run / "5_losses.parquet").to_pandas()
    return frame[frame["document"] < SHARD].reset_index(drop=True)


def test_the_losses_of_a_document_do_not_know_the_other_test_documents(runs: Runs) -> None:
    own, other, third = (losses_of_those_that_stay(run) for run in vars(runs).values())
    pd.testing.assert_frame_equal(own, other, check_exact=True)
    arms = {
        "simulated",
        "mean",
        "mean_layer",
        "shuffled",
        "random",
        "unread",
        "token_table",
        "linear_probe",
        "quantised",
    }
    assert arms <= set(own["arm"])
    moved = own.loc[(own["nats"] - third["nats"]).abs() > 1e-9, "arm"]
    assert {"simulated", "mean", "mean_layer", "shuffled"} <= set(moved)
    assert not {"clean", "coder", "zero", "token_table", "linear_probe"} & set(moved)


def test_what_a_latent_costs_does_not_know_the_other_test_documents(runs: Runs) -> None:
    own, other, third = (pq.read_table(run / "5_costs.parquet").column("cost") for run in vars(runs).values())
    assert own.equals(other)
    assert not own.equals(third)
