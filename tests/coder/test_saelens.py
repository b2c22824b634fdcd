"""SAELens' layout, of every year: its equations written out, its hooks' names, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewrite.coder.files import load_coder, save_coder
from rewrite.coder.sparsify import fits_sparsify
from rewrite.config import UserError

D, LATENTS, K = 8, 24, 3
X = torch.randn(50, D, generator=torch.Generator().manual_seed(0))


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def write_saelens(folder: Path, architecture: str, **cfg: Any) -> dict[str, Tensor]:
    """A coder as SAELens writes it; returns its tensors."""
    tensors = {
        "W_enc": random(D, LATENTS, seed=2),
        "b_enc": random(LATENTS, seed=3),
        "W_dec": random(LATENTS, D, seed=4),
        "b_dec": random(D, seed=5),
    }
    if "jumprelu" in architecture:
        tensors["threshold"] = random(LATENTS, seed=6).abs()
    if "skip" in architecture:
        tensors["W_skip"] = random(D, D, seed=7)
    if architecture == "gated":
        tensors |= {name: random(LATENTS, seed=8 + i) for i, name in enumerate(("b_gate", "b_mag", "r_mag"))}
        del tensors["b_enc"]
    if "batchtopk" in architecture:
        tensors["topk_threshold"] = torch.tensor(1.5)
    if cfg.get("finetuning_scaling_factor"):
        tensors["finetuning_scaling_factor"] = random(LATENTS, seed=7).abs()
    settings = {"architecture": architecture, "d_in": D, "d_sae": LATENTS, "dtype": "float32", "device": "cpu"}
    settings |= {"normalize_activations": "none", "reshape_activations": "none", "metadata": {}}
    settings |= {"apply_b_dec_to_input": "transcoder" not in architecture}
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(settings | cfg), encoding="utf-8")
    return tensors


@pytest.mark.parametrize(
    "architecture",
    [
        "standard",
        "topk",
        "jumprelu",
        "transcoder",
        "skip_transcoder",
        "jumprelu_transcoder",
        "jumprelu_skip_transcoder",
    ],
)
def test_saelens_equations(tmp_path: Path, architecture: str) -> None:
    """The equations as SAELens 6.54 has them in sae_lens/saes/*.py, written out."""
    t = write_saelens(tmp_path, architecture, k=K)
    coder = load_coder(tmp_path, "layers.0.mlp")
    pre = (X if "transcoder" in architecture else X - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    expected = pre.relu()
    if architecture == "topk":
        expected = expected * (pre >= pre.topk(K).values.min(-1, keepdim=True).values)
    if "jumprelu" in architecture:
        expected = expected * (pre > t["threshold"])
    out = expected @ t["W_dec"] + t["b_dec"] + (X @ t["W_skip"].T if "skip" in architecture else 0)
    activations = coder.encode(X)
    np.testing.assert_allclose(activations.toarray(), expected, atol=1e-5)
    torch.testing.assert_close(coder.reconstruct(activations, X), out, atol=1e-4, rtol=1e-5)
    assert fits_sparsify(vars(coder)) == (architecture == "topk")


def test_saelens_rescaling_by_decoder_norms(tmp_path: Path) -> None:
    t = write_saelens(tmp_path, "topk", k=K, rescale_acts_by_decoder_norm=True)
    norms = t["W_dec"].norm(dim=-1)
    pre = ((X - t["b_dec"]) @ t["W_enc"] + t["b_enc"]) * norms
    acts = pre.relu() * (pre >= pre.topk(K).values.min(-1, keepdim=True).values)
    coder = load_coder(tmp_path, "layers.0.mlp")
    np.testing.assert_allclose(coder.encode(X).toarray(), acts, atol=1e-4)
    out = (acts / norms) @ t["W_dec"] + t["b_dec"]
    torch.testing.assert_close(coder.reconstruct(coder.encode(X), X), out, atol=1e-4, rtol=1e-5)


def test_saelens_before_version_6(tmp_path: Path) -> None:
    """activation_fn_str and hook_point at the top level; apply_b_dec_to_input absent means yes."""
    write_saelens(
        tmp_path,
        "standard",
        activation_fn_str="topk",
        activation_fn_kwargs={"k": K},
        hook_point="blocks.3.hook_mlp_out",
    )
    coder = load_coder(tmp_path, "layers.3.mlp")
    assert (coder.activation, coder.k, coder.hookpoint, coder.subtract_decoder_bias) == (
        "topk",
        K,
        "layers.3.mlp",
        True,
    )


def test_a_gated_autoencoder(tmp_path: Path) -> None:
    """Its gate and its magnitude, written out as in Rajamanoharan et al. (2024)."""
    t = write_saelens(tmp_path, "gated")
    z = X - t["b_dec"]
    gate = z @ t["W_enc"] + t["b_gate"] > 0
    expected = gate * (z @ (t["W_enc"] * t["r_mag"].exp()) + t["b_mag"]).relu()
    assert 0 < (expected > 0).float().mean() < gate.float().mean(), "both parts matter"
    coder = load_coder(tmp_path)
    np.testing.assert_allclose(coder.encode(X).toarray(), expected, atol=1e-5)
    torch.testing.assert_close(coder.reconstruct(coder.encode(X), X), expected @ t["W_dec"] + t["b_dec"])


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_a_batchs_topk_is_read_by_the_threshold_that_it_learnt(tmp_path: Path, architecture: str) -> None:
    t = write_saelens(tmp_path, architecture, k=K)
    pre = (X - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    np.testing.assert_allclose(load_coder(tmp_path).encode(X).toarray(), pre * (pre > 1.5), atol=1e-5)


def test_a_factor_of_finetuning_is_folded_into_the_decoder(tmp_path: Path) -> None:
    t = write_saelens(tmp_path, "standard", finetuning_scaling_factor=True)
    coder = load_coder(tmp_path)
    acts = ((X - t["b_dec"]) @ t["W_enc"] + t["b_enc"]).relu()
    np.testing.assert_allclose(coder.encode(X).toarray(), acts, atol=1e-5)
    out = (acts * t["finetuning_scaling_factor"]) @ t["W_dec"] + t["b_dec"]
    torch.testing.assert_close(coder.reconstruct(coder.encode(X), X), out, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["gated", "jumprelu_transcoder", "standard"])
def test_a_run_writes_what_it_read(tmp_path: Path, architecture: str) -> None:
    write_saelens(tmp_path, architecture)
    coder = load_coder(tmp_path)
    save_coder(coder, tmp_path / "again", "layers.3.mlp")
    again = load_coder(tmp_path / "again")
    assert again.hookpoint == "layers.3.mlp"
    assert np.array_equal(again.encode(X).toarray(), coder.encode(X).toarray())
    assert torch.equal(again.reconstruct(again.encode(X), X), coder.reconstruct(coder.encode(X), X))


def test_a_transcoder_by_its_hooks_may_subtract(tmp_path: Path) -> None:
    """topk has no transcoder in SAELens: one is told by its hooks, and may take b_dec off what it reads."""
    hooks = {"hook_name": "blocks.3.hook_mlp_in", "hook_name_out": "blocks.3.hook_mlp_out"}
    t = write_saelens(tmp_path, "topk", k=K, metadata=hooks)
    coder = load_coder(tmp_path)
    assert (coder.kind, coder.subtract_decoder_bias) == ("transcoder", False)
    pre = ((X - t["b_dec"]) @ t["W_enc"] + t["b_enc"]).relu()
    expected = pre * (pre >= pre.topk(K).values.min(-1, keepdim=True).values)
    np.testing.assert_allclose(coder.encode(X).toarray(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "hooks", "hookpoint"),
    [
        ("standard", ("blocks.3.hook_mlp_out", None), "layers.3.mlp"),
        ("standard", ("blocks.3.hook_resid_post", None), "layers.3"),
        ("standard", ("blocks.3.hook_resid_pre", None), "layers.2"),
        ("transcoder", ("blocks.3.mlp.hook_in", "blocks.3.hook_mlp_out"), "layers.3.mlp"),
        ("transcoder", ("blocks.3.ln2.hook_normalized", "blocks.3.hook_mlp_out"), "layers.3.mlp"),
        ("transcoder", ("blocks.3.hook_mlp_in", "blocks.3.hook_mlp_out"), "layers.3.mlp"),
        ("standard", (None, None), None),
    ],
)
def test_saelens_hook_names(
    tmp_path: Path, architecture: str, hooks: tuple[str | None, str | None], hookpoint: str | None
) -> None:
    write_saelens(tmp_path, architecture, metadata={"hook_name": hooks[0], "hook_name_out": hooks[1]})
    coder = load_coder(tmp_path, "layers.3.mlp")
    assert coder.hookpoint == hookpoint and coder.reads_normed == (hooks[0] == "blocks.3.ln2.hook_normalized")


def refuse(folder: Path, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        load_coder(folder, "layers.2.mlp")
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_saelens_settings_that_are_not_computed_are_refused(tmp_path: Path) -> None:
    for cfg, reason in (
        ({"normalize_activations": "layer_norm"}, "normalize_activations = layer_norm"),
        ({"reshape_activations": "hook_z"}, "reshape_activations = hook_z"),
        ({"normalize_activations": "expected_average_only_in"}, "normalize_activations = expected_average_only_in"),
        ({"normalize_activations": True}, "normalize_activations = True"),
        ({"activation_fn_str": "tanh-relu"}, "activation_fn = tanh-relu is not computed here"),
        ({"metadata": {"hook_name": "blocks.3.attn.hook_z"}}, "neither an MLP's output nor"),
    ):
        write_saelens(tmp_path, "standard", **cfg)
        refuse(tmp_path, reason)
    write_saelens(tmp_path, "temporal")
    refuse(tmp_path, "architecture temporal is not known here; those known: standard, topk")
    write_saelens(tmp_path, "jumprelu")
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    save_file({name: t for name, t in tensors.items() if name != "threshold"}, tmp_path / "sae_weights.safetensors")
    refuse(tmp_path, "the coder lacks 'threshold'")
    write_saelens(tmp_path, "transcoder", apply_b_dec_to_input=True)
    refuse(tmp_path, "apply_b_dec_to_input is for autoencoders")
    hooks = {"hook_name": "blocks.1.hook_mlp_in", "hook_name_out": "blocks.3.hook_mlp_out"}
    write_saelens(tmp_path, "transcoder", metadata=hooks)
    refuse(tmp_path, "only transcoders of one layer")
    hooks = {"hook_name": "blocks.3.hook_resid_mid", "hook_name_out": "blocks.3.hook_mlp_out"}
    write_saelens(tmp_path, "transcoder", metadata=hooks)
    refuse(tmp_path, "only transcoders of one layer")
