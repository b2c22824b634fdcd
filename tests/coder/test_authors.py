"""Coders that their authors' own package made, read here: sae-lens in the environment of `make test-export`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rewrite.coder.files import load_coder

pytestmark = pytest.mark.skipif(
    find_spec("sae_lens") is None, reason="sae-lens is not installed here: make test-export has it"
)

D, LATENTS, K = 8, 24, 3
X = torch.randn(50, D, generator=torch.Generator().manual_seed(0))


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scatter(coder: Any) -> Any:
    """The same with random values in all its parameters; thresholds and scales above 0."""
    for seed, (name, parameter) in enumerate(coder.named_parameters()):
        values = random(*parameter.shape, seed=seed)
        parameter.data = values.abs() if "threshold" in name else values
    return coder.eval()


def assert_computes(folder: Path, encoded: Tensor, out: Tensor) -> None:
    coder = load_coder(folder)
    activations = coder.encode(X)
    assert len(X) < activations.nnz < X.shape[0] * LATENTS
    np.testing.assert_allclose(activations.toarray(), encoded, atol=1e-5)
    torch.testing.assert_close(coder.reconstruct(activations, X), out, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
@torch.no_grad()
def test_an_autoencoder_of_each_kind(tmp_path: Path, architecture: str, subtract: bool) -> None:
    from sae_lens.registry import get_sae_class

    kind, settings = get_sae_class(architecture)
    extra = {"k": K, "rescale_acts_by_decoder_norm": subtract} if architecture == "topk" else {}
    coder = scatter(kind(settings(d_in=D, d_sae=LATENTS, apply_b_dec_to_input=subtract, **extra)))
    coder.save_model(tmp_path)
    assert_computes(tmp_path, coder.encode(X), coder(X))


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
@torch.no_grad()
def test_a_batchs_topk_in_training_and_as_it_is_used(tmp_path: Path, architecture: str, rescale: bool) -> None:
    """What SAELens writes in the midst of training computes what it writes for use."""
    from sae_lens import SAE
    from sae_lens.registry import get_sae_training_class

    kind, settings = get_sae_training_class(architecture)
    extra = {"matryoshka_widths": [8, LATENTS]} if "matryoshka" in architecture else {}
    coder = scatter(kind(settings(d_in=D, d_sae=LATENTS, k=K, rescale_acts_by_decoder_norm=rescale, **extra)))
    coder.topk_threshold = torch.tensor(1.5, dtype=coder.topk_threshold.dtype)
    coder.save_model(tmp_path / "training")
    coder.save_inference_model(tmp_path / "inference")
    used = SAE.load_from_disk(tmp_path / "inference")
    assert_computes(tmp_path / "inference", used.encode(X), used(X))
    mine, theirs = load_coder(tmp_path / "training"), load_coder(tmp_path / "inference")
    torch.testing.assert_close(mine.reconstruct(mine.encode(X), X), theirs.reconstruct(theirs.encode(X), X))


@pytest.mark.parametrize("site", ["resid_post", "mlp_out", "transcoder"])
@torch.no_grad()
def test_gemma_scope_as_sae_lens_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str) -> None:
    from sae_lens.loading import pretrained_sae_loaders as theirs
    from sae_lens.registry import get_sae_class

    names = ("w_enc", "b_enc", "w_dec", "b_dec", "threshold")
    shapes = ((D, LATENTS), (LATENTS,), (LATENTS, D), (D,), (LATENTS,))
    tensors = {name: random(*shape, seed=i) for i, (name, shape) in enumerate(zip(names, shapes, strict=True))}
    tensors["threshold"] = tensors["threshold"].abs()
    if site == "transcoder":
        tensors["affine_skip_connection"] = random(D, D, seed=9)
    folder = tmp_path / f"{site}_all" / "layer_9_width_16k_l0_small_affine"
    folder.mkdir(parents=True)
    save_file(tensors, folder / "params.safetensors")
    raw = theirs._infer_gemma_3_raw_cfg_dict("google/gemma-scope-2-270m-pt", str(folder))
    (folder / "config.json").write_text(json.dumps(raw))

    def local(repo_id: str, filename: str, subfolder: str = "", **_: object) -> str:
        return str(folder / Path(filename).name)

    shapes_of = {name: list(tensor.shape) for name, tensor in tensors.items()}
    monkeypatch.setattr(theirs, "hf_hub_download", local)
    monkeypatch.setattr(theirs, "get_safetensors_tensor_shapes", lambda *_: shapes_of)
    cfg, state, _ = theirs.gemma_3_sae_huggingface_loader("google/gemma-scope-2-270m-pt", f"{site}/{folder.name}")
    kind, settings = get_sae_class(cfg["architecture"])
    known = {name: value for name, value in cfg.items() if name in settings.__dataclass_fields__ and name != "metadata"}
    coder = kind(settings(**known))
    coder.load_state_dict(state)
    assert_computes(folder, coder.encode(X), coder(X))
