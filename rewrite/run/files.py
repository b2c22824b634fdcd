"""Files written whole or not at all, read with one-line errors, and known by the hash of what they hold; the lock of a
folder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rewrite.config import UserError

PAUSES = (0.0, 0.01, 0.03, 0.06, 0.1)
"""Before each try to lock a folder [s]."""


def hash_path(path: Path, name: str = "") -> str:
    """SHA-256 of a file's bytes, or of a folder's relative names and bytes in sorted order; as if it were called
    `name`, where one is given."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        called = Path(name or path.name, file.relative_to(path))
        digest.update(called.as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


_hashed: dict[object, str] | None = None


@contextmanager
def hash_once() -> Iterator[None]:
    """Within, what `once` is asked for a second time is not read again: for many configs over the same files."""
    global _hashed
    _hashed = {}
    try:
        yield
    finally:
        _hashed = None


def once(what: object, find: Callable[[], str]) -> str:
    """A hash that is known by what it is of; found anew each time but within `hash_once`."""
    if _hashed is None:
        return find()
    if what not in _hashed:
        _hashed[what] = find()
    return _hashed[what]


def hash_source(source: str | None, revision: str = "") -> str:
    """The content's hash where the source is on disk, else the hub's name and revision; empty for none."""
    if not source:
        return ""
    return hash_path(Path(source)) if Path(source).exists() else f"{source}@{revision}"


def on_hub(source: str) -> bool:
    """Whether a source names something on the hub rather than a place on disk."""
    path = Path(source)
    return not (path.exists() or path.is_absolute() or source.startswith(".")) and len(path.parts) >= 2


def hash_value(value: object) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: beside its place, synced, renamed."""
    beside = path.with_name(f".{path.name}.writing")
    with beside.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)


def make_folder(folder: Path, said: str) -> None:
    """Make a folder to write into. Raises UserError, naming what was said, where it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"{said}: cannot be written ({error.strerror}); name another") from None


def write_json(path: Path, value: object) -> None:
    """Write indented JSON, whole or not at all."""
    write_whole(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8", errors="replace"))


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link(source: Path, place: Path) -> None:
    """The same files at another place: linked, or copied where the disk cannot. Raises OSError."""
    if source.is_dir():
        shutil.copytree(source, place, copy_function=_link_file)
    else:
        _link_file(source, place)


def _link_file(source: str | Path, place: str | Path) -> None:
    try:
        os.link(source, place)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, place)


def is_full_disk(error: Exception) -> bool:
    """Whether a disk or quota is full; safetensors and torch raise errors of their own, known by what they say."""
    number = error.errno if isinstance(error, OSError) else None
    signs = ("No space left on device", "os error 28", "inline_container.cc")
    return number in (errno.ENOSPC, errno.EDQUOT) or any(sign in str(error) for sign in signs)


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """What fails within for want of room on the disk is told in one line."""
    try:
        yield
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise UserError(
            f"{folder}: no space left on the disk; free some and run again, nothing finished is lost"
        ) from None


def read_json(path: Path) -> Any:
    """Read JSON. Raises UserError naming the file where it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); delete it to compute it again") from None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Tables within tables as one: {"coder.k": 16, ...}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def bundled(name: str) -> Path:
    """A folder that comes with the package: inside an installed one, or in the checkout beside it."""
    package = Path(__file__).parents[1]
    installed = package / name
    return installed if installed.is_dir() else package.parent / name


# --- folders that one process works in at a time ----------------------------------------------------------------------


def find_holder(folder: Path) -> str:
    """The process that works in a run folder, as its lock says it; empty where none does."""
    try:
        lock = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return ""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read_holder(lock)
    finally:
        os.close(lock)
    return ""


def take_lock(folder: Path, command: str) -> int:
    """Lock a folder for this process alone, until the file that is returned is closed. Raises UserError, naming who has
    it, where another process does, and for a folder that cannot be written to."""
    try:
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise UserError(f"{folder}: cannot be locked ({error.strerror}); make it writable or name another") from None
    # `find_holder` shares the lock for a moment: who only looks keeps no run from starting.
    if not any(_try_lock(lock, pause) for pause in PAUSES):
        holder = _read_holder(lock)
        os.close(lock)
        raise UserError(f"{folder}: in use by {holder}; wait for it to end or name another --run")
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()} (rewrite {command})".encode())
    return lock


def _try_lock(lock: int, pause: float) -> bool:
    """Whether a lock is ours alone, tried after a pause."""
    time.sleep(pause)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read_holder(lock: int) -> str:
    return os.read(lock, 200).decode(errors="replace").strip() or "another process"
