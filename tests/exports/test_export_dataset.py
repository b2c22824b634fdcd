"""The predictions as a dataset: `datasets` reads back what the run says, from the folder alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from makers.exported import HOSTILE, as_utf8, with_explanations
from scipy.sparse import csr_array

from rewrite.arms.calibrate import Scaled
from rewrite.arms.controls import find_threshold
from rewrite.coder.activations import ActivationStore, Shard, save_shard
from rewrite.commands.export import export
from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import load_explanations
from rewrite.exports.predictions import Source, tabulate_explanations
from rewrite.run.files import write_json
from rewrite.run.finished import open_finished
from rewrite.simulators.base import Strengths
from rewrite.simulators.strengths import Simulations, save_simulator, save_strengths
from rewrite.statistics.curves import Curves, Reliability, load_curves
from rewrite.text.corpus import SPLITS
from rewrite.text.windows import Text


@pytest.fixture(scope="module")
def folder(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("dataset") / "out"
    export("dataset", small_run, place)
    return place


def read(folder: Path, config: str, split: str = "test") -> dict[str, Any]:
    columns: dict[str, Any] = load_dataset(str(folder), config, split=split, cache_dir=str(folder.parent / "cache"))[:]
    return columns


def test_every_prediction_can_be_had_again(small_run: Path, folder: Path) -> None:
    """Dense arrays from the three configs, against the run's own: where there is no row, nothing fires and s is 0."""
    rows, windows = read(folder, "predictions"), read(folder, "windows")
    rest = np.array(read(folder, "explanations", "latents")["rest"])
    begins, number = {}, 0
    for key, tokens in zip(zip(windows["document"], windows["window"], strict=True), windows["tokens"], strict=True):
        begins[key], number = number, number + len(tokens)
    place = np.array([begins[key] for key in zip(rows["document"], rows["window"], strict=True)]) + rows["position"]
    true, strength = np.zeros((number, len(rest))), np.zeros((number, len(rest)))
    simulated = np.tile(rest, (number, 1))
    for array, name in ((true, "true"), (strength, "strength"), (simulated, "simulated")):
        array[place, rows["latent"]] = rows[name]
    assert not any(rows["missing"])
    tokens = [token for window in windows["tokens"] for token in window]
    assert [tokens[i] for i in place] == rows["token"]

    store = ActivationStore(small_run / "2_activations", SPLITS)
    simulations = Simulations(small_run / "4_simulations", store.latents)
    calibrator = load_curves(small_run / "5_calibration.safetensors").calibrator
    shards = [(name, store.test.load(name)) for name in store.test.shards]
    assert tokens == [store.vocabulary[i] for _, shard in shards for i in shard.text.ids]
    counted = np.concatenate([simulations.show(name, shard.text).counted() for name, shard in shards])
    assert [flag for window in windows["simulated"] for flag in window] == counted.tolist()
    dense = [simulations.strengths(name, len(shard.text.ids)).toarray() for name, shard in shards]
    own_truth = np.concatenate([shard.activations.toarray() for _, shard in shards])
    own = np.concatenate(dense)
    activations = calibrator.apply(own.ravel(), np.tile(np.arange(store.latents), number)).reshape(own.shape)
    np.testing.assert_array_equal(true[counted], own_truth[counted])
    np.testing.assert_array_equal(strength[counted], own[counted])
    np.testing.assert_array_equal(simulated[counted], activations[counted])
    assert not true[~counted].any() and not strength[~counted].any()
    assert len(place) == int(((own_truth > 0) | (own != 0))[counted].sum())


def test_explanations_with_their_scores_and_costs(small_run: Path, folder: Path) -> None:
    table = read(folder, "explanations", "latents")
    said = load_explanations(small_run / "3_explanations.jsonl")
    assert table["latent"] == [e.latent for e in said] == list(range(128))
    assert table["explanation"] == [e.text for e in said]
    for file, names in (
        ("4_scores.parquet", ["simulation", "simulation_low", "r2", "r2_why"]),
        ("5_costs.parquet", ["cost", "cost_low", "cost_high", "precision", "recall", "false_per_token"]),
        ("5_latents.parquet", ["density", "maximum", "mean", "missing", "missing_share"]),
    ):
        own = pq.read_table(small_run / file)
        for name in names:
            assert table[name] == own[name].to_pylist(), name


