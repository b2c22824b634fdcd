"""A block's attention as matrices: what each head reads by query, key and value, and what it writes.

With x the residual stream before the block's norm, up to the norm's scale at each position, a head's query is
W_Q x + b and so on, and Σ over heads of W_O (its mixture of values) is added to the stream. What norms do by weights is
folded in: their gains, LayerNorm's centring, a norm of what attention returns. What they do by the size of a vector
is not, for it is the same for all that is read at a position; rotations change no length; biases read nothing. Norms of
single queries and keys (Qwen3, Gemma 3) rescale a head's query and key as a whole, which no share of it knows of; their
gains are folded in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rewrite.subject.families import find_attention
from rewrite.subject.subject import Subject

INPUT_NORMS = ("input_layernorm", "ln_1", "self_attn_layer_norm")
OUTPUT_NORMS = ("post_attention_layernorm", "post_self_attn_layernorm")
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
WRITES = ("o_proj", "out_proj", "dense", "c_proj")
SERIAL = ("pre_feedforward_layernorm", "post_mlp_layernorm", "post_feedforward_layernorm")
"""Where a block has one of these, the norm after attention is of what attention returns, not of what the MLP reads."""


@dataclass(frozen=True)
class HeadWeights:
    """The matrices of a block's heads, float32; keys and values of shared heads stand once for each head."""

    query: Float[Tensor, "head d_head d"]
    key: Float[Tensor, "head d_head d"]
    value: Float[Tensor, "head d_head d"]
    output: Float[Tensor, "head d d_head"]

    def reads(self) -> dict[str, Float[Tensor, "head d_head d"]]:
        """By which way a head reads the stream."""
        return {"query": self.query, "key": self.key, "value": self.value}


def head_weights(subject: Subject, layer: int, heads: int) -> HeadWeights | None:
    """The matrices of a block with so many heads; None where its attention keeps them in a way not known here."""
    block = subject.blocks[layer]
    attention: Any = find_attention(block)
    found = _projections(attention, heads) if attention is not None else None
    if found is None:
        return None
    query, key, value, output = found
    if len(query) != output.shape[1]:
        return None  # A gate, or something else, stands beside the queries.
    d_head = query.shape[0] // heads
    shape = (-1, d_head, query.shape[1])
    gain = _gain(_first(block, INPUT_NORMS), query)
    parts = {"query": query.view(shape), "key": key.view(shape), "value": value.view(shape)}
    for name in ("query", "key"):
        norm = getattr(attention, f"{name[0]}_norm", None)
        if norm is not None and norm.weight.numel() == d_head:
            parts[name] = _gain(norm, parts[name][0].T) @ parts[name]
    each = {name: (part @ gain).repeat_interleave(heads // len(part), 0) for name, part in parts.items()}
    out = output.view(len(output), heads, d_head).permute(1, 0, 2)
    if _first(block, SERIAL) is not None:
        out = _gain(_first(block, OUTPUT_NORMS), output.T) @ out
    return HeadWeights(each["query"], each["key"], each["value"], out)


def writes_of(subject: Subject, layer: int) -> Float[Tensor, "d inner"] | None:
    """The matrix by which a block's attention writes what its heads have mixed, before any norm; None where unknown."""
    attention: Any = find_attention(subject.blocks[layer])
    output = _first(attention, WRITES) if attention is not None else None
    return None if output is None else _matrix(output)


def unembedding(subject: Subject) -> Float[Tensor, "vocabulary d"]:
    """From the stream before the last norm to the logits, up to its scale."""
    model: Any = subject.model
    weight: Tensor = model.get_output_embeddings().weight.detach().float()
    stem: Any = model.base_model
    path = subject.module_path.removesuffix(".mlp").split(".")[:-2]
    for name in path:
        stem = getattr(stem, name)
    return weight @ _gain(_first(stem, FINAL_NORMS), weight)


def _projections(attention: Any, heads: int) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Rows of queries, keys and values, head by head, and the columns that write."""
    output = _first(attention, WRITES)
    if output is None:
        return None
    written = _matrix(output)
    if hasattr(attention, "q_proj"):
        read = [_matrix(getattr(attention, name)) for name in ("q_proj", "k_proj", "v_proj")]
        return read[0], read[1], read[2], written
    if hasattr(attention, "c_attn") and _matrix(attention.c_attn).shape[0] == 3 * written.shape[1]:
        query, key, value = _matrix(attention.c_attn).chunk(3)
        return query, key, value, written
    if hasattr(attention, "query_key_value") and _matrix(attention.query_key_value).shape[0] == 3 * written.shape[1]:
        # GPT-NeoX: query, key and value of a head stand side by side.
        joint = _matrix(attention.query_key_value)
        split = joint.view(heads, 3, -1, joint.shape[1])
        return split[:, 0].flatten(0, 1), split[:, 1].flatten(0, 1), split[:, 2].flatten(0, 1), written
    if hasattr(attention, "qkv_proj"):
        joint, queries = _matrix(attention.qkv_proj), written.shape[1]
        shared = (len(joint) - queries) // 2
        return joint[:queries], joint[queries : queries + shared], joint[queries + shared :], written
    return None


def _matrix(module: Any) -> Float[Tensor, "out d_in"]:
    """A linear map's matrix; GPT-2 keeps its own transposed."""
    weight: Tensor = module.weight.detach().float()
    return weight if isinstance(module, nn.Linear) else weight.T


def _first(module: Any, names: tuple[str, ...]) -> Any:
    return next((getattr(module, name) for name in names if isinstance(getattr(module, name, None), nn.Module)), None)


def read_norm(norm: Any, width: int) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """A norm's gains and bias, however they are stored.

    Of a vector of ones and minus ones the mean is 0 and the root mean square 1, so what is left of it are the gains,
    and a bias, which the opposite vector has too.
    """
    weight = getattr(norm, "weight", None)
    like = torch.zeros(()) if weight is None else weight
    signs = 1.0 - 2.0 * (torch.arange(width, device=like.device) % 2)
    with torch.no_grad():
        one, other = (norm(x.to(like.dtype)[None])[0].float() for x in (signs, -signs))
    return (one - other) / 2 * signs, (one + other) / 2


def _gain(norm: Any, like: Tensor) -> Float[Tensor, "d d"]:
    """What a norm does by its weights, as a matrix for the rows of `like`; the identity where there is none.

    A norm that centres makes nothing of ones.
    """
    width = like.shape[-1]
    unit = torch.eye(width, device=like.device)
    if norm is None or isinstance(norm, nn.Identity):
        return unit
    gains, bias = (part.to(like.device) for part in read_norm(norm, width))
    weight = getattr(norm, "weight", None)
    ones = torch.ones(1, width, device=like.device, dtype=like.dtype if weight is None else weight.dtype)
    with torch.no_grad():
        left = norm(ones)[0].float() - bias
    turned = torch.diag(gains)
    return turned @ (unit - 1 / width) if left.abs().max() < 1e-3 * gains.abs().max() else turned
