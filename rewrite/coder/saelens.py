"""SAELens' layout of a sparse coder (`cfg.json`, `sae_weights.safetensors`) in the words of `rewrite.coder.coder`, and
back.

1. The architecture names the kind of coder and its activation. An autoencoder whose metadata say that it writes
   elsewhere than it reads (`hook_name_out`) is a transcoder: SAELens splices it as one. That is how a transcoder with
   topk is written, for which SAELens has no class.
2. Reading: settings that change what is computed are folded into the weights where they can be, else refused. A gated
   autoencoder (Rajamanoharan et al. 2024) is one with thresholds: with m = exp(r_mag) p + b_mag, its gate
   p + b_gate > 0 is m > b_mag - exp(r_mag) b_gate. So is one trained with a batch's topk (Matryoshka or not), by the
   threshold that it learnt.
3. Writing: what no architecture computes is refused; nothing is approximated.
4. Hook names of TransformerLens become hookpoints: `blocks.3.hook_mlp_out` is `layers.3.mlp`. A transcoder is said to
   read `blocks.3.mlp.hook_in`, which is what the module reads; `ln2.hook_normalized` is the norm without its gain.

As in SAELens 6.54 (`sae_lens/saes/*.py`), and in the versions before 6 where their keys differ.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from rewrite.config import UserError, name_hookpoint

VERSION = "6.54.12"
"""Whose layout is written. SAELens takes a file that does not say for an older one and forgets its metadata."""


class Architecture(NamedTuple):
    """What one of SAELens' architectures is here."""

    kind: str
    activation: str


ARCHITECTURES = {
    "standard": Architecture("sae", "relu"),
    "topk": Architecture("sae", "topk"),
    "jumprelu": Architecture("sae", "jumprelu"),
    "transcoder": Architecture("transcoder", "relu"),
    "skip_transcoder": Architecture("skip_transcoder", "relu"),
    "jumprelu_transcoder": Architecture("transcoder", "jumprelu"),
    "jumprelu_skip_transcoder": Architecture("skip_transcoder", "jumprelu"),
}


KNOWN = ARCHITECTURES | dict.fromkeys(("gated", "batchtopk", "matryoshka_batchtopk"), ARCHITECTURES["jumprelu"])
"""Those that are read: the ones that are written, and those that are the same once something is folded."""
READ = ("mlp.hook_in", "hook_mlp_in", "ln2.hook_normalized")
"""What a transcoder may read of its block."""
TRAINED = ("batchtopk", "matryoshka_batchtopk")
"""Only in the midst of training: for use SAELens writes these as jumprelu."""


def translate_saelens(cfg: dict[str, Any], tensors: dict[str, Tensor], file: Path) -> dict[str, Any]:
    """The fields of a `Coder` from SAELens' settings and tensors; `file` is named in errors.

    Raises UserError for settings that are not known here, KeyError for a tensor or a setting that is absent.
    """
    name = _name_architecture(cfg, file)
    tensors = _fold_gates(tensors) if name == "gated" else tensors
    kind, activation = KNOWN[name]
    _refuse_unknown(cfg, file)
    subtract = bool(cfg.get("apply_b_dec_to_input", kind == "sae"))
    if kind == "sae" and _hooks(cfg)[0] != _hooks(cfg)[1]:
        kind = "transcoder"
    encoder, bias, decoder = tensors["W_enc"].mT, tensors["b_enc"], tensors["W_dec"]
    if cfg.get("rescale_acts_by_decoder_norm", False):
        # Activations are scaled by the norms of the decoder's rows, which are then divided out of the rows.
        norms = decoder.norm(dim=-1, keepdim=True)
        encoder, bias, decoder = encoder * norms, bias * norms[:, 0], decoder / norms
    if cfg.get("finetuning_scaling_factor"):
        decoder = decoder * tensors["finetuning_scaling_factor"][:, None]
    threshold = tensors["topk_threshold"].expand(len(bias)) if name in TRAINED else tensors.get("threshold")
    if activation == "jumprelu" and threshold is None:
        raise KeyError("threshold")
    return {
        "W_enc": encoder.contiguous(),
        "b_enc": bias,
        "W_dec": decoder,
        "b_dec": tensors["b_dec"],
        "W_skip": tensors["W_skip"] if kind == "skip_transcoder" else None,
        "threshold": threshold if activation == "jumprelu" else None,
        "kind": kind,
        "activation": activation,
        "k": int(cfg.get("k") or cfg["activation_fn_kwargs"]["k"]) if activation == "topk" else 0,
        "subtract_decoder_bias": subtract,
        "reads_normed": kind != "sae" and str(_hooks(cfg)[0]).endswith(READ[-1]),
        "hookpoint": _translate_hook(cfg, kind, file),
    }


def _name_architecture(cfg: dict[str, Any], file: Path) -> str:
    """The architecture; before version 6 `topk` was an activation of the standard one."""
    activation = cfg.get("activation_fn", cfg.get("activation_fn_str")) or "relu"
    if activation not in ("relu", "topk"):
        raise UserError(f"{file}: activation_fn = {activation} is not computed here; relu and topk are")
    name: str = "topk" if activation == "topk" else cfg.get("architecture", "standard")
    if name not in KNOWN:
        raise UserError(f"{file}: architecture {name} is not known here; those known: {', '.join(KNOWN)}")
    return name


