"""The coder in SAELens' layout: back through our reader, and through the real sae-lens where it is installed."""

from __future__ import annotations

import json
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers.small import small_config
from safetensors.torch import save_file
from torch import Tensor

from rewrite.coder.coder import Coder, check_fit
from rewrite.coder.files import load_coder
from rewrite.coder.saelens import compose_saelens
from rewrite.commands.export import export
from rewrite.config import UserError
from rewrite.subject.subject import load_subject, write

needs_saelens = pytest.mark.skipif(
    find_spec("sae_lens") is None, reason="sae-lens is not installed here: make test-export has it"
)

D, LATENTS, K = 8, 24, 3
X = torch.randn(50, D, generator=torch.Generator().manual_seed(0))
FORMS = {
    ("sae", "topk"): "topk",
    ("sae", "relu"): "standard",
    ("sae", "jumprelu"): "jumprelu",
    ("transcoder", "topk"): "topk",
    ("transcoder", "relu"): "transcoder",
    ("transcoder", "jumprelu"): "jumprelu_transcoder",
    ("skip_transcoder", "relu"): "skip_transcoder",
    ("skip_transcoder", "jumprelu"): "jumprelu_skip_transcoder",
}
"""Kind and activation, and the architecture of SAELens that computes it."""


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_coder(kind: str, activation: str, d_out: int = D, **changes: Any) -> Coder:
    settings: dict[str, Any] = {
        "W_enc": random(LATENTS, D, seed=2),
        "b_enc": random(LATENTS, seed=3),
        "W_dec": random(LATENTS, d_out, seed=4),
        "b_dec": random(d_out, seed=5),
        "kind": kind,
        "activation": activation,
        "k": K if activation in ("topk", "groupmax") else 0,
        "W_skip": random(d_out, D, seed=6) if kind == "skip_transcoder" else None,
        "threshold": random(LATENTS, seed=7).abs() if activation == "jumprelu" else None,
        "subtract_decoder_bias": kind == "sae",
        "hookpoint": "layers.3.mlp",
    }
    return Coder(**(settings | changes))


def save(coder: Coder, folder: Path, hookpoint: str = "layers.3.mlp") -> dict[str, Any]:
    layout = compose_saelens(vars(coder), hookpoint, {"model_name": "gpt2"})
    folder.mkdir(exist_ok=True)
    save_file(layout.tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(layout.cfg), encoding="utf-8")
    return layout.cfg


def assert_same(one: Coder, other: Coder) -> None:
    for field in fields(Coder):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(mine, theirs) if isinstance(mine, Tensor) else mine == theirs, field.name


@pytest.mark.parametrize(("kind", "activation"), FORMS)
def test_our_reader_reads_the_same_coder(tmp_path: Path, kind: str, activation: str) -> None:
    coder = make_coder(kind, activation)
    cfg = save(coder, tmp_path)
    assert cfg["architecture"] == FORMS[kind, activation]
    assert_same(load_coder(tmp_path), coder)


def test_what_differs_in_one_thing_comes_back_too(tmp_path: Path) -> None:
    """An autoencoder that does not subtract, another length, the residual stream, GPT-2."""
    for number, coder in enumerate(
        (
            make_coder("sae", "topk", subtract_decoder_bias=False),
            make_coder("transcoder", "relu", d_out=5),
            make_coder("skip_transcoder", "jumprelu", d_out=5),
        )
    ):
        save(coder, tmp_path / str(number))
        assert_same(load_coder(tmp_path / str(number)), coder)
    metadata = save(make_coder("sae", "relu"), tmp_path / "residual", "layers.3")["metadata"]
    assert metadata["hook_name"] == "blocks.3.hook_resid_post"
    assert load_coder(tmp_path / "residual").hookpoint == "layers.3"
    save(make_coder("transcoder", "relu"), tmp_path / "gpt2", "transformer.h.3.mlp")
    assert load_coder(tmp_path / "gpt2").hookpoint == "layers.3.mlp"


@pytest.mark.parametrize(
    ("coder", "reason"),
    [
        (make_coder("skip_transcoder", "topk"), "SAELens has no skip_transcoder with topk, so this coder"),
        (make_coder("sae", "groupmax"), "SAELens has no sae with groupmax"),
        (make_coder("transcoder", "topk", d_out=5), "transcoder with topk that writes vectors of another length"),
    ],
    ids=["skip with topk", "groupmax", "other length"],
)
def test_what_saelens_does_not_compute_is_refused(coder: Coder, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        compose_saelens(vars(coder), "layers.3.mlp", {})
    assert "\n" not in str(error.value)


def test_a_run_keeps_its_coder(small_run: Path, tmp_path: Path) -> None:
    (line,) = export("saelens", small_run, tmp_path / "out")
    assert line.startswith("cfg.json and sae_weights.safetensors: the transcoder with topk")
    coder = load_coder(small_run / "1_coder", "layers.1.mlp")
    again = load_coder(tmp_path / "out")
    assert_same(again, coder)
    subject = load_subject(small_config())
    check_fit(again, subject)
    x = random(30, subject.width, seed=8)
    assert np.array_equal(again.encode(x).toarray(), coder.encode(x).toarray())
    metadata = json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]
    assert metadata["model_name"] == "subject", "no folder of this machine"


@needs_saelens
@pytest.mark.parametrize(("kind", "activation"), FORMS)
def test_sae_lens_computes_the_same(tmp_path: Path, kind: str, activation: str) -> None:
    from sae_lens import SAE

    coder = make_coder(kind, activation)
    save(coder, tmp_path)
    theirs = SAE.load_from_disk(tmp_path)
    activations = coder.encode(X)
    assert activations.nnz > len(X)
    with torch.no_grad():
        encoded = theirs.encode(X)
        np.testing.assert_allclose(activations.toarray(), encoded, atol=1e-6, rtol=0)
        torch.testing.assert_close(coder.decode(activations), theirs.decode(encoded), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(coder.reconstruct(activations, X), theirs(X), atol=1e-5, rtol=1e-5)
    assert theirs.cfg.metadata.model_name == "gpt2"
    theirs.save_model(tmp_path / "again")
    assert_same(load_coder(tmp_path / "again"), coder)


@needs_saelens
def test_sae_lens_splices_the_coder_where_the_run_did(small_run: Path, tmp_path: Path) -> None:
    """The subject's logits with the coder in it: as SAELens hooks it in, and as the coder arm does."""
    from sae_lens import SAE, SAETransformerBridge

    export("saelens", small_run, tmp_path / "out")
    coder, subject = load_coder(small_run / "1_coder", "layers.1.mlp"), load_subject(small_config())
    ids = torch.randint(2, 1000, (2, 40), generator=torch.Generator().manual_seed(0))

    def rewrite(read: Tensor, returned: Tensor) -> Tensor:
        x = coder.read(read, returned)
        return coder.reconstruct(coder.encode(x), x).view(returned.shape)

    with write(subject, rewrite):
        ours = subject.logits(ids)
    bridge = SAETransformerBridge.boot_transformers(small_config().subject, device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(bridge(ids), subject.logits(ids), atol=1e-3, rtol=0)
        bridge.add_sae(SAE.load_from_disk(tmp_path / "out"))
        spliced = bridge(ids)
    torch.testing.assert_close(spliced, ours, atol=1e-3, rtol=0)
    assert (ours - subject.logits(ids)).abs().max() > 1, "a coder that changed nothing would agree for nothing"
