"""`2_activations` on disk: each split's token windows with their true activations, in shards of documents.

documents.json                  {"vocabulary": [...], "pieces": {token: bytes in hexadecimal}, "latents": n,
                                "splits": {split: [[names of a shard], ...]}}
<split>-<shard>.safetensors     ids, starts, documents (one a window), and the activations' CSR arrays
means.safetensors               output: the module's mean output on the calibrate split
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from rewrite.run.arrays import load_arrays, open_arrays, save_arrays
from rewrite.run.files import read_json
from rewrite.text.windows import Pieces, Text


@dataclass(frozen=True)
class Shard:
    """Some documents of a split: their windows, whose document each is, and the true activations."""

    text: Text
    documents: Int[np.ndarray, " window"]
    activations: csr_array

    @property
    def owners(self) -> Int[np.ndarray, " position"]:
        """Whose document each position is."""
        owners: np.ndarray = np.repeat(self.documents, np.diff(self.text.starts))
        return owners


@dataclass(frozen=True)
class Split:
    """One split of a finished `2_activations`. Who is given one reads that split, and has no way to another."""

    folder: Path
    name: str
    documents: tuple[tuple[str, ...], ...]
    """The names of each shard's documents."""
    vocabulary: tuple[str, ...]
    pieces: Pieces
    latents: int

    @cached_property
    def shards(self) -> list[str]:
        """The names of its shards, in order."""
        return [f"{self.name}-{number:05d}" for number in range(len(self.documents))]

    @cached_property
    def names(self) -> list[str]:
        """The names of its documents, in order."""
        return [name for shard in self.documents for name in shard]

    def load(self, shard: str) -> Shard:
        """One of its shards."""
        arrays = load_arrays(self._file(shard))
        text = self._text(arrays)
        return Shard(text, arrays["documents"], unpack_sparse(arrays, (len(text.ids), self.latents)))

    def texts(self) -> Iterator[Text]:
        """The texts of its shards; no activations are read."""
        for name in self.shards:
            yield self._text(load_arrays(self._file(name), only=("ids", "starts")))

    def _file(self, shard: str) -> Path:
        assert shard in self.shards, f"{shard}: not of the split {self.name}"
        return self.folder / f"{shard}.safetensors"

    def _text(self, arrays: dict[str, np.ndarray]) -> Text:
        return Text(arrays["ids"], arrays["starts"], self.vocabulary, pieces=self.pieces)

    def walk(self) -> Iterator[tuple[str, Shard]]:
        """Its shards by name, one at a time."""
        for name in self.shards:
            yield name, self.load(name)

    def stretches(self, positions: int) -> Iterator[Shard]:
        """It from beginning to end, as many windows of a shard at a time as have at most so many positions, at least
        one: no more activations than theirs are in memory, be the documents of a shard as long as they may."""
        for name in self.shards:
            shown = load_arrays(self._file(name), only=("ids", "starts", "documents"))
            begin = 0
            with open_arrays(self._file(name)) as read:
                for text in self._text(shown).chunks(positions):
                    end = begin + len(text.starts) - 1
                    rows = slice(*shown["starts"][[begin, end]].tolist())
                    yield Shard(text, shown["documents"][begin:end], self._read(read, rows))
                    begin = end

    def _read(self, read: Callable[[str, int, int], np.ndarray], rows: slice) -> csr_array:
        """The activations at some positions of a shard."""
        indptr = read("indptr", rows.start, rows.stop + 1)
        first, last = int(indptr[0]), int(indptr[-1])
        arrays = {"indptr": indptr - first} | {name: read(name, first, last) for name in ("indices", "values")}
        return unpack_sparse(arrays, (rows.stop - rows.start, self.latents))

    def mean_output(self) -> Float[np.ndarray, " d"]:
        """The module's mean output over the counted positions, which is kept of the calibrate split alone."""
        assert self.name == "calibrate", f"the mean output is the calibrate split's, not that of {self.name}"
        return load_arrays(self.folder / "means.safetensors")["output"]


@dataclass(frozen=True)
class ActivationStore:
    """A finished `2_activations`, of which `may` be read: a stage names its splits once, and reads no other."""

    folder: Path
    may: tuple[str, ...]
    index: dict[str, Any] = field(init=False)
    vocabulary: tuple[str, ...] = field(init=False)
    pieces: Pieces = field(init=False)
    latents: int = field(init=False)

    def __post_init__(self) -> None:
        index = read_json(self.folder / "documents.json")
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "vocabulary", tuple(index["vocabulary"]))
        pieces = {int(i): bytes.fromhex(piece) for i, piece in index.get("pieces", {}).items()}
        object.__setattr__(self, "pieces", pieces)
        object.__setattr__(self, "latents", int(index["latents"]))

    def split(self, name: str) -> Split:
        """What may be read of a split."""
        assert name in self.may, f"the split {name} is not read here, only {' and '.join(self.may)}"
        documents = tuple(tuple(names) for names in self.index["splits"][name])
        return Split(self.folder, name, documents, self.vocabulary, self.pieces, self.latents)

    @property
    def train(self) -> Split:
        """What coder, explanations and readers are made from."""
        return self.split("train")

    @property
    def calibrate(self) -> Split:
        """What calibrators are fitted on, and latents ordered by."""
        return self.split("calibrate")

    @property
    def test(self) -> Split:
        """What losses are taken on."""
        return self.split("test")


def save_shard(folder: Path, name: str, shard: Shard) -> None:
    """Write one shard."""
    arrays: dict[str, np.ndarray] = {
        "ids": shard.text.ids.astype(np.int32),
        "starts": shard.text.starts.astype(np.int64),
        "documents": shard.documents.astype(np.int32),
    }
    save_arrays(folder / f"{name}.safetensors", arrays | pack_sparse(shard.activations))


def pack_sparse(matrix: csr_array) -> dict[str, np.ndarray]:
    """The three arrays of a CSR matrix, indices as small as they go."""
    indices = matrix.indices.astype(np.uint16 if matrix.shape[1] <= 2**16 else np.int32)
    return {"indptr": matrix.indptr.astype(np.int64), "indices": indices, "values": matrix.data}


def unpack_sparse(arrays: dict[str, np.ndarray], shape: tuple[int, int]) -> csr_array:
    """The CSR matrix that `pack_sparse` packed."""
    return csr_array((arrays["values"], arrays["indices"].astype(np.int32), arrays["indptr"]), shape=shape)
