"""The coder: its equations, sparsify as the reference, both layouts on disk, and every refusal."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_array
from torch import Tensor

from rewrite.coder.coder import Coder, check_fit
from rewrite.coder.files import load_coder, save_coder
from rewrite.config import UserError

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

D, LATENTS, K = 8, 24, 3
X = torch.randn(50, D, generator=torch.Generator().manual_seed(0))


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_sparsify(folder: Path, kind: str, activation: str = "topk") -> Any:
    """sparsify's own coder with random weights, saved by sparsify itself."""
    from sparsify import SparseCoder, SparseCoderConfig

    cfg = SparseCoderConfig(
        activation=activation,
        num_latents=LATENTS,
        k=K,
        transcode=kind != "sae",
        skip_connection=kind == "skip_transcoder",
    )
    reference = SparseCoder(D, cfg)
    for i, parameter in enumerate(reference.parameters()):
        parameter.data = random(*parameter.shape, seed=i)
    reference.save_to_disk(folder)
    return reference.requires_grad_(False)


def dense(top_acts: Tensor, top_indices: Tensor) -> Tensor:
    return torch.zeros(len(top_acts), LATENTS).scatter(1, top_indices, top_acts)


@pytest.mark.parametrize("activation", ["topk", "groupmax"])
@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder", "sae"])
def test_agrees_with_sparsify(tmp_path: Path, kind: str, activation: str) -> None:
    reference = make_sparsify(tmp_path, kind, activation)
    coder = load_coder(tmp_path, "layers.0.mlp")
    assert (coder.kind, coder.k, coder.latents, coder.hookpoint) == (kind, K, LATENTS, None)
    out = reference(X)
    activations = coder.encode(X)
    torch.testing.assert_close(torch.from_numpy(activations.toarray()), dense(out.latent_acts, out.latent_indices))
    decoded = reference.decode(out.latent_acts, out.latent_indices)
    torch.testing.assert_close(coder.decode(activations), decoded, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(coder.reconstruct(activations, X), out.sae_out, atol=1e-5, rtol=1e-5)
    assert activations.dtype == np.float32
    assert activations.has_sorted_indices
    assert (activations.data > 0).all()


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder", "sae"])
def test_sparsify_reads_what_is_saved(tmp_path: Path, kind: str) -> None:
    from sparsify import SparseCoder

    reference = make_sparsify(tmp_path / "a", kind)
    coder = load_coder(tmp_path / "a", "layers.0.mlp")
    save_coder(coder, tmp_path / "b", "layers.0.mlp")
    again = SparseCoder.load_from_disk(tmp_path / "b")
    assert torch.equal(again(X).sae_out, reference(X).sae_out)
    twice = load_coder(tmp_path / "b", "layers.0.mlp")
    assert np.array_equal(twice.encode(X).toarray(), coder.encode(X).toarray())


def make_coder(**changes: Any) -> Coder:
    settings: dict[str, Any] = {
        "W_enc": random(LATENTS, D, seed=2),
        "b_enc": random(LATENTS, seed=3),
        "W_dec": random(LATENTS, D, seed=4),
        "b_dec": random(D, seed=5),
        "kind": "transcoder",
        "activation": "topk",
        "k": K,
    }
    return Coder(**(settings | changes))


def test_zeros_among_the_top_are_not_activations() -> None:
    """Where fewer than k pre-activations are positive, topk fills up with zeros."""
    coder = make_coder(W_enc=torch.eye(LATENTS, D), b_enc=torch.zeros(LATENTS))
    x = torch.zeros(3, D)
    x[1, 5], x[2, 2], x[2, 7], x[2, 4] = 2.0, 1.0, 3.0, -1.0
    activations = coder.encode(x)
    assert activations.indptr.tolist() == [0, 0, 1, 3]
    assert activations.indices.tolist() == [5, 2, 7]
    assert activations.data.tolist() == [2.0, 1.0, 3.0]


def test_base_is_the_reconstruction_of_nothing_bit_for_bit() -> None:
    empty = csr_array(np.zeros((50, LATENTS), np.float32))
    for skip in (None, random(D, D)):
        coder = make_coder(W_skip=skip)
        assert torch.equal(coder.base(X), coder.reconstruct(empty, X))
    torch.testing.assert_close(coder.base(X), coder.b_dec + X @ random(D, D).T)


def test_a_long_text_is_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for coder in (make_coder(), make_coder(activation="relu", k=0)):
        whole = coder.encode(X)
        monkeypatch.setattr("rewrite.coder.coder.CHUNK", 7 * LATENTS)
        parts = coder.encode(X)
        monkeypatch.undo()
        np.testing.assert_allclose(parts.toarray(), whole.toarray(), atol=1e-6)
    assert coder.encode(X[:0]).shape == (0, LATENTS)


def test_a_coder_reads_what_its_kind_reads() -> None:
    read, returned = random(2, 5, D).bfloat16(), random(2, 5, D, seed=9).bfloat16()
    assert torch.equal(make_coder().read(read, returned), read.float().view(10, D))
    assert torch.equal(make_coder(kind="sae").read(read, returned), returned.float().view(10, D))


@pytest.mark.parametrize("name", ["ae.pt", "params.npz", "pytorch_model.bin"])
def test_a_pickle_is_never_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    (tmp_path / "config.json").write_text("{}")
    opened = name == "params.npz"  # Gemma Scope's: its plain arrays are read, objects in it are not
    reason = "not readable as plain arrays" if opened else r"is not opened \(a pickle may run code\): convert it"
    with pytest.raises(UserError, match=f"{name}:? {reason}"):
        load_coder(tmp_path, "layers.3")


def test_sparsify_before_transcode_was_written_down(tmp_path: Path) -> None:
    """The paper's checkpoint: a skip transcoder whose encoder reads x - b_dec."""
    make_sparsify(tmp_path, "skip_transcoder")
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    del cfg["transcode"]
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    coder = load_coder(tmp_path, "layers.0.mlp")
    assert (coder.kind, coder.subtract_decoder_bias) == ("skip_transcoder", False), "folded into b_enc"
    t = load_file(tmp_path / "sae.safetensors")
    pre = ((X - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]).relu()
    acts = pre * (pre >= pre.topk(K).values.min(-1, keepdim=True).values)
    np.testing.assert_allclose(coder.encode(X).toarray(), acts, atol=1e-5)
    save_coder(coder, tmp_path / "again", "layers.0.mlp")
    assert np.array_equal(load_coder(tmp_path / "again").encode(X).toarray(), coder.encode(X).toarray())


@dataclass(frozen=True)
class Place:
    hookpoint: str
    width: int = D


def test_what_does_not_fit_is_refused() -> None:
    check_fit(make_coder(), Place("layers.2.mlp"))
    check_fit(make_coder(kind="sae", hookpoint="layers.2"), Place("h.2"))
    check_fit(make_coder(hookpoint="layers.2.mlp"), Place("h.2.mlp"))
    for coder, place, reason in (
        (make_coder(), Place("layers.2"), "the residual stream takes an sae"),
        (make_coder(), Place("layers.2.mlp", D + 1), "reads vectors of 8, the subject's are 9 long"),
        (make_coder(W_dec=random(LATENTS, 9), b_dec=random(9)), Place("layers.2.mlp"), "writes vectors of 9"),
        (make_coder(hookpoint="layers.3.mlp"), Place("layers.2.mlp"), "trained at layers.3.mlp"),
        (make_coder(kind="sae", hookpoint="layers.2"), Place("layers.2.mlp"), "trained at layers.2;"),
    ):
        with pytest.raises(UserError, match=reason):
            check_fit(coder, place)


def refuse(folder: Path, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        load_coder(folder, "layers.2.mlp")
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_a_code_with_negative_activations_is_refused(tmp_path: Path) -> None:
    """sparsify before 2025 could keep the k largest in size, of either sign."""
    make_sparsify(tmp_path, "sae")
    cfg = json.loads((tmp_path / "cfg.json").read_text()) | {"signed": True}
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    refuse(tmp_path, "signed = true")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    refuse(tmp_path / "absent", "no such folder")
    refuse(tmp_path, "no coder for layers.2.mlp here; it has no cfg.json")
    make_sparsify(tmp_path / "layers.3.mlp", "transcoder")
    refuse(tmp_path, "it has coders for layers.3.mlp")
    make_sparsify(tmp_path / "layers.2.mlp", "transcoder")
    assert load_coder(tmp_path, "layers.2.mlp").hookpoint == "layers.2.mlp"
    weights = tmp_path / "layers.2.mlp" / "sae.safetensors"
    tensors = load_file(weights)
    for change, reason in (
        ({"W_dec": None}, "lacks 'W_dec'"),
        ({"b_dec": random(D + 1)}, r"b_dec has shape \[9\], not \[8\]"),
        ({"encoder.bias": torch.full((LATENTS,), torch.nan)}, "b_enc holds values that are not finite"),
    ):
        save_file({n: t for n, t in (tensors | change).items() if t is not None}, weights)
        refuse(tmp_path, reason)
    weights.write_bytes(weights.read_bytes()[:-20])
    refuse(tmp_path, "sae.safetensors: not readable as safetensors")
    weights.unlink()
    refuse(tmp_path, "sae.safetensors: no such file")
    (tmp_path / "layers.2.mlp" / "cfg.json").write_text("{")
    refuse(tmp_path, "cfg.json: not readable")
