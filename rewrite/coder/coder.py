"""The sparse coder at the hookpoint: an encoder, a sparse code, a decoder.

With x the vector it reads (a transcoder reads the module's input, an autoencoder the module's output):

    z    = x - b_dec  where `subtract_decoder_bias` is set (autoencoders only), else x
    p    = W_enc z + b_enc
    a    = act(p)     topk: the k largest of ReLU(p), the rest 0;  groupmax: the largest of each of k equal groups;
                      relu: ReLU(p);  jumprelu: p where p > max(threshold, 0), else 0
    y(a) = sum over latents of a W_dec  +  b_dec  +  W_skip x     (the last for a skip transcoder only)

`base(x)` is y(0), what is written when every latent is 0. How coders lie on disk is told in `files.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

from rewrite.config import UserError

Kind = Literal["transcoder", "skip_transcoder", "sae"]
Activation = Literal["topk", "groupmax", "relu", "jumprelu"]

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
    reads_normed: bool = False
    """x is yet to be the norm before the MLP without its gain (`rewrite.coder.normed`)."""
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


@dataclass(frozen=True)
class _Part:
    """Some rows of a code: how many latents each row has, their values and their numbers."""

    counts: np.ndarray
    values: np.ndarray
    indices: np.ndarray


def parse_layer(hookpoint: str) -> tuple[int, bool] | None:
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
    if coder.hookpoint and parse_layer(coder.hookpoint) != parse_layer(hookpoint):
        raise UserError(f"hookpoint = {hookpoint}: the coder was trained at {coder.hookpoint}; set hookpoint to that")
    if not hookpoint.endswith(".mlp") and not coder.reads_output:
        raise UserError(f"hookpoint = {hookpoint}: a {coder.kind} stands at an MLP; the residual stream takes an sae")
    for name, length in (("reads", coder.W_enc.shape[1]), ("writes", coder.W_dec.shape[1])):
        if length != width:
            raise UserError(
                f"hookpoint = {hookpoint}: the coder {name} vectors of {length}, the subject's are {width} long"
            )
