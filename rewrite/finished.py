"""A finished run, read by others: nothing is locked, written or computed.

1. `open_finished` reads the manifest and refuses a run that is not done, or whose artefacts are not made from each
   other: a stage was run again and those after it were not.
2. `Finished.path` gives an artefact whose content still has the hash that the manifest says.
3. `read_documents` says what was scored: each test document's name, its simulated positions, and a hash over its tokens
   and those positions. It does not depend on how the documents were cut into shards.
4. `hash_coder` and `Finished.settings` say what else two runs may or may not share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from rewrite.config import UserError
from rewrite.store import flatten, hash_path, read_json

LAST = "6_stats.json"
"""The artefact without which a run is not finished."""
ASKED = {"explain": "3_explanations.jsonl", "simulate": "4_simulations", "score": "4_scores.parquet"}
"""What the stages that ask language models write."""


@dataclass(frozen=True)
class Finished:
    """A run folder with its manifest; `name` is what it is called where several are listed."""

    folder: Path
    name: str
    manifest: dict[str, Any]

    def path(self, artefact: str) -> Path:
        """Where an artefact is. Raises UserError where it is not what was written."""
        entry, path = self.manifest["artefacts"].get(artefact), self.folder / artefact
        if entry is None or not path.exists():
            raise UserError(f"{path}: not there yet; run the stage that writes it first")
        if hash_path(path) != entry["sha256"]:
            raise UserError(f"{path}: not what was written (damaged or edited); delete it and run again")
        return path

    def setting(self, key: str, default: Any = None) -> Any:
        """A value of the resolved config, or `default` where the run is older than the key."""
        return self.settings.get(key, default)

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved config, flat: {"coder.k": 16, ...}."""
        return flatten(self.manifest.get("config", {}))

    @property
    def ledger(self) -> dict[str, dict[str, Any]]:
        """What each stage that asked language models spent, over all sessions."""
        spent: dict[str, dict[str, Any]] = self.manifest.get("calls", {})
        return spent

    @property
    def seconds(self) -> dict[str, float]:
        """What each artefact took [s]: its last session, or all waiting for answers where that was longer."""
        return count_seconds(self.manifest)


def count_seconds(manifest: dict[str, Any]) -> dict[str, float]:
    """What each artefact took [s]: its last session, or all waiting for answers where that was longer."""
    entries, calls = manifest.get("artefacts", {}), manifest.get("calls", {})
    waited = {ASKED[stage]: float(spent["seconds"]) for stage, spent in calls.items() if stage in ASKED}
    return {name: max(float(entries[name]["seconds"]), waited.get(name, 0.0)) for name in sorted(entries)}


def open_finished(folder: Path, name: str = "", last: str = LAST) -> Finished:
    """The run in a folder. Raises UserError where there is none, or `last` is not there or is not up to date."""
    file = folder / "manifest.json"
    if not file.is_file():
        raise UserError(f"{folder}: no run there (no manifest.json); name the folder of a finished run")
    manifest = read_json(file)
    entries = manifest.get("artefacts", {}) if isinstance(manifest, dict) else {}
    if last not in entries:
        raise UserError(f"{folder}: not finished ({last} is not there); finish it with `rewrite report --run` first")
    waiting = [last]
    while waiting:
        artefact = waiting.pop()
        for source, sha in entries[artefact]["inputs"].items():
            if entries.get(source, {}).get("sha256") != sha:
                raise UserError(f"{folder}: {artefact} was not made from the {source} that is there; finish the run")
            waiting.append(source)
    return Finished(folder, name or folder.resolve().name, manifest)


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


def hash_coder(run: Finished) -> str:
    """SHA-256 of the coder's weights and settings, not of the metrics beside them, which hold what training took."""
    digest = hashlib.sha256()
    files = sorted(p for p in run.path("1_coder").rglob("*") if p.is_file() and p.name != "metrics.json")
    for file in files:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
