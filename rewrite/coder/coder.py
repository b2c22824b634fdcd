"""The sparse coder at the hookpoint: an encoder, a sparse code, a decoder.

With x the vector it reads (a transcoder reads the module's input, an autoencoder the module's output):

    z    = x - b_dec  where `subtract_decoder_bias` is set, else x
    p    = W_enc z + b_enc
    a    = act(p)     topk: the k largest of ReLU(p), the rest 0;  groupmax: the largest of each of k equal groups;
                      relu: ReLU(p);  jumprelu: p where p > max(threshold, 0), else 0
    y(a) = sum over latents of a W_dec  +  b_dec  +  W_skip x     (the last for a skip transcoder only)

`base(x)` is y(0), what is written when every latent is 0. Two layouts on disk are read, weights from safetensors only:
EleutherAI's sparsify (`cfg.json`, `sae.safetensors`), which is also what `save` writes, and SAELens' (`cfg.json`,
`sae_weights.safetensors`). sparsify before 12 February 2025 had no `transcode` in its `cfg.json` and let every coder
subtract b_dec from x; such files, the paper's checkpoint among them, are read as they were trained.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

from rewrite.coder.saelens import translate_saelens
from rewrite.config import UserError, name_hookpoint

Kind = Literal["transcoder", "skip_transcoder", "sae"]
Activation = Literal["topk", "groupmax", "relu", "jumprelu"]

UNREAD = (".pt", ".pth", ".bin", ".pkl", ".ckpt", ".npz")
CONFIG, SPARSIFY_WEIGHTS, SAELENS_WEIGHTS = "cfg.json", "sae.safetensors", "sae_weights.safetensors"
# Pre-activations held at once while encoding; bounds memory at 64 MiB.
CHUNK = 2**24


@dataclass(frozen=True, eq=False)
class Coder:
    """A trained sparse coder; all tensors are float32 on one device."""

    W_enc: Float[Tensor, "latent d_in"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent d_out"]
    b_dec: Float[Tensor, " d_out"]
    kind: Kind
    activation: Activation
    k: int = 0
    """Latents active at a position at most; 0 where the activation sets no limit."""
    W_skip: Float[Tensor, "d_out d_in"] | None = None
    threshold: Float[Tensor, " latent"] | None = None
    subtract_decoder_bias: bool = False
    hookpoint: str | None = None
    """Where its files say that it was trained, as `layers.N.mlp` or `layers.N`; None where they do not say."""

    @property
    def latents(self) -> int:
        """Width of the code [latents]."""
        return self.W_enc.shape[0]

    @property
    def reads_output(self) -> bool:
        """Whether x is the module's output (an autoencoder) rather than its input."""
        return self.kind == "sae"

    def read(
        self, input: Float[Tensor, "*batch d_in"], output: Float[Tensor, "*batch d_out"]
    ) -> Float[Tensor, "position d"]:
        """x, one row a position, from what the module read and returned: float32 on the coder's device."""
        x = (output if self.reads_output else input).flatten(0, -2)
        return x.to(self.W_enc.device, torch.float32)

    def encode(self, x: Float[Tensor, "position d_in"]) -> csr_array:
        """The code of x: positions × latents, float32, holding activations above 0 only, in order of latent."""
        with torch.no_grad():
            parts = [self._encode_part(part) for part in torch.split(x, max(1, CHUNK // self.latents))]
        counts = np.concatenate([np.zeros(1, np.int64), *(part.counts for part in parts)])
        values = np.concatenate([np.zeros(0, np.float32), *(part.values for part in parts)])
        indices = np.concatenate([np.zeros(0, np.int64), *(part.indices for part in parts)])
        return csr_array((values, indices, counts.cumsum()), shape=(len(x), self.latents))

    def _encode_part(self, x: Tensor) -> _Part:
        z = x - self.b_dec if self.subtract_decoder_bias else x
        active = functional.linear(z, self.W_enc, self.b_enc).relu()
        if self.activation == "topk":
            values, indices = active.topk(self.k, dim=-1)
            indices, order = indices.sort(dim=-1)
            values = values.gather(-1, order)
        elif self.activation == "groupmax":
            values, indices = active.view(len(x), self.k, -1).max(dim=-1)
            indices = indices + torch.arange(0, self.latents, self.latents // self.k, device=x.device)
        else:
            if self.threshold is not None:
                active = active * (active > self.threshold)
            values, indices = active, torch.arange(self.latents, device=x.device).expand_as(active)
        keep = values > 0
        return _Part(keep.sum(-1).cpu().numpy(), values[keep].cpu().numpy(), indices[keep].cpu().numpy())

    def decode(self, activations: csr_array) -> Float[Tensor, "position d_out"]:
        """The latents' own part and b_dec: y(a) without the skip."""
        device = self.W_dec.device
        rows: Tensor = functional.embedding_bag(
            torch.from_numpy(activations.indices.astype(np.int64)).to(device),
            self.W_dec,
            torch.from_numpy(activations.indptr[:-1].astype(np.int64)).to(device),
            mode="sum",
            per_sample_weights=torch.from_numpy(activations.data.astype(np.float32)).to(device),
        )
        return rows + self.b_dec

    def base(self, x: Float[Tensor, "position d_in"]) -> Float[Tensor, "position d_out"]:
        """y(0): what is written when every latent is 0."""
        return self._skip(self.b_dec.expand(len(x), -1), x)

    def reconstruct(self, activations: csr_array, x: Float[Tensor, "position d_in"]) -> Float[Tensor, "position d_out"]:
        """y(a)."""
        return self._skip(self.decode(activations), x)

    def _skip(self, y: Tensor, x: Tensor) -> Tensor:
        return y if self.W_skip is None else y + x @ self.W_skip.mT

    def to(self, device: torch.device | str) -> Coder:
        """The same coder on another device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})

    @property
    def fits_sparsify(self) -> bool:
        """Whether sparsify's layout can say what this coder computes."""
        square = self.W_enc.shape == self.W_dec.shape
        return self.activation in ("topk", "groupmax") and square and self.subtract_decoder_bias == (self.kind == "sae")

    def save(self, folder: Path) -> None:
        """Write the coder in sparsify's layout; ask `fits_sparsify` first."""
        assert self.fits_sparsify, "this coder has no form in sparsify's layout"
        tensors = {"encoder.weight": self.W_enc, "encoder.bias": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec}
        if self.W_skip is not None:
            tensors["W_skip"] = self.W_skip
        cfg = {
            "activation": self.activation,
            "expansion_factor": self.latents // self.W_enc.shape[1],
            "normalize_decoder": True,
            "num_latents": self.latents,
            "k": self.k,
            "multi_topk": False,
            "skip_connection": self.W_skip is not None,
            "transcode": self.kind != "sae",
            "d_in": self.W_enc.shape[1],
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, folder / SPARSIFY_WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(cfg), encoding="utf-8")


@dataclass(frozen=True)
class _Part:
    """Some rows of a code: how many latents each row has, their values and their numbers."""

    counts: np.ndarray
    values: np.ndarray
    indices: np.ndarray


def find_coder(folder: Path, hookpoint: str = "") -> Path:
    """The folder that holds cfg.json: the one named, or its subfolder for the hookpoint where one is given.

    Raises UserError where neither does, listing the hookpoints that there are coders for.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set coder.path to one with a coder's {CONFIG} and weights")
    if (folder / CONFIG).is_file():
        return folder
    there = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
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
    """Read a coder in either layout from `folder`, or from its subfolder named after the hookpoint.

    Raises UserError, in one line that names the file, for what is absent, damaged or computed in a way not known here.
    """
    place = find_coder(folder, hookpoint)
    file = place / CONFIG
    try:
        cfg = json.loads(file.read_text(encoding="utf-8"))
        cfg = {**cfg}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise UserError(f"{file}: not readable as a coder's settings ({error}); get the coder again") from None
    try:
        if (place / SAELENS_WEIGHTS).exists():
            values = translate_saelens(cfg, _read_weights(place / SAELENS_WEIGHTS), file)
        else:
            values = _translate_sparsify(cfg, _read_weights(place / SPARSIFY_WEIGHTS), place.name)
    except KeyError as error:
        raise UserError(f"{place}: the coder lacks {error}; get the whole coder again") from None
    _check_values(values, place)
    return Coder(**values)


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        return {name: tensor.float() for name, tensor in load_file(file).items()}
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; a coder has {SPARSIFY_WEIGHTS} or {SAELENS_WEIGHTS}") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: not readable as safetensors ({error}); get the coder again") from None


def _translate_sparsify(cfg: dict[str, Any], tensors: dict[str, Tensor], name: str) -> dict[str, Any]:
    """The fields of a `Coder` from sparsify's settings and tensors; `name` is the folder's."""
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
        "hookpoint": name if _parse_layer(name) else None,
    }


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


def _parse_layer(hookpoint: str) -> tuple[int, bool] | None:
    """A hookpoint's layer and whether it is the MLP there; None where the name is not a hookpoint's."""
    found = re.fullmatch(r"(?:.+\.)?(?:layers|h|blocks)\.(\d+)(\.mlp)?", hookpoint)
    return (int(found[1]), bool(found[2])) if found else None


@runtime_checkable
class Place(Protocol):
    """Where a coder is to stand: what it must know of a `rewrite.subject.subject.Subject`."""

    @property
    def hookpoint(self) -> str:
        """`layers.N.mlp` or `layers.N`."""

    @property
    def width(self) -> int:
        """Length of the vectors there [d]."""


def check_fit(coder: Coder, subject: Place) -> None:
    """Refuse, in one line, a coder that cannot stand at the subject's hookpoint."""
    hookpoint, width = subject.hookpoint, subject.width
    if coder.hookpoint and _parse_layer(coder.hookpoint) != _parse_layer(hookpoint):
        raise UserError(f"hookpoint = {hookpoint}: the coder was trained at {coder.hookpoint}; set hookpoint to that")
    if not hookpoint.endswith(".mlp") and not coder.reads_output:
        raise UserError(f"hookpoint = {hookpoint}: a {coder.kind} stands at an MLP; the residual stream takes an sae")
    for name, length in (("reads", coder.W_enc.shape[1]), ("writes", coder.W_dec.shape[1])):
        if length != width:
            raise UserError(
                f"hookpoint = {hookpoint}: the coder {name} vectors of {length}, the subject's are {width} long"
            )
