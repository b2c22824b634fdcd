"""Neuronpedia's import format: read back as its importer reads it, and held to the fields that both its sides know."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.exported import HOSTILE, as_utf8, with_explanations

from rewrite.coder.activations import ActivationStore
from rewrite.commands.export import export
from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import load_explanations
from rewrite.exports.neuronpedia import CREATOR, SHOWN, to_line
from rewrite.text.corpus import SPLITS

Row = dict[str, Any]
SOURCE = "1-small-mlp-128"

needs_neuronpedia = pytest.mark.skipif(
    find_spec("neuronpedia") is None, reason="neuronpedia is not installed here: make test-export has it"
)


@dataclass(frozen=True)
class Known:
    """The names of fields in hijohnnylin/neuronpedia, commit ebb8426fc550ad5d1f76d52c271a624af3c08a57 (20 August 2026).

    `record`: the dataclass in utils/neuronpedia-utils/neuronpedia_utils/db_models, `needed` those without a default;
    `column`: apps/webapp/prisma/schema.prisma, `filled` those that must not be null and have no default.
    """

    record: str
    needed: str
    column: str
    filled: str


KNOWN = {
    "release": Known(
        "name description creatorName creatorId visibility isNewUi featured descriptionShort urls creatorEmail "
        "creatorNameShort defaultSourceSetName defaultSourceId defaultUmapSourceIds createdAt",
        "name description creatorName creatorId",
        "name visibility isNewUi featured description descriptionShort urls creatorEmail creatorName creatorNameShort "
        "creatorId defaultSourceSetName defaultSourceId defaultUmapSourceIds createdAt",
        "name description creatorName creatorId",
    ),
    "model": Known(
        "id instruct creatorId displayNameShort displayName tlensId dimension visibility defaultSourceSetName "
        "defaultSourceId inferenceEnabled layers neuronsPerLayer createdAt owner updatedAt website",
        "id instruct creatorId",
        "id displayNameShort displayName creatorId tlensId openRouterId dimension thinking visibility "
        "defaultSourceSetName defaultSourceId defaultGraphSourceSetName inferenceEnabled instruct layers "
        "neuronsPerLayer createdAt owner updatedAt website",
        "id creatorId layers neuronsPerLayer owner",
    ),
    "sourceset": Known(
        "modelId name creatorId hasDashboards visibility description type creatorName urls creatorEmail releaseName "
        "defaultOfModelId defaultRange defaultShowBreaks showDfa showCorrelated showHeadAttribution showUmap createdAt",
        "modelId name creatorId",
        "modelId name hasDashboards allowInferenceSearch visibility description type creatorName urls creatorEmail "
        "creatorId releaseName hasGraphs graphEnabled similarityMatrixEnabled defaultOfModelId defaultGraphModelId "
        "defaultRange defaultShowBreaks showDfa showCorrelated showHeadAttribution showUmap createdAt",
        "modelId name description creatorName creatorId",
    ),
    "source": Known(
        "id modelId setName creatorId hasDashboards inferenceEnabled inferenceHosts saelensConfig saelensRelease "
        "saelensSaeId hfRepoId hfFolderId visibility defaultOfModelId hasUmap hasUmapLogSparsity hasUmapClusters "
        "num_prompts num_tokens_in_prompt dataset notes createdAt",
        "id modelId setName creatorId",
        "id modelId hasDashboards inferenceEnabled saelensConfig saelensRelease saelensSaeId hfRepoId hfFolderId "
        "visibility defaultOfModelId setName creatorId hasUmap hasUmapLogSparsity hasUmapClusters num_prompts "
        "num_tokens_in_prompt dataset notes cosSimMatchModelId cosSimMatchSourceId createdAt",
        "id modelId setName creatorId",
    ),
    "features": Known(
        "modelId layer index creatorId createdAt maxActApprox hasVector vector vectorLabel vectorDefaultSteerStrength "
        "hookName topkCosSimIndices topkCosSimValues neuron_alignment_indices neuron_alignment_values "
        "neuron_alignment_l1 correlated_neurons_indices correlated_neurons_pearson correlated_neurons_l1 "
        "correlated_features_indices correlated_features_pearson correlated_features_l1 neg_str neg_values pos_str "
        "pos_values frac_nonzero freq_hist_data_bar_heights freq_hist_data_bar_values logits_hist_data_bar_heights "
        "logits_hist_data_bar_values decoder_weights_dist sourceSetName",
        "modelId layer index",
        "modelId layer index sourceSetName creatorId createdAt maxActApprox hasVector vector vectorLabel "
        "vectorDefaultSteerStrength hookName topkCosSimIndices topkCosSimValues neuron_alignment_indices "
        "neuron_alignment_values neuron_alignment_l1 correlated_neurons_indices correlated_neurons_pearson "
        "correlated_neurons_l1 correlated_features_indices correlated_features_pearson correlated_features_l1 neg_str "
        "neg_values pos_str pos_values frac_nonzero freq_hist_data_bar_heights freq_hist_data_bar_values "
        "logits_hist_data_bar_heights logits_hist_data_bar_values decoder_weights_dist umap_cluster "
        "umap_log_feature_sparsity umap_x umap_y",
        "modelId layer index",
    ),
    "activations": Known(
        "id tokens index layer modelId maxValue maxValueTokenIndex minValue values creatorId dataSource dataIndex "
        "dfaValues dfaTargetIndex dfaMaxValue createdAt lossValues logitContributions binMin binMax binContains "
        "qualifyingTokenIndex zIndices zValues",
        "id tokens index layer modelId maxValue maxValueTokenIndex minValue values creatorId",
        "id tokens dataIndex index layer modelId dataSource maxValue maxValueTokenIndex minValue values dfaValues "
        "dfaTargetIndex dfaMaxValue zQIndices zKIndices zValues creatorId createdAt lossValues logitContributions "
        "binMin binMax binContains qualifyingTokenIndex",
        "id index layer modelId maxValue maxValueTokenIndex minValue creatorId",
    ),
    "explanations": Known(
        "id modelId layer index description authorId embedding triggeredById typeName explanationModelName notes "
        "createdAt",
        "id modelId layer index description authorId",
        "id modelId layer index embedding description authorId triggeredByUserId notes scoreV1 scoreV2 umap_x umap_y "
        "umap_cluster umap_log_feature_sparsity typeName explanationModelName createdAt updatedAt",
        "id modelId layer index description authorId",
    ),
}


@pytest.fixture(scope="module")
def folder(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("neuronpedia") / "out"
    export("neuronpedia", small_run, place)
    return place / "subject" / SOURCE


def read_lines(jsonl: str) -> list[Row]:
    """What the importer makes of a file (importJsonlString in apps/webapp/lib/db/import.ts)."""
    return [json.loads(line) for line in jsonl.replace("\\u0000", " ").strip().split("\n")]


def read(folder: Path, kind: str) -> list[Row]:
    """The rows of a kind from all its batches, in the order of their numbers."""
    if (folder / f"{kind}.jsonl").exists():
        return read_lines((folder / f"{kind}.jsonl").read_text(encoding="utf-8"))
    files = sorted((folder / kind).iterdir(), key=lambda file: int(file.name.split(".")[0].removeprefix("batch-")))
    assert [file.name for file in files] == [f"batch-{number}.jsonl.gz" for number in range(len(files))]
    return [row for file in files for row in read_lines(gzip.decompress(file.read_bytes()).decode())]


@pytest.mark.parametrize("kind", KNOWN)
def test_fields_are_those_that_both_sides_know(folder: Path, kind: str) -> None:
    known = KNOWN[kind]
    rows = read(folder, kind)
    assert rows
    for row in rows:
        keys = set(row)
        assert keys <= set(known.record.split()) & set(known.column.split())
        assert keys >= set(known.needed.split()) | set(known.filled.split())
        assert list(row) == list(rows[0]), "the importer takes its columns from the first line"
        assert all(value is not None for value in row.values())
        assert all(isinstance(row[key], str) for key in keys & {"index", "layer", "modelId", "id", "name"})


def test_names_agree(folder: Path) -> None:
    (release,), (model,), (of,), (source,) = (
        read(folder, kind) for kind in ("release", "model", "sourceset", "source")
    )
    assert (source["id"], source["modelId"], source["setName"]) == (folder.name, folder.parent.name, of["name"])
    assert (of["modelId"], of["releaseName"], model["id"]) == (model["id"], release["name"], source["modelId"])
    assert re.fullmatch(r"[a-zA-Z0-9-_]+", model["id"]), "a model's id, as schema.prisma wants it"
    assert source["id"].split("-")[0] == "1", "getLayerNumFromSource in apps/webapp/lib/utils/source.ts"
    assert "__" not in source["id"], "what follows would be taken for something else than the set's name"
    features = {row["index"] for row in read(folder, "features")}
    for kind in ("features", "activations", "explanations"):
        for row in read(folder, kind):
            assert (row["modelId"], row["layer"]) == (model["id"], source["id"])
            assert row["index"] in features
    for kind in ("activations", "explanations"):
        numbers = [row["id"] for row in read(folder, kind)]
        assert len(set(numbers)) == len(numbers)
    assert {read(folder, kind)[0]["creatorId"] for kind in KNOWN if kind != "explanations"} == {CREATOR}


def test_activations_are_the_strongest_of_the_train_split(small_run: Path, folder: Path) -> None:
    store = ActivationStore(small_run / "2_activations", SPLITS)
    windows = []
    for name, documents in zip(store.train.shards, store.train.documents, strict=True):
        shard = store.train.load(name)
        dense = shard.activations.toarray()
        for number, (begin, end) in enumerate(zip(shard.text.starts[:-1], shard.text.starts[1:], strict=True)):
            document = documents[shard.documents[number] - shard.documents[0]]
            windows.append((document, [store.vocabulary[i] for i in shard.text.ids[begin:end]], dense[begin:end]))
    rows = {key: list(own) for key, own in groupby(read(folder, "activations"), key=lambda row: int(row["index"]))}
    for latent in range(128):
        fires = [w for w in windows if w[2][:, latent].any()]
        fires.sort(key=lambda w, latent=latent: -w[2][:, latent].max())  # type: ignore[misc]
        own = rows.get(latent, [])
        assert len(own) == min(SHOWN, len(fires))
        for row, (document, tokens, dense) in zip(own, fires, strict=False):
            assert (row["dataIndex"], row["tokens"]) == (document, tokens)
            np.testing.assert_array_equal(np.array(row["values"], dtype=np.float32), dense[:, latent])
            assert row["maxValue"] == row["values"][row["maxValueTokenIndex"]] == max(row["values"])
            assert row["minValue"] == min(row["values"])
    positions = sum(len(w[1]) - 1 for w in windows)
    for row in read(folder, "features"):
        column = np.concatenate([w[2][:, int(row["index"])] for w in windows])
        assert row["maxActApprox"] == pytest.approx(column.max(initial=0))
        assert row["frac_nonzero"] == pytest.approx((column > 0).sum() / positions)
        assert sum(row["freq_hist_data_bar_heights"]) == (column > 0).sum()
        assert len(row["freq_hist_data_bar_heights"]) == len(row["freq_hist_data_bar_values"])


def test_explanations_come_with_their_scores(small_run: Path, folder: Path) -> None:
    said = {e.latent: e.text for e in load_explanations(small_run / "3_explanations.jsonl") if e.text}
    rows = read(folder, "explanations")
    assert {int(row["index"]): row["description"] for row in rows} == said
    pattern = r"explainer patterns, simulator patterns; simulation \S+; r2 \S+; cost \S+ nats per token"
    assert all(re.fullmatch(pattern, row["notes"]) for row in rows)


def as_stored(text: str) -> str:
    """What PostgreSQL can hold of a text."""
    return as_utf8(text).replace("\0", "␀")


def test_hostile_explanations_come_back(small_run: Path, tmp_path: Path) -> None:
    texts = [*HOSTILE, None]
    said = [Explanation(i, texts[i % len(texts)]) for i in range(128)]
    run = with_explanations(small_run, tmp_path / "</script> é __ \n", said)
    export("neuronpedia", run, tmp_path / "out")
    (source,) = (tmp_path / "out" / "subject").iterdir()
    assert source.name == "1-script-mlp-128"
    found = {int(row["index"]): row["description"] for row in read(source, "explanations")}
    assert found == {e.latent: as_stored(e.text) for e in said if e.text and e.text.strip()}
    assert len(read(source, "features")) == 128


def test_a_batch_of_nothing_is_no_file(small_run: Path, tmp_path: Path) -> None:
    run = with_explanations(small_run, tmp_path / "run", [Explanation(i, None, "refused") for i in range(128)])
    (line,) = export("neuronpedia", run, tmp_path / "out")
    assert line == "subject/1-run-mlp-128: 128 features, 2,560 activations, 0 explanations"
    assert not list((tmp_path / "out").rglob("explanations/*"))


@given(texts=st.lists(st.text(st.characters()), min_size=1))
def test_any_text_comes_back(texts: list[str]) -> None:
    rows = read_lines("".join(to_line({"description": text, "tokens": [text, "b"]}) for text in texts))
    assert rows == [{"description": as_stored(text), "tokens": [as_stored(text), "b"]} for text in texts]


@given(pieces=st.lists(st.sampled_from(["\\", "u0000", "\0", "u005c", '"', "\n", "\ud83d", "\ude00"]), max_size=12))
def test_text_about_escapes_comes_back(pieces: Iterable[str]) -> None:
    text = "".join(pieces)
    assert read_lines(to_line({"description": text})) == [{"description": as_stored(text)}]


@needs_neuronpedia
def test_neuronpedias_own_client_reads_the_records(folder: Path) -> None:
    """np_activation.py and np_explanation.py of the PyPI package neuronpedia 1.2.1, where a layer is a source."""
    from neuronpedia.np_activation import Activation
    from neuronpedia.np_explanation import Explanation as Theirs

    bins = {"binMin": None, "binMax": None, "binContains": None}
    for row in read(folder, "activations"):
        activation = Activation.from_np_db_json(row | {"source": row["layer"]} | bins)
        assert (activation.source, len(activation.tokens)) == (SOURCE, len(activation.values))
    for row in read(folder, "explanations"):
        explanation = Theirs.from_np_db_json(row | {"source": row["layer"]})
        assert (explanation.text, explanation.index) == (row["description"], int(row["index"]))
