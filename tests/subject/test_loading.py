"""How people's weights lie in a folder: sharded, in half precision, quantised, pickled, with code of their own."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from makers.families import FAMILIES
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewrite.config import Config, CorpusConfig, UserError
from rewrite.run.files import bundled
from rewrite.subject.held import hold
from rewrite.subject.loading import load_network
from rewrite.subject.subject import build_subject, load_subject


def save(folder: Path, **config: Any) -> Any:
    """A small Llama in a folder, its config changed."""
    model = FAMILIES["llama"]()
    model.save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return model


def load(folder: Path, dtype: str = "float32") -> dict[str, Tensor]:
    state: dict[str, Tensor] = load_network(f"subject = {folder}", str(folder), "main", dtype).state_dict()
    return state


def refuse(folder: Path, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        load(folder)
    assert str(error.value).startswith(f"subject = {folder}: ")
    assert "\n" not in str(error.value)


def test_shards_are_put_together(tmp_path: Path) -> None:
    model = FAMILIES["llama"]()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    state = load(tmp_path)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    shards[1].unlink()
    refuse(tmp_path, "cannot be loaded")


@pytest.mark.parametrize("kept", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("asked", ["float32", "bfloat16", "float16"])
def test_half_precision_is_read_as_asked(tmp_path: Path, kept: torch.dtype, asked: str) -> None:
    model = FAMILIES["llama"]().to(kept)
    model.save_pretrained(tmp_path)
    state = load(tmp_path, asked)
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor.to(getattr(torch, asked))), name


def test_eight_bit_floats_are_unpacked(tmp_path: Path) -> None:
    """As DeepSeek and Qwen are given out: a scale for each block of a matrix; without a GPU they are multiplied out."""
    save(tmp_path, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    packed, plain = {}, {}
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        packed[name] = plain[name] = tensor
        if name.endswith("proj.weight"):
            scale = tensor.abs().max() / 448
            packed[name] = (tensor / scale).to(torch.float8_e4m3fn)
            packed[f"{name}_scale_inv"] = scale.view(1, 1)
            plain[name] = packed[name].float() * scale
    save_file(packed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    state = load(tmp_path)
    assert len(packed) > len(plain)
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.items())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"quant_method": "gptq", "bits": 4}, "optimum"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "hqq"}, "HQQ"),
        ({"quant_method": "mine"}, "its weights are quantised by mine, which is not known"),
    ],
)
def test_quantised_weights_are_read_or_refused_by_name(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    save(tmp_path, quantization_config=settings)
    refuse(tmp_path, reason)


def test_a_folders_own_code_is_not_run(tmp_path: Path) -> None:
    save(tmp_path, model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"})
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    refuse(tmp_path, "it brings its own code, which is not run here")
    assert not (tmp_path / "ran").exists()


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    model = save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    refuse(tmp_path, "no file named model.safetensors")


def test_an_unknown_kind_of_model_is_named(tmp_path: Path) -> None:
    save(tmp_path, model_type="mine")
    refuse(tmp_path, "model type `mine`")


@pytest.fixture
def named(tmp_path: Path) -> Config:
    """A config that names a model with a tokenizer."""
    save(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled("data") / "subject" / name, tmp_path / name)
    return Config(subject=str(tmp_path), hookpoint="layers.0.mlp", corpus=CorpusConfig(window=32))


def test_a_worker_is_sent_no_weights_and_loads_them_anew(named: Config) -> None:
    subject = load_subject(named)
    sent = pickle.dumps(subject)
    assert len(sent) < 10_000
    loaded, ids = pickle.loads(sent), torch.arange(5)[None]
    assert loaded.hookpoint == subject.hookpoint and loaded.model is not subject.model
    assert torch.equal(loaded.logits(ids), subject.logits(ids))
    with pytest.raises(TypeError, match="a subject that no config named"):
        pickle.dumps(build_subject(subject.model, subject.tokenizer, "layers.0.mlp"))


def test_a_model_in_memory_is_not_there_in_a_worker(named: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = load_subject(named)
    name = hold(subject.model, subject.tokenizer)
    sent = pickle.dumps(load_subject(named.model_copy(update={"subject": name})))
    assert pickle.loads(sent).model is subject.model, "in this process it is"
    monkeypatch.setattr("rewrite.subject.held._HELD", {})
    with pytest.raises(UserError, match=f"subject = {name}: was in the memory of another process"):
        pickle.loads(sent)
