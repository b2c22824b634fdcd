"""Gemma Scope's two layouts: told where they stand by names of folders, or by config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rewrite.coder.files import find_coder, load_coder, save_coder
from rewrite.config import UserError

D, LATENTS = 8, 24
READ, WRITTEN = "pre_feedforward_layernorm.output", "post_feedforward_layernorm.output"
X = torch.randn(50, D, generator=torch.Generator().manual_seed(0))


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_tensors(w: str) -> dict[str, Tensor]:
    return {
        f"{w}_enc": random(D, LATENTS, seed=2),
        "b_enc": random(LATENTS, seed=3),
        f"{w}_dec": random(LATENTS, D, seed=4),
        "b_dec": random(D, seed=5),
        "threshold": random(LATENTS, seed=6).abs(),
    }


def write_first(folder: Path, **changes: Tensor) -> dict[str, Tensor]:
    """Gemma Scope: arrays alone."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = make_tensors("W") | changes
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    return tensors


def write_second(folder: Path, read: str, **cfg: Any) -> dict[str, Tensor]:
    """Gemma Scope 2: safetensors, and the modules by name."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = make_tensors("w")
    if cfg.get("affine_connection"):
        tensors["affine_skip_connection"] = random(D, D, seed=7)
    save_file(tensors, folder / "params.safetensors")
    settings = {"architecture": "jump_relu", "hf_hook_point_in": f"model.layers.9.{read}"} | cfg
    (folder / "config.json").write_text(json.dumps(settings))
    return tensors


def expect(t: dict[str, Tensor]) -> Tensor:
    pre = X @ t["W_enc"] + t["b_enc"]
    return pre * (pre > t["threshold"])


@pytest.mark.parametrize(
    ("repository", "kind", "hookpoint"),
    [
        ("gemma-scope-2b-pt-res", "sae", "layers.20"),
        ("gemma-scope-9b-it-res-canonical", "sae", "layers.20"),
        ("models--google--gemma-scope-2b-pt-mlp/snapshots/0123", "sae", "layers.20.mlp"),
        ("gemma-scope-2b-pt-transcoders", "transcoder", "layers.20.mlp"),
    ],
)
def test_the_first(tmp_path: Path, repository: str, kind: str, hookpoint: str) -> None:
    folder = tmp_path / repository / "layer_20" / "width_16k" / "average_l0_71"
    tensors = write_first(folder)
    assert find_coder(folder, hookpoint) == folder
    coder = load_coder(folder, hookpoint)
    assert (coder.kind, coder.activation, coder.hookpoint) == (kind, "jumprelu", hookpoint)
    assert coder.reads_normed == (kind == "transcoder")
    acts = expect(tensors)
    np.testing.assert_allclose(coder.encode(X).toarray(), acts, atol=1e-5)
    torch.testing.assert_close(coder.reconstruct(coder.encode(X), X), acts @ tensors["W_dec"] + tensors["b_dec"])
    save_coder(coder, tmp_path / "run", hookpoint)
    again = load_coder(tmp_path / "run", hookpoint)
    assert (again.kind, again.hookpoint) == (kind, hookpoint)
    assert np.array_equal(again.encode(X).toarray(), coder.encode(X).toarray())


@pytest.mark.parametrize(
    ("read", "written", "affine", "kind", "hookpoint"),
    [
        ("output", None, False, "sae", "layers.9"),
        (WRITTEN, None, False, "sae", "layers.9.mlp"),
        (READ, WRITTEN, False, "transcoder", "layers.9.mlp"),
        (READ, WRITTEN, True, "skip_transcoder", "layers.9.mlp"),
    ],
)
def test_the_second(tmp_path: Path, read: str, written: str | None, affine: bool, kind: str, hookpoint: str) -> None:
    cfg = {"affine_connection": affine} | ({"hf_hook_point_out": f"model.layers.9.{written}"} if written else {})
    t = write_second(tmp_path, read, **cfg)
    coder = load_coder(tmp_path, hookpoint)
    assert (coder.kind, coder.hookpoint) == (kind, hookpoint)
    acts = expect({name.replace("w_", "W_"): tensor for name, tensor in t.items()})
    out = acts @ t["w_dec"] + t["b_dec"] + (X @ t["affine_skip_connection"] if affine else 0)
    np.testing.assert_allclose(coder.encode(X).toarray(), acts, atol=1e-5)
    torch.testing.assert_close(coder.reconstruct(coder.encode(X), X), out, atol=1e-5, rtol=1e-5)


def refuse(folder: Path, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        load_coder(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_what_cannot_stand_here_is_refused(tmp_path: Path) -> None:
    write_first(tmp_path / "anywhere")
    refuse(tmp_path / "anywhere", "does not say where it was trained; keep the names")
    heads = tmp_path / "gemma-scope-2b-pt-att" / "layer_3"
    write_first(heads)
    refuse(heads, "reads self_attn.o_proj.input, which is neither")
    for cfg, reason in (
        ({"architecture": "topk"}, "architecture topk is not known here"),
        ({"hf_hook_point_in": "model.norm.output"}, "names no layer"),
        ({"hf_hook_point_out": "model.layers.10.post_feedforward_layernorm.output"}, "writes model.layers.10"),
    ):
        write_second(tmp_path / "second", READ, **cfg)
        refuse(tmp_path / "second", reason)
    (tmp_path / "second" / "config.json").unlink()
    refuse(tmp_path / "second", "config.json: not readable as a coder's settings")


def test_arrays_of_objects_are_not_opened(tmp_path: Path) -> None:
    folder = tmp_path / "gemma-scope-2b-pt-res" / "layer_1"
    write_first(folder)
    np.savez(folder / "params.npz", W_enc=np.array([{}], dtype=object))
    refuse(folder, "params.npz: not readable as plain arrays")


def test_a_scale_that_the_file_holds_counts(tmp_path: Path) -> None:
    folder = tmp_path / "gemma-scope-2b-pt-res" / "layer_1"
    scale = random(LATENTS, seed=8).abs()
    t = write_first(folder, scaling_factor=scale)
    torch.testing.assert_close(load_coder(folder).W_dec, t["W_dec"] * scale[:, None])
