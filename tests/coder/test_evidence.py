"""Activations by latent, read in blocks, are those of the whole matrix; what is held does not grow with the text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_array, csr_array, vstack

from rewrite.coder.activations import ActivationStore, Shard, save_shard
from rewrite.coder.evidence import AT_ONCE, Evidence, cut_blocks, gather_evidence
from rewrite.config import UserError
from rewrite.run.files import write_json
from rewrite.text.windows import Text

LATENTS, K, WINDOW = 40, 4, 20
VOCABULARY = ("", *(f" {letter}" for letter in "abcdefgh"))


def store_of(folder: Path, shards: int, windows: int = 6, latents: int = LATENTS) -> ActivationStore:
    """A train split of random text, of whose latents some fire a hundred times as often as others."""
    rng = np.random.default_rng(3)
    folder.mkdir()
    share = np.geomspace(1, 100, latents)
    for number in range(shards):
        starts = WINDOW * np.arange(windows + 1)
        text = Text(rng.integers(1, len(VOCABULARY), starts[-1]).astype(np.int32), starts, VOCABULARY)
        rows = np.repeat(np.flatnonzero(text.counted()), K)
        columns = rng.choice(latents, len(rows), p=share / share.sum())
        matrix = csr_array((rng.random(len(rows), dtype=np.float32) + 0.1, (rows, columns)), (starts[-1], latents))
        save_shard(folder, f"train-{number:05d}", Shard(text, np.full(windows, number, dtype=np.int32), matrix))
    names = [[f"document {number}"] for number in range(shards)]
    index = {"vocabulary": VOCABULARY, "pieces": {}, "latents": latents, "splits": {"train": names}}
    write_json(folder / "documents.json", index)
    return ActivationStore(folder, ("train",))


def whole(store: ActivationStore) -> csc_array:
    return csc_array(vstack([shard.activations for _, shard in store.train.walk()]))


@pytest.mark.parametrize("at_once", [1, 50, 300, AT_ONCE, None])
def test_columns_are_those_of_the_whole_matrix_in_any_order(tmp_path: Path, at_once: int | None) -> None:
    store = store_of(tmp_path / "2_activations", 5)
    expected, evidence = whole(store), gather_evidence(store.train, at_once=at_once)
    assert (evidence.firings == np.diff(expected.indptr)).all()
    for latent in [*range(LATENTS), 7, 39, 0, 12]:
        own, column = slice(*expected.indptr[latent : latent + 2]), evidence.column(latent)
        assert (column.positions == expected.indices[own]).all()
        assert (column.values == expected.data[own]).all()
    assert (evidence.activations != expected).nnz == 0


def test_a_matrix_in_memory_is_read_alike(tmp_path: Path) -> None:
    store = store_of(tmp_path / "2_activations", 3)
    stored = gather_evidence(store.train, at_once=100)
    held = Evidence(stored.text, whole(store), at_once=100)
    for latent in range(LATENTS):
        mine, theirs = held.column(latent), stored.column(latent)
        assert mine.positions.tolist() == theirs.positions.tolist() and (mine.values == theirs.values).all()


@pytest.mark.parametrize("positions", [1, WINDOW, 3 * WINDOW + 1, 10_000])
def test_a_split_is_read_a_stretch_of_whole_windows_at_a_time(tmp_path: Path, positions: int) -> None:
    train = store_of(tmp_path / "2_activations", 3).train
    parts = list(train.stretches(positions))
    assert max(len(part.text.ids) for part in parts) == min(max(positions // WINDOW, 1), 6) * WINDOW
    shards = [shard for _, shard in train.walk()]
    for whole_of in (lambda shard: shard.text.ids, lambda shard: shard.documents, lambda shard: shard.owners):
        assert (np.concatenate([whole_of(p) for p in parts]) == np.concatenate([whole_of(s) for s in shards])).all()
    assert all((part.text.counted() == (np.arange(len(part.text.ids)) % WINDOW > 0)).all() for part in parts)
    apart, together = (csr_array(vstack([own.activations for own in owns])) for owns in (parts, shards))
    assert (apart.indptr == together.indptr).all() and (apart.indices == together.indices).all()
    assert (apart.data == together.data).all()


def test_a_shard_that_was_cut_off_is_named_in_one_line(tmp_path: Path) -> None:
    train = store_of(tmp_path / "2_activations", 2).train
    file = train.folder / "train-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"train-00001\.safetensors: not readable as safetensors \(.*\); delete it"):
        list(train.stretches(WINDOW))


def test_only_the_latents_that_are_named_are_read(tmp_path: Path) -> None:
    store = store_of(tmp_path / "2_activations", 3)
    evidence = gather_evidence(store.train, [30, 5, 5, 17])
    assert evidence.block(17).latents.tolist() == [5, 17, 30]
    with pytest.raises(KeyError):
        evidence.column(6)
    with pytest.raises(KeyError):
        evidence.column(31)
    assert len(evidence.column(30).values) == evidence.firings[30]


def test_a_block_holds_at_most_so_many_firings_or_one_latent() -> None:
    firings = np.array([5, 0, 3, 9, 1, 1, 1])
    blocks = cut_blocks(np.arange(7), firings, 6)
    assert [block.tolist() for block in blocks] == [[0, 1], [2], [3], [4, 5, 6]]
    assert cut_blocks(np.arange(0), firings, 6) == []
    assert [block.tolist() for block in cut_blocks(np.array([2, 3]), firings, None)] == [[2, 3]]


def test_what_is_held_does_not_grow_with_the_text(tmp_path: Path) -> None:
    """Ten times the shards: the firings are ten times as many, what a walk through all latents holds is not."""
    most, sums = {}, {}
    for shards in (4, 40):
        evidence = gather_evidence(store_of(tmp_path / f"{shards}", shards, 100, 400).train, at_once=4_000)
        most[shards] = max(evidence.block(latent).activations.nnz for latent in range(400))
        sums[shards] = int(evidence.firings.sum())
    assert sums[40] > 9 * sums[4] > 9 * most[4]
    assert most[40] <= 4_000 and most[40] <= 1.3 * most[4]
