"""The run folder: a manifest, artefacts written whole or not at all, and what is fresh.

1. An artefact (`1_coder`, `6_stats.json`, ...) is written beside its place, synced, and renamed into it. Its manifest
   entry goes before the rename and comes back after it, so a kill at any moment leaves either a finished artefact
   with its entry or one without, which counts as absent.
2. An entry holds the SHA-256 of the content, those of the artefacts it was made from, and a key over the part of the
   config and the version of the code that made it. An artefact is fresh where all three still hold.
3. One process works in a run folder at a time; a lock that dies with its process says who.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rewrite import __version__
from rewrite.config import Config, UserError
from rewrite.run.files import flatten, hash_path, hash_value, link, read_json, remove, take_lock, write_json
from rewrite.run.freshness import UNANSWERED
from rewrite.run.plugins import packages

PACKAGES = ("torch", "transformers", "eai-sparsify", "datasets", "numpy", "scipy", "tokenizers")
ABSENT = "not there yet"
"""Why an artefact is not fresh, where nothing was made."""


# --- what a manifest says of its artefacts ----------------------------------------------------------------------

Entry = dict[str, Any]


def why_stale(folder: Path, entries: Mapping[str, Entry], artefact: str, key: str, inputs: Sequence[str]) -> str | None:
    """Why an artefact must be computed anew, or None where it is fresh; only reads.

    Raises UserError where it is there but is not what was written: damaged, or edited by hand.
    """
    entry = entries.get(artefact)
    if entry is None or not (folder / artefact).exists():
        return ABSENT
    if entry["key"] != key:
        return "its settings or its code changed"
    if any(_find(folder, entries, name)["sha256"] != entry["inputs"].get(name) for name in inputs):
        return "what it is made from changed"
    check_content(folder, entries, artefact)
    return None


def check_content(folder: Path, entries: Mapping[str, Entry], artefact: str) -> Path:
    """Where a finished artefact is. Raises UserError where its content is not what the manifest says."""
    entry, path = _find(folder, entries, artefact), folder / artefact
    if not path.exists() or hash_path(path) != entry["sha256"]:
        hint = "; to use edited explanations set explain.file to a copy" if artefact.endswith(".jsonl") else ""
        raise UserError(f"{path}: not what was written (damaged or edited); delete it to compute it again{hint}")
    return path


def partial_folder(folder: Path, artefact: str, key: str, inputs: Mapping[str, str]) -> Path:
    """Where the parts of a resumable artefact wait for the rest, as long as its key and its inputs stay."""
    return folder / f".partial-{hash_value([key, inputs])[:16]}-{artefact}"


def _find(folder: Path, entries: Mapping[str, Entry], artefact: str) -> Entry:
    entry = entries.get(artefact)
    if entry is None:
        raise UserError(f"{folder / artefact}: not there yet; run the stage that writes it first")
    return entry


class Run:
    """One run folder, locked while open.

    `manifest` is the content of manifest.json; stages read it and change it through `writing` alone.
    """

    unanswered = 0
    """Requests of what is written next that failed for a reason that may pass."""

    def __init__(self, folder: Path, command: str = "") -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be a run folder ({error.strerror}); name another with --run") from None
        self._lock = take_lock(folder, command)
        manifest = folder / "manifest.json"
        try:
            self.manifest: dict[str, Any] = read_json(manifest) if manifest.exists() else {"artefacts": {}}
            for left_over in folder.glob(".writing-*"):
                remove(left_over)
        except BaseException:  # A notebook lives on, and would keep the folder locked.
            os.close(self._lock)
            raise
        self._key, self._inputs, self._began, self._together = "", dict[str, str](), time.monotonic(), 1

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._lock)

    def describe(self, config: Config) -> None:
        """Put what made this run into the manifest: resolved config, versions, commit, seeds."""
        resolved = _without_secrets(config.model_dump(mode="json"))
        facts = {
            "config": resolved,
            "seeds": {k: v for k, v in flatten(resolved).items() if k.split(".")[-1] in ("seed", "random_seeds")},
            "versions": {"python": platform.python_version(), "rewrite": __version__}
            | {name: _version(name) for name in PACKAGES}
            | packages(config),
            "commit": _commit(),
        }
        if any(self.manifest.get(name) != value for name, value in facts.items()):
            self.manifest.update(facts)
            self._save()

    def note(self, name: str, value: object) -> None:
        """Keep a fact about the run's inputs, such as the corpus' hash, in the manifest."""
        if self.manifest.get(name) != value:
            self.manifest[name] = value
            self._save()

    def stale(self, artefact: str, key: str, inputs: Sequence[str]) -> str | None:
        """Why an artefact must be computed anew, or None where it is fresh.

        Raises UserError where it is there but is not what was written: damaged, or edited by hand.
        """
        return why_stale(self.folder, self.manifest["artefacts"], artefact, key, inputs)

    def begin(self, key: str, inputs: Sequence[str], together: int = 1) -> None:
        """Say what the artefacts that are written next depend on, and for how many runs they are made at once: each
        took its share of the time."""
        self._key, self._began, self._together, self.unanswered = key, time.monotonic(), together, 0
        self._inputs = self.inputs(inputs)

    def inputs(self, names: Sequence[str]) -> dict[str, str]:
        """The hashes of some artefacts that are there, by name."""
        return {name: str(self._entry(name)["sha256"]) for name in names}

    def path(self, artefact: str) -> Path:
        """Where a finished artefact is, after its content was checked against the manifest."""
        return check_content(self.folder, self.manifest["artefacts"], artefact)

    def _entry(self, artefact: str) -> Entry:
        return _find(self.folder, self.manifest["artefacts"], artefact)

    @contextmanager
    def writing(self, artefact: str, resumable: bool = False) -> Iterator[Path]:
        """A path to write an artefact to; it takes its place, with its manifest entry, when the block ends.

        A resumable artefact is a folder whose finished files outlive a kill, as long as the key and the inputs stay.
        The path of any other does not exist yet: make it a file or a folder.
        """
        beside = self._begin_partial(artefact) if resumable else self.folder / f".writing-{artefact}"
        if not resumable:
            remove(beside)
        yield beside
        _sync(beside)
        place = self._put(artefact, beside)
        self.manifest["artefacts"][artefact] = {
            "sha256": hash_path(place),
            "key": self._key,
            "inputs": self._inputs,
            "seconds": round((time.monotonic() - self._began) / self._together, 2),
            UNANSWERED: self.unanswered,
        }
        self._began = time.monotonic()
        self._save()

    @contextmanager
    def parts(self, artefact: str) -> Iterator[Path]:
        """A folder for the parts that an artefact is made of, until the block ends. What is in it outlives a kill, as
        long as the key and the inputs stay."""
        own = self._begin_partial(artefact)
        yield own
        remove(own)

    def _begin_partial(self, artefact: str) -> Path:
        """A folder with what is there already of an artefact; what was begun of another such is removed."""
        own = partial_folder(self.folder, artefact, self._key, self._inputs)
        for other in self.folder.glob(f".partial-*-{artefact}"):
            remove(other) if other != own else None
        own.mkdir(exist_ok=True)
        return own

    def take(self, artefact: str, other: Path, entry: Entry) -> bool:
        """Take an artefact over from another run's folder, whose manifest has this entry of it; whether it was there as
        the entry says. The files are the same on the disk where it can link them: no artefact is changed in place.
        """
        beside = self.folder / f".writing-{artefact}"
        remove(beside)
        try:
            link(other / artefact, beside)
        except OSError:  # It is being made anew just now.
            remove(beside)
            return False
        if hash_path(beside, artefact) != entry["sha256"]:
            remove(beside)
            return False
        self._put(artefact, beside)
        self.manifest["artefacts"][artefact] = entry | {"seconds": 0.0, "from": entry.get("from", other.name)}
        self._save()
        return True

    def _put(self, artefact: str, beside: Path) -> Path:
        """Move what was written into its place; until it has an entry again it counts as absent."""
        self.manifest["artefacts"].pop(artefact, None)
        self._save()
        place = self.folder / artefact
        remove(place)
        beside.replace(place)
        return place

    def _save(self) -> None:
        write_json(self.folder / "manifest.json", self.manifest)


class Borrowed(Run):
    """A run folder that the process which launched this one has locked: what is finished is read, nothing is noted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, read_json(folder / "manifest.json")

    def note(self, name: str, value: object) -> None:
        """It is noted by the one that has the folder."""


def _sync(path: Path) -> None:
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def _without_secrets(value: Any) -> Any:
    """The same without names and passwords in addresses."""
    if isinstance(value, dict):
        return {name: _without_secrets(own) for name, own in value.items()}
    return re.sub(r"://[^/@\s]+@", "://", value) if isinstance(value, str) else value


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _commit() -> str:
    """The checkout's commit, empty where this is not a checkout."""
    here = Path(__file__).parents[1]
    if not (here.parent / ".git").exists():
        return ""
    answer = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip()
