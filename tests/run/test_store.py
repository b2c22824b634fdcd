"""Artefacts are there whole or not at all, and only what changed is computed again."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from rewrite.config import Config, UserError
from rewrite.run.arrays import load_arrays, save_arrays
from rewrite.run.files import find_holder, hash_path, read_json
from rewrite.run.store import Run


def write_artefact(run: Run, name: str, content: str, key: str = "k", inputs: tuple[str, ...] = ()) -> None:
    run.begin(key, inputs)
    with run.writing(name) as path:
        path.write_text(content)


def test_fresh_until_key_or_input_or_content_changes(tmp_path: Path) -> None:
    with Run(tmp_path / "r") as run:
        assert run.stale("a", "k", ()) == "not there yet"
        write_artefact(run, "a", "one")
        write_artefact(run, "b", "two", inputs=("a",))
    with Run(tmp_path / "r") as run:
        assert run.stale("b", "k", ("a",)) is None
        assert run.stale("b", "other", ("a",)) == "its settings or its code changed"
        write_artefact(run, "a", "three")
        assert run.stale("b", "k", ("a",)) == "what it is made from changed"
        (tmp_path / "r" / "a").write_text("tampered")
        with pytest.raises(UserError, match=r"r/a: not what was written"):
            run.path("a")


def test_a_truncated_artefact_is_named_and_not_used(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.begin("k", ())
        with run.writing("x") as folder:
            folder.mkdir()
            save_arrays(folder / "a.safetensors", {"v": np.arange(9)})
        file = tmp_path / "x" / "a.safetensors"
        os.truncate(file, file.stat().st_size - 8)
        with pytest.raises(UserError, match="delete it to compute it again"):
            run.stale("x", "k", ())
        with pytest.raises(UserError, match="not readable as safetensors"):
            load_arrays(file)


def test_an_exception_leaves_the_old_artefact(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        write_artefact(run, "a", "old")
        run.begin("new", ())
        with pytest.raises(RuntimeError), run.writing("a") as path:
            path.write_text("half")
            raise RuntimeError
        assert run.path("a").read_text() == "old"
        assert run.stale("a", "k", ()) is None


def test_a_resumable_artefact_keeps_its_parts_for_the_same_key_only(tmp_path: Path) -> None:
    for key, kept in (("k", False), ("k", True), ("other", False)):
        with Run(tmp_path) as run:
            run.begin(key, ())
            with pytest.raises(KeyboardInterrupt), run.writing("4", resumable=True) as folder:
                assert (folder / "part").exists() == kept
                (folder / "part").write_text("x")
                raise KeyboardInterrupt


def test_a_second_process_is_refused_by_name(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, rewrite.run.store as s\n"
        "try: s.Run(pathlib.Path(sys.argv[1]), 'collect')\n"
        "except Exception as e: print(e)\n"
    )
    with Run(tmp_path, "simulate"):
        said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert f"in use by process {os.getpid()} (rewrite simulate)" in said.stdout
    with Run(tmp_path, "explain"):
        pass


def test_a_look_at_the_lock_does_not_refuse_a_run_that_starts_just_then(tmp_path: Path) -> None:
    with Run(tmp_path, "explain"):
        pass
    looking = os.open(tmp_path / ".lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    ends = threading.Timer(0.05, os.close, [looking])
    ends.start()
    with Run(tmp_path, "simulate"):
        assert find_holder(tmp_path) == f"process {os.getpid()} (rewrite simulate)"
    ends.join()


def test_the_manifest_says_what_made_the_run(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.describe(Config())
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["config"]["coder"]["k"] == 16
    assert manifest["seeds"]["coder.seed"] == 0
    assert manifest["versions"]["torch"]


def test_hash_sees_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("x")
    first = hash_path(tmp_path / "d")
    (tmp_path / "d" / "a").rename(tmp_path / "d" / "b")
    assert hash_path(tmp_path / "d") != first


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(UserError, match="cannot be a run folder"):
        Run(tmp_path / "f")


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json: not readable as JSON"):
        Run(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with Run(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*named: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"cannot be locked \(Permission denied\); make it writable or name another"):
        Run(tmp_path)
