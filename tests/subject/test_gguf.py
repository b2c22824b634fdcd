"""A GGUF file is a model like a folder: as subject, and as what an engine asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from makers.servers import write_gguf
from makers.small import small_config

from rewrite.config import UserError
from rewrite.engines.base import Branches, Reading
from rewrite.engines.fingerprints import fingerprint_model
from rewrite.engines.prompting import Message
from rewrite.engines.transformers import Settings
from rewrite.engines.transformers.build import build
from rewrite.subject.loading import load_network, place_of
from rewrite.subject.subject import load_subject

pytest.importorskip("gguf", reason="the package gguf is not here")


@pytest.fixture(scope="module")
def file(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(tiny_model, path)
    return path


def test_the_weights_are_those_of_the_folder(file: Path, tiny_model: Path) -> None:
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        packed, folder = (load_network("m", str(path), "main", "float32")(ids).logits for path in (file, tiny_model))
    assert torch.allclose(packed, folder, atol=1e-4) and folder.std() > 0.1


def test_an_engine_reads_the_same(file: Path, tiny_model: Path) -> None:
    asked = Branches((Message("user", "Rate the words."),), (" a dog", " and a cat"), " => ")
    readings = [dict(build(str(path), Settings()).read([asked]))[0] for path in (file, tiny_model)]
    assert all(isinstance(reading, Reading) for reading in readings)
    assert np.allclose(readings[0].digits, readings[1].digits, atol=1e-5)  # type: ignore[union-attr]


def test_a_subject_may_be_a_file(file: Path) -> None:
    subject = load_subject(small_config(f"subject={file}", "hookpoint=layers.0.mlp"))
    assert subject.model.dtype == torch.float32 and subject.width > 0


def test_its_content_is_what_answers_depend_on(file: Path, tmp_path: Path) -> None:
    other = tmp_path / file.name
    other.write_bytes(file.read_bytes()[:-1] + b"x")
    assert len({fingerprint_model(str(path)) for path in (file, other)}) == 2
    assert fingerprint_model("owner/name/file.gguf") == "owner/name/file.gguf@main"


def test_a_file_of_the_hub_is_named_by_repository_and_path() -> None:
    assert place_of("owner/name/folder/file.gguf") == ("owner/name", {"gguf_file": "folder/file.gguf"})
    assert place_of("owner/name") == ("owner/name", {})


@pytest.mark.parametrize("name", ["/nowhere/model.gguf", "model.gguf", "./model.gguf"])
def test_a_file_that_is_not_there_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match=r"subject = .*model\.gguf: no such file") as refused:
        load_subject(small_config(f"subject={name}"))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UserError, match="cannot be loaded as a causal language model") as refused:
        load_subject(small_config(f"subject={tmp_path / 'model.gguf'}"))
    assert "\n" not in str(refused.value)