def test_the_card_says_what_is_there(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    for config, split in (("predictions", "test"), ("windows", "test"), ("explanations", "latents")):
        columns = read(folder, config, split)
        rows = len(next(iter(columns.values())))
        part = card.split(f"## {config}: {rows:,} rows\n")[1].split("\n## ")[0]
        named = {word for line in part.splitlines() if line.startswith("| `") for word in line.split("|")[1].split("`")}
        ends = ("_low", "_high", "_why") if config == "explanations" else ()
        assert {name for name in columns if not name.endswith(ends or "\0")} <= named, config
    assert "layers.1.mlp" in card and "0 to 9" in card
    assert str(Path(__file__).parents[2]) not in card, "no folder of this machine"


# --- what is missing, by hand -----------------------------------------------------------------------------------------

VOCABULARY = ("a", " b", "\n", "\0")


def make_source(folder: Path) -> Source:
    """Two windows of 4 and 3 tokens of one document and four latents: 0 as ever, 1 missing here and there, 2 missing
    altogether, 3 not rewritten. Position 6 was not asked for. Activation = 2 · strength."""
    truth = np.zeros((7, 4), dtype=np.float32)
    truth[1], truth[2], truth[5] = [3, 0, 0, 7], [0, 5, 4, 0], [0, 0, 6, 0]
    truth[0] = truth[6] = 1  # context, and not asked for
    said = np.zeros((7, 4), dtype=np.float32)
    said[1], said[2], said[3] = [1, np.nan, 0, 0], [2, np.nan, 0, 0], [0, 9, 0, 0]
    asked = np.array([False, True, True, True, False, True, False])
    text = Text(np.array([0, 1, 2, 3, 0, 1, 2], dtype=np.int32), np.array([0, 4, 7]), VOCABULARY, asked)
    true, simulated = folder / "2", folder / "4"
    true.mkdir()
    simulated.mkdir()
    save_shard(true, "test-00000", Shard(text, np.array([0, 0], dtype=np.int32), csr_array(truth)))
    names: dict[str, list[list[str]]] = {"train": [], "calibrate": [], "test": [["d.py"]]}
    write_json(true / "documents.json", {"vocabulary": VOCABULARY, "latents": 4, "splits": names})
    save_strengths(simulated, "test-00000", Strengths(csr_array(said), {2: "refused"}), text)
    save_simulator(simulated, "made", 9.0, np.array([0, 1, 2]))
    calibrator, none = Scaled(np.full(4, 2, dtype=np.float32)), np.zeros((4, 10))
    test = Reliability(none.astype(np.int64), none, none)
    curves = Curves(9.0, calibrator, find_threshold(calibrator, 9.0, 4), np.zeros(4), test)
    absent = np.array([False, False, True, False])
    return Source(ActivationStore(true, SPLITS).test, Simulations(simulated, 4), curves, absent)


def test_missing_is_null_and_never_zero(tmp_path: Path) -> None:
    source = make_source(tmp_path)
    shard = source.test.load("test-00000")
    rows = source.predictions("test-00000", shard)
    columns = ("window", "position", "token", "latent", "true", "strength", "simulated", "missing")
    assert [tuple(row[name] for name in columns) for row in rows.to_pylist()] == [
        (0, 1, " b", 0, 3.0, 1.0, 2.0, False),
        (0, 1, " b", 1, 0.0, None, None, True),
        (0, 2, "\n", 0, 0.0, 2.0, 4.0, False),
        (0, 2, "\n", 1, 5.0, None, None, True),
        (0, 2, "\n", 2, 4.0, None, None, True),
        (0, 3, "\0", 1, 0.0, 9.0, 18.0, False),
        (1, 1, " b", 2, 6.0, None, None, True),
    ]
    assert set(rows["document"].to_pylist()) == {"d.py"}
    one, two = source.windows("test-00000", shard).to_pylist()
    assert one == {"document": "d.py", "window": 0, "tokens": list(VOCABULARY), "simulated": [False, True, True, True]}
    assert two == {"document": "d.py", "window": 1, "tokens": ["a", " b", "\n"], "simulated": [False, True, False]}


# --- text of any kind -------------------------------------------------------------------------------------------------


def test_hostile_explanations_come_back(small_run: Path, tmp_path: Path) -> None:
    texts = [*HOSTILE, None]
    said = [Explanation(i, texts[i % len(texts)], "refused: \ud800 {{ x }}") for i in range(128)]
    run = with_explanations(small_run, tmp_path / "---\nlicense: mit # <b> {{ 1 }}", said)
    export("dataset", run, tmp_path / "out")
    table = read(tmp_path / "out", "explanations", "latents")
    assert table["explanation"] == [None if e.text is None else as_utf8(e.text) for e in said]
    assert set(table["unexplained"]) == {"refused: \ufffd {{ x }}"}
    assert len(read(tmp_path / "out", "predictions")["latent"]) > 1000
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.count("\nlicense: ") == 1 and "license: other" in card
    assert json.loads((tmp_path / "out" / "export.json").read_text())["run"].endswith("# <b> {{ 1 }}")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.none() | st.text(st.characters()), min_size=1, max_size=4))
def test_any_explanation_comes_back(
    small_run: Path, tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    tmp_path = tmp_path_factory.mktemp("any")
    said = [Explanation(i, texts[i % len(texts)]) for i in range(128)]
    run = open_finished(with_explanations(small_run, tmp_path / "run", said))
    store = ActivationStore(run.path("2_activations"), SPLITS)
    simulations = Simulations(run.path("4_simulations"), store.latents)
    curves = load_curves(run.path("5_calibration.safetensors"))
    table = tabulate_explanations(run, Source(store.test, simulations, curves, np.zeros(128, dtype=bool)))
    pq.write_table(table, tmp_path / "table.parquet")
    again = pq.read_table(tmp_path / "table.parquet")["explanation"].to_pylist()
    assert again == [None if e.text is None else as_utf8(e.text) for e in said]