def _fold_gates(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a gated autoencoder as those of one with thresholds (see the module docstring)."""
    scale = tensors["r_mag"].exp()
    threshold = tensors["b_mag"] - scale * tensors["b_gate"]
    return tensors | {"W_enc": tensors["W_enc"] * scale, "b_enc": tensors["b_mag"], "threshold": threshold}


def _refuse_unknown(cfg: dict[str, Any], file: Path) -> None:
    for key in ("normalize_activations", "reshape_activations"):
        if cfg.get(key) not in (None, False, "none"):
            raise UserError(
                f"{file}: {key} = {cfg[key]} is not computed here; fold it into the weights in SAELens first"
            )
    if KNOWN[_name_architecture(cfg, file)].kind != "sae" and cfg.get("apply_b_dec_to_input"):
        raise UserError(f"{file}: apply_b_dec_to_input is for autoencoders, as in SAELens; set it to false")


def _hooks(cfg: dict[str, Any]) -> tuple[str | None, str | None]:
    """Where it says that a coder reads and where it says that it writes; the same where it names one only."""
    facts = cfg | (cfg.get("metadata") or {})
    read = facts.get("hook_name") or facts.get("hook_point")
    return read, facts.get("hook_name_out") or read


def _translate_hook(cfg: dict[str, Any], kind: str, file: Path) -> str | None:
    """The hookpoint that the file says; None where it says none."""
    read, written = _hooks(cfg)
    if not written or (kind != "sae" and written == read):
        return None
    found = re.fullmatch(r"blocks\.(\d+)\.(hook_mlp_out|hook_resid_post|hook_resid_pre)", written)
    if not found or (kind != "sae" and found[2] != "hook_mlp_out"):
        raise UserError(
            f"{file}: a {kind} at {written} is neither an MLP's output nor the residual stream after a layer"
        )
    if kind != "sae" and read and read not in (f"blocks.{found[1]}.{name}" for name in READ):
        raise UserError(
            f"{file}: reads {read} and writes {written}; only transcoders of one layer's MLP can be spliced"
        )
    return name_hookpoint(written)


class Layout(NamedTuple):
    """What SAELens' two files hold."""

    cfg: dict[str, Any]
    tensors: dict[str, Tensor]


def compose_saelens(coder: dict[str, Any], hookpoint: str, metadata: dict[str, Any]) -> Layout:
    """SAELens' settings and tensors from the fields of a `Coder`; `metadata` is kept beside the hooks' names.

    Raises UserError for a coder that none of SAELens' architectures computes.
    """
    kind, activation, subtract = coder["kind"], coder["activation"], coder["subtract_decoder_bias"]
    d_in, d_out = coder["W_enc"].shape[1], coder["W_dec"].shape[1]
    architecture = _find_architecture(kind, activation, d_in == d_out)
    transcodes = ARCHITECTURES[architecture].kind != "sae"
    cfg = {"architecture": architecture, "d_in": d_in, "d_sae": len(coder["W_enc"]), "dtype": "float32"}
    cfg |= {"device": "cpu", "apply_b_dec_to_input": subtract}
    cfg |= {"normalize_activations": "none", "reshape_activations": "none"}
    cfg |= {"d_out": d_out} if transcodes else {}
    cfg |= {"k": coder["k"], "rescale_acts_by_decoder_norm": False} if activation == "topk" else {}
    names = ("b_enc", "W_dec", "b_dec", "W_skip", "threshold")
    tensors = {"W_enc": coder["W_enc"].mT} | {name: coder[name] for name in names if coder[name] is not None}
    return Layout(
        cfg | {"metadata": {"sae_lens_version": VERSION} | metadata | _name_hooks(kind, hookpoint)},
        {name: tensor.float().cpu().contiguous() for name, tensor in tensors.items()},
    )


def _find_architecture(kind: str, activation: str, square: bool) -> str:
    for name, architecture in ARCHITECTURES.items():
        if architecture == (kind, activation):
            return name
    if (kind, activation) == ("transcoder", "topk") and square:
        return "topk"
    shape = "" if square else " that writes vectors of another length than it reads"
    raise UserError(
        f"SAELens has no {kind} with {activation}{shape}, so this coder cannot be written in its layout; "
        f"it has {', '.join(ARCHITECTURES)}"
    )


def _name_hooks(kind: str, hookpoint: str) -> dict[str, str]:
    """TransformerLens' names for what a coder reads and writes at `layers.N.mlp` or `layers.N`."""
    block = f"blocks.{hookpoint.removesuffix('.mlp').rpartition('.')[2]}"
    written = f"{block}.hook_mlp_out" if hookpoint.endswith(".mlp") else f"{block}.hook_resid_post"
    if kind == "sae":
        return {"hook_name": written}
    return {"hook_name": f"{block}.mlp.hook_in", "hook_name_out": written}
