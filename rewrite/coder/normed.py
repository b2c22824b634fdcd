"""Transcoders that read the norm before the MLP without its gain, as TransformerLens' `ln2.hook_normalized` has it and
Gemma Scope's first transcoders do.

No module returns that vector: with gain g and bias β of the norm the MLP reads x = g x̂ + β. So the gain goes into what
the coder reads with, once the subject is known: W x̂ = (W / g) x − (W / g) β, of its encoder and of its skip.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from rewrite.coder.coder import Coder
from rewrite.config import UserError
from rewrite.subject.subject import Subject
from rewrite.subject.weights import read_norm

NORMS = ("pre_feedforward_layernorm", "ln_2", "post_attention_layernorm")
"""What families call the norm before the MLP; where the first is there, the last is of what attention returns."""
AFTER = ("post_feedforward_layernorm", "post_mlp_layernorm")
"""A block with one of these and without the first above normalises what its MLP returns, not what it reads."""


def fold_norm(coder: Coder, subject: Subject) -> Coder:
    """The same coder, reading what the MLP reads; one that already does is returned as it is.

    Raises UserError where the subject has no such norm, or one that takes an entry away.
    """
    if not coder.reads_normed:
        return coder
    said = f"hookpoint = {subject.hookpoint}: the coder reads the norm before the MLP without its gain, and"
    block = subject.blocks[subject.layer]
    norm = next((getattr(block, name) for name in NORMS if isinstance(getattr(block, name, None), nn.Module)), None)
    if norm is None or (not hasattr(block, NORMS[0]) and any(hasattr(block, name) for name in AFTER)):
        raise UserError(f"{said} this model has none; use a coder that reads what the MLP reads")
    gain, bias = read_norm(norm, coder.W_enc.shape[1])
    if len(gain) != coder.W_enc.shape[1] or not (gain.abs() > 1e-6).all():
        raise UserError(f"{said} the norm here does not fit it; use a coder that reads what the MLP reads")
    reads = coder.W_enc / gain.to(coder.W_enc)
    changed = replace(coder, reads_normed=False, W_enc=reads, b_enc=coder.b_enc - reads @ bias.to(reads))
    if coder.W_skip is None:
        return changed
    skip = coder.W_skip / gain.to(coder.W_skip)
    return replace(changed, W_skip=skip, b_dec=coder.b_dec - skip @ bias.to(skip))
