"""`2_activations` on disk: each split's token windows with their true activations, in shards of documents.

documents.json                  {"vocabulary": [...], "pieces": {token: bytes in hexadecimal}, "latents": n,
                                "splits": {split: [[names of a shard], ...]}}
<split>-<shard>.safetensors     ids, starts, documents (one a window), and the activations' CSR arrays
means.safetensors               output: the module's mean output on the calibrate split
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int
from scipy.sparse import csc_array, csr_array, vstack

from rewrite.run.files import load_arrays, read_json, save_arrays
from rewrite.text.windows import Pieces, Text


@dataclass(frozen=True)
class Shard:
    """Some documents of a split: their windows, whose document each is, and the true activations."""

    text: Text
    documents: Int[np.ndarray, " window"]
    activations: csr_array


@dataclass(frozen=True)
class ActivationStore:
    """Reads the shards of a finished `2_activations`."""

    folder: Path
    index: dict[str, object] = field(init=False)
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

    def names(self, split: str) -> list[list[str]]:
        """The names of each shard's documents."""
        splits: dict[str, list[list[str]]] = self.index["splits"]  # type: ignore[assignment]
        return splits[split]

    def shards(self, split: str) -> list[str]:
        """The names of a split's shards, in order."""
        return [f"{split}-{number:05d}" for number in range(len(self.names(split)))]

    def load(self, shard: str) -> Shard:
        """One shard."""
        arrays = load_arrays(self.folder / f"{shard}.safetensors")
        text = Text(arrays["ids"], arrays["starts"], self.vocabulary, pieces=self.pieces)
        return Shard(text, arrays["documents"], unpack_sparse(arrays, (len(text.ids), self.latents)))

    def mean_output(self) -> np.ndarray:
        """The module's mean output over the counted positions of the calibrate split, [d]."""
        return load_arrays(self.folder / "means.safetensors")["output"]


def gather_evidence(store: ActivationStore) -> Evidence:
    """The train split as one text, its activations by latent."""
    shards = [store.load(name) for name in store.shards("train")]
    ids = np.concatenate([s.text.ids for s in shards])
    lengths = np.concatenate([np.diff(s.text.starts) for s in shards])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    activations = vstack([s.activations for s in shards], format="csc")
    return Evidence(Text(ids, starts, store.vocabulary, pieces=store.pieces), activations)


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


@dataclass(frozen=True)
class Evidence:
    """What an explainer may see: the train split's text and the true activations on it.

    `activations` is positions × latents by column, so that one latent's firings are one slice; rows of positions that
    are not counted are empty.
    """

    text: Text
    activations: csc_array
