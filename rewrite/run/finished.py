"""A finished run, read by others: nothing is locked, written or computed.

1. `open_finished` reads the manifest and refuses a run that is not done, or whose artefacts are not made from each
   other: a stage was run again and those after it were not.
2. `Finished.path` gives an artefact whose content still has the hash that the manifest says.
3. `read_documents` says what was scored: each test document's name, its simulated positions, and a hash over its tokens
   and those positions. It does not depend on how the documents were cut into shards.
4. `hash_coder` and `Finished.settings` say what else two runs may or may not share.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewrite.config import UserError
from rewrite.run.files import flatten, hash_path, read_json

SWEEP = "sweep.json"
"""What makes a folder that of a sweep: it names the points, whose runs are folders in it."""
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
