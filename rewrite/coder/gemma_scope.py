"""Gemma Scope's layouts of a sparse coder in the words of `rewrite.coder.coder`: JumpReLU throughout, b_dec is not
subtracted from what is read.

1. Gemma Scope (Lieberum et al. 2024, arXiv 2408.05147): `params.npz` alone. Where it was trained stands in the names of
   its repository and folders, `gemma-scope-2b-pt-res/layer_20/...`: `res` reads the stream after a layer, `mlp` what
   the MLP adds to the stream, `transcoders` predict that from the norm before the MLP without its gain
   (`rewrite.coder.normed`), `att` reads the heads' outputs.
2. Gemma Scope 2: `params.safetensors` and a `config.json` that names the modules.

The MLP's own norm comes before what it adds to the stream, and is part of `layers.N.mlp` here
(`rewrite/subject/families.py`). As in SAELens 6.54 (`sae_lens/loading/pretrained_sae_loaders.py`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewrite.config import UserError

WRITES = "post_feedforward_layernorm.output"
NORMED = "pre_feedforward_layernorm.output without its gain"
SITES = {
    NORMED: ("transcoder", "layers.{}.mlp"),
    "output": ("sae", "layers.{}"),
    WRITES: ("sae", "layers.{}.mlp"),
    "pre_feedforward_layernorm.output": ("transcoder", "layers.{}.mlp"),
}
"""What a coder reads, as Gemma Scope 2 names it: the kind of coder, and its hookpoint."""
REPOSITORIES = {
    "res": "output",
    "mlp": WRITES,
    "transcoders": NORMED,
    "att": "self_attn.o_proj.input",
}


def translate_gemma_scope(cfg: dict[str, Any] | None, tensors: dict[str, Tensor], folder: Path) -> dict[str, Any]:
    """The fields of a `Coder` from Gemma Scope's tensors and, for Gemma Scope 2, its config.json.

    Raises UserError where it stands at a place that is not written here or does not say where it stands, KeyError for a
    tensor that is absent.
    """
    tensors = {name.replace("w_", "W_", 1) if name.startswith("w_") else name: t for name, t in tensors.items()}
    layer, read = _read_site(cfg, folder) if cfg is not None else _read_names(folder)
    if read not in SITES:
        raise UserError(f"{folder}: reads {read}, which is neither what an MLP reads or adds nor the stream")
    kind, hookpoint = SITES[read]
    written = (cfg or {}).get("hf_hook_point_out")
    if kind == "transcoder" and written and not written.endswith(f"layers.{layer}.{WRITES}"):
        raise UserError(f"{folder}: writes {written}; only transcoders of one layer's MLP can be spliced")
    if tensors["W_dec"].ndim != 2:
        raise UserError(f"{folder}: a coder that writes to several layers cannot be spliced at one")
    scale = tensors.get("scaling_factor", torch.ones(1))
    skip = tensors.get("affine_skip_connection")
    return {
        "W_enc": tensors["W_enc"].mT.contiguous(),
        "b_enc": tensors["b_enc"],
        "W_dec": tensors["W_dec"] * scale[:, None],
        "b_dec": tensors["b_dec"],
        "W_skip": None if skip is None else skip.mT.contiguous(),
        "threshold": tensors["threshold"],
        "kind": kind if skip is None else "skip_transcoder",
        "activation": "jumprelu",
        "subtract_decoder_bias": False,
        "reads_normed": read == NORMED,
        "hookpoint": hookpoint.format(layer),
    }


def _read_site(cfg: dict[str, Any], folder: Path) -> tuple[int, str]:
    """The layer, and what is read there, from Gemma Scope 2's config.json."""
    if cfg.get("architecture") != "jump_relu":
        raise UserError(f"{folder}/config.json: architecture {cfg.get('architecture')} is not known here; jump_relu is")
    found = re.search(r"\blayers\.(\d+)\.([\w.]+)$", str(cfg["hf_hook_point_in"]))
    if not found:
        raise UserError(f"{folder}/config.json: hf_hook_point_in = {cfg['hf_hook_point_in']} names no layer")
    return int(found[1]), found[2]


def _read_names(folder: Path) -> tuple[int, str]:
    """The same from the names of Gemma Scope's repository and folders."""
    place = folder.resolve().as_posix()
    repository = re.search(rf"gemma-scope-[\w.-]*?-({'|'.join(REPOSITORIES)})\b", place)
    layer = re.search(r"\blayer_(\d+)\b", place)
    if not repository or not layer:
        raise UserError(
            f"{folder}: params.npz does not say where it was trained; keep the names of its repository and folders, "
            "as in gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
        )
    return int(layer[1]), REPOSITORIES[repository[1]]
