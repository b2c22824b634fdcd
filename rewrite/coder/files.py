"""A coder on disk. Three layouts are read: EleutherAI's sparsify (`sparsify.py`), SAELens' (`saelens.py`) and Gemma
Scope's (`gemma_scope.py`); the first two are written. Weights come from safetensors or plain arrays: a pickle is never
opened.

A transcoder that subtracts b_dec from what it reads has W_enc b_dec taken off its b_enc instead, once, on reading: the
same computation, which every layout has words for.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewrite.coder.coder import Activation, Coder, parse_layer
from rewrite.coder.gemma_scope import translate_gemma_scope
from rewrite.coder.saelens import compose_saelens, translate_saelens
from rewrite.coder.sparsify import compose_sparsify, fits_sparsify, translate_sparsify
from rewrite.config import UserError, name_hookpoint

UNREAD = (".pt", ".pth", ".bin", ".pkl", ".ckpt", ".npz")
CONFIG, SPARSIFY_WEIGHTS, SAELENS_WEIGHTS = "cfg.json", "sae.safetensors", "sae_weights.safetensors"


class Layout(NamedTuple):
    """One way in which a coder lies in a folder: its settings' file, its weights' file, who reads them."""

    settings: str | None
    weights: str
    translate: Callable[..., dict[str, Any]]


# The first whose weights are there is it; a folder with none is asked for the last one's.
LAYOUTS = (
    Layout(CONFIG, SAELENS_WEIGHTS, lambda cfg, tensors, place: translate_saelens(cfg, tensors, place / CONFIG)),
    Layout("config.json", "params.safetensors", translate_gemma_scope),
    Layout(None, "params.npz", translate_gemma_scope),
    Layout(CONFIG, SPARSIFY_WEIGHTS, lambda cfg, tensors, place: translate_sparsify(cfg, tensors, place / CONFIG)),
)
MARKS = (CONFIG, "params.safetensors", "params.npz")
"""A folder with one of these holds a coder."""
FILES = tuple(dict.fromkeys(file for layout in LAYOUTS for file in (layout.settings, layout.weights) if file))


def find_coder(folder: Path, hookpoint: str = "") -> Path:
    """The folder that holds a coder: the one named, or its subfolder for the hookpoint where one is given.

    Raises UserError where neither does, listing the hookpoints that there are coders for.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set coder.path to one with a coder's {CONFIG} and weights")
    if any((folder / mark).is_file() for mark in MARKS):
        return folder
    there = sorted({path.parent.name for mark in MARKS for path in folder.glob(f"*/{mark}")})
    for name in there:
        # sparsify names a folder by the module's path in its model: `h.6.mlp` in GPT-2.
        if name_hookpoint(name) == name_hookpoint(hookpoint):
            return folder / name
    hint = f"it has coders for {', '.join(there)}" if there else f"it has no {CONFIG}"
    others = sorted(path.name for path in folder.iterdir() if path.suffix in UNREAD)
    if not there and others:
        hint = f"{others[0]} is not opened (a pickle may run code): convert it to sparsify's or SAELens' layout"
    raise UserError(f"{folder}: no coder for {hookpoint or 'loading'} here; {hint}")


def load_coder(folder: Path, hookpoint: str = "") -> Coder:
    """Read a coder in any of the layouts from `folder`, or from its subfolder named after the hookpoint.

    Raises UserError, in one line that names the file, for what is absent, damaged or computed in a way not known here.
    """
    place = find_coder(folder, hookpoint)
    layout = next((layout for layout in LAYOUTS if (place / layout.weights).exists()), LAYOUTS[-1])
    cfg = _read_settings(place / layout.settings) if layout.settings else None
    try:
        values = layout.translate(cfg, _read_weights(place / layout.weights), place)
    except KeyError as error:
        raise UserError(f"{place}: the coder lacks {error}; get the whole coder again") from None
    # A folder that is not named after a hookpoint says nothing of where its coder was trained.
    if not (values["hookpoint"] and parse_layer(values["hookpoint"])):
        values["hookpoint"] = None
    _check_values(values, place)
    if values["kind"] != "sae" and values["subtract_decoder_bias"]:
        values["b_enc"] = values["b_enc"] - values["W_enc"] @ values["b_dec"]
        values["subtract_decoder_bias"] = False
    return Coder(**values)


def save_coder(coder: Coder, folder: Path, hookpoint: str) -> None:
    """Write a coder in sparsify's layout where that has words for it, else in SAELens'.

    Raises UserError for one that neither has words for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fits_sparsify(vars(coder)):
        (cfg, tensors), weights = compose_sparsify(vars(coder)), SPARSIFY_WEIGHTS
    else:
        (cfg, tensors), weights = compose_saelens(vars(coder), hookpoint, {}), SAELENS_WEIGHTS
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, folder / weights)
    (folder / CONFIG).write_text(json.dumps(cfg), encoding="utf-8")


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        cfg = json.loads(file.read_text(encoding="utf-8"))
        return {**cfg}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise UserError(f"{file}: not readable as a coder's settings ({error}); get the coder again") from None


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".npz":
            # allow_pickle is off: an array of objects is refused, not opened.
            with np.load(file, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}
        return {name: tensor.float() for name, tensor in load_file(file).items()}
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; a coder has {SPARSIFY_WEIGHTS} or {SAELENS_WEIGHTS}") from None
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        form = "plain arrays" if file.suffix == ".npz" else "safetensors"
        raise UserError(f"{file}: not readable as {form} ({error}); get the coder again") from None


def _check_values(values: dict[str, Any], place: Path) -> None:
    """Refuse the fields of a coder that do not fit together."""
    latents, d_in, d_out = len(values["W_enc"]), values["W_enc"].shape[-1], values["W_dec"].shape[-1]
    wanted: dict[str, tuple[int, ...]] = {
        "W_enc": (latents, d_in),
        "b_enc": (latents,),
        "W_dec": (latents, d_out),
        "b_dec": (d_out,),
        "W_skip": (d_out, d_in),
        "threshold": (latents,),
    }
    for name, shape in wanted.items():
        tensor: Tensor | None = values.get(name)
        if tensor is not None and tensor.shape != shape:
            raise UserError(f"{place}: {name} has shape {list(tensor.shape)}, not {list(shape)}; get the coder again")
        if tensor is not None and not tensor.isfinite().all():
            raise UserError(f"{place}: {name} holds values that are not finite; get the coder again")
    if values["kind"] == "sae" and values["W_skip"] is not None:
        raise UserError(f"{place}: an sae with a skip connection copies what it reads; use one without")
    if values["activation"] not in get_args(Activation):
        raise UserError(f"{place}: activation {values['activation']} is not known here")
    limited = values["activation"] in ("topk", "groupmax")
    if limited and not (0 < values["k"] <= latents and (values["activation"] == "topk" or latents % values["k"] == 0)):
        raise UserError(f"{place}: k = {values['k']} does not fit {latents} latents")
