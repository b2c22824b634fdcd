"""What a finished run scored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from rewrite.config import UserError
from rewrite.run.files import read_json
from rewrite.run.finished import Finished


@dataclass(frozen=True)
class Scored:
    """What was simulated of a test document: its name, how many positions, and a hash over its tokens and those."""

    name: str
    positions: int
    sha256: str


def read_documents(run: Finished, split: str = "test") -> list[Scored]:
    """Every document of a split in order, those without a simulated position too."""
    index = read_json(run.folder / "2_activations" / "documents.json")
    names: list[list[str]] = index["splits"][split]
    digests = [hashlib.sha256() for shard in names for _ in shard]
    positions = [0] * len(digests)
    for number in range(len(names)):
        for document, ids, asked in _windows(run.folder, f"{split}-{number:05d}"):
            digests[document].update(len(ids).to_bytes(8, "little") + ids.tobytes() + asked.tobytes())
            positions[document] += int(asked.sum())
    flat = [name for shard in names for name in shard]
    return [
        Scored(name, counted, digest.hexdigest())
        for name, counted, digest in zip(flat, positions, digests, strict=True)
    ]


def _windows(folder: Path, shard: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each window's document, token ids and flags of what was simulated; the activations stay on disk."""
    text = _load(folder / "2_activations" / f"{shard}.safetensors", "ids", "starts", "documents")
    (asked,) = _load(folder / "4_simulations" / f"{shard}.safetensors", "asked")
    ids, starts, documents = text
    ids, asked = ids.astype(np.int64), asked.astype(np.uint8)
    for document, begin, end in zip(documents.tolist(), starts[:-1], starts[1:], strict=True):
        yield document, ids[begin:end], asked[begin:end]


def count_tokens(run: Finished, split: str) -> int:
    """Tokens of a split of which the run kept activations."""
    names = read_json(run.folder / "2_activations" / "documents.json")["splits"][split]
    shards = [f"{split}-{number:05d}.safetensors" for number in range(len(names))]
    return sum(int(_load(run.folder / "2_activations" / shard, "starts")[0][-1]) for shard in shards)


def _load(file: Path, *names: str) -> list[np.ndarray]:
    """Some arrays of a safetensors file, without reading the others."""
    try:
        with safe_open(file, framework="numpy") as arrays:
            return [arrays.get_tensor(name) for name in names]
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: not readable ({str(error).splitlines()[0]}); run its stage again") from None
