"""EleutherAI's sparsify: its layout of a sparse coder (`cfg.json`, `sae.safetensors`) in the words of
`rewrite.coder.coder`, and back.

1. Before 12 February 2025 there was no `transcode` in its `cfg.json` and every coder subtracted b_dec from what it
   reads; such files, the paper's checkpoint among them, are read as they were trained.
2. Where `signed` is set the code holds the k values that are largest in size, negative ones too: not a code of
   activations, so it is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from rewrite.config import UserError


def translate_sparsify(cfg: dict[str, Any], tensors: dict[str, Tensor], file: Path) -> dict[str, Any]:
    """The fields of a `Coder` from sparsify's settings and tensors; `file` is its cfg.json.

    Raises UserError for what is not computed here, KeyError for a tensor or a setting that is absent.
    """
    if cfg.get("signed"):
        raise UserError(f"{file}: signed = true (activations below 0) is not computed here; use a coder without")
    skip = bool(cfg.get("skip_connection", False))
    # Only transcoders have a skip; before `transcode` was written down that alone told them apart.
    transcodes = bool(cfg.get("transcode", skip))
    return {
        "W_enc": tensors["encoder.weight"],
        "b_enc": tensors["encoder.bias"],
        "W_dec": tensors["W_dec"],
        "b_dec": tensors["b_dec"],
        "W_skip": tensors["W_skip"] if skip else None,
        "kind": "skip_transcoder" if transcodes and skip else "transcoder" if transcodes else "sae",
        "activation": cfg.get("activation", "topk"),
        "k": cfg["k"],
        "subtract_decoder_bias": not transcodes or "transcode" not in cfg,
        "hookpoint": file.parent.name,
    }


def fits_sparsify(coder: dict[str, Any]) -> bool:
    """Whether sparsify's layout can say what a coder, given by its fields, computes."""
    square = coder["W_enc"].shape == coder["W_dec"].shape
    reads = coder["subtract_decoder_bias"] == (coder["kind"] == "sae")
    return coder["activation"] in ("topk", "groupmax") and square and reads


def compose_sparsify(coder: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """sparsify's settings and tensors from the fields of a `Coder`; ask `fits_sparsify` first."""
    assert fits_sparsify(coder), "this coder has no form in sparsify's layout"
    latents, width = coder["W_enc"].shape
    cfg = {
        "activation": coder["activation"],
        "expansion_factor": latents // width,
        "normalize_decoder": True,
        "num_latents": latents,
        "k": coder["k"],
        "multi_topk": False,
        "skip_connection": coder["W_skip"] is not None,
        "transcode": coder["kind"] != "sae",
        "d_in": width,
    }
    tensors = {"encoder.weight": coder["W_enc"], "encoder.bias": coder["b_enc"]}
    tensors |= {name: coder[name] for name in ("W_dec", "b_dec", "W_skip") if coder[name] is not None}
    return cfg, tensors
