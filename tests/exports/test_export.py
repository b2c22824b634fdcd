"""The folder that an export writes: whole or not at all, in the place of its own earlier self only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

import rewrite.exports.saelens
from rewrite.commands.export import export, forms
from rewrite.config import UserError
from rewrite.run.files import hash_path
from rewrite.run.finished import Finished


def refuse(attempt: Callable[[], object], reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        attempt()
    assert "\n" not in str(error.value)


def test_forms_are_files() -> None:
    folder = Path(rewrite.exports.saelens.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base", "predictions"}
    assert set(forms()) == files == {"dataset", "hub", "neuronpedia", "saelens"}
    assert all(text and "\n" not in text for text in forms().values())


@pytest.mark.parametrize("form", ["dataset", "hub", "neuronpedia", "saelens"])
def test_the_same_run_gives_the_same_folder_and_stays_as_it_was(small_run: Path, tmp_path: Path, form: str) -> None:
    before = hash_path(small_run)
    one, two = tmp_path / "a" / "out", tmp_path / "b" / "out"
    lines = export(form, small_run, one)
    assert lines and all(isinstance(line, str) and "\n" not in line for line in lines)
    assert export(form, small_run, two) == lines
    assert hash_path(one) == hash_path(two)
    assert hash_path(small_run) == before
    mark = json.loads((one / "export.json").read_text())
    there = {p.relative_to(one).as_posix() for p in one.rglob("*") if p.is_file()}
    assert (mark["form"], mark["run"], {*mark["files"], "export.json"}) == (form, "small", there)
    assert mark["artefacts"]["1_coder"] == hash_path(small_run / "1_coder")
    assert {p.stat().st_mode for p in one.rglob("*") if p.is_file()} == {(one / "export.json").stat().st_mode}
    assert [p.name for p in one.parent.iterdir()] == ["out"]


def test_only_its_own_folder_is_replaced(small_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export("saelens", small_run, out)
    weights = out / "sae_weights.safetensors"
    weights.write_bytes(b"damaged")
    export("saelens", small_run, out)
    assert weights.stat().st_size > 1000
    refuse(lambda: export("dataset", small_run, out), "holds files and is no export in the form dataset")
    (out / ".git").mkdir()
    (out / ".git" / "HEAD").write_text("ref")
    refuse(lambda: export("saelens", small_run, out), r"holds \.git/HEAD, which the export did not write")
    for content in ("{", "[]", '{"form": "saelens"}'):
        (out / "export.json").write_text(content)
        refuse(lambda: export("saelens", small_run, out), "is no export in the form saelens")
    (tmp_path / "file").write_text("mine")
    refuse(lambda: export("saelens", small_run, tmp_path / "file"), "is a file; name a folder")
    refuse(lambda: export("saelens", small_run, tmp_path / "file" / "below"), "cannot be written")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_run_folder_is_no_place_for_an_export(small_run: Path) -> None:
    for place in (small_run, small_run / "export", small_run.parent, small_run / ".." / small_run.name / "1_coder"):
        refuse(lambda place=place: export("saelens", small_run, place), "is in the run folder or holds it")  # type: ignore[misc]
    assert not (small_run / "export").exists()


def test_what_cannot_be_exported_is_refused_in_one_line(small_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refuse(lambda: export("neuropedia", small_run, out), "did you mean neuronpedia.*dataset, hub, neuronpedia, saelens")
    refuse(lambda: export("base", small_run, out), "no such export")
    refuse(lambda: export("dataset", tmp_path / "absent", out), "no run there")
    damaged = tmp_path / "damaged"
    shutil.copytree(small_run, damaged)
    (damaged / "5_costs.parquet").write_bytes(b"")
    refuse(lambda: export("dataset", damaged, out), "5_costs.parquet: not what was written")
    manifest = json.loads((damaged / "manifest.json").read_text())
    del manifest["artefacts"]["5_costs.parquet"]
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    refuse(lambda: export("dataset", damaged, out), "not finished")
    assert not out.exists()


def test_a_failed_export_leaves_what_was_there(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export("saelens", small_run, out)
    before = hash_path(out)

    full = "No space left on device"
    errors = [OSError(28, full), SafetensorError(f"I/O error: {full} (os error 28)\n"), UserError(full)]

    def fail(run: Finished, folder: Path) -> list[str]:
        (folder / "half").write_text("half")
        raise errors.pop()

    monkeypatch.setattr(rewrite.exports.saelens, "write", fail)
    while errors:
        refuse(lambda: export("saelens", small_run, out), full)
        assert hash_path(out) == before
        assert [p.name for p in tmp_path.iterdir()] == ["out"]
