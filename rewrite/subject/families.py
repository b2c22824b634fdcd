"""Where the families of models keep what the harness needs: blocks, the MLP in each, the attention beside it.

Gemma normalises what the MLP returns before it adds it to the residual stream. There the MLP and that norm are made
one module on loading (the same computation, bit for bit), so that in every family the output of `layers.N.mlp` is what
is added to the stream."""

from __future__ import annotations

import difflib
import inspect
import re

from torch import Tensor, nn
from transformers import PreTrainedModel

from rewrite.config import UserError

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
NORMS_OF_THE_WRITE = ("post_feedforward_layernorm", "post_mlp_layernorm")


class NormedMLP(nn.Module):
    """An MLP and the norm that its model applies to it before adding it to the residual stream."""

    def __init__(self, mlp: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp
        self.norm = norm

    def forward(self, hidden: Tensor) -> Tensor:
        """What is added to the residual stream, [batch, position, d]."""
        normed: Tensor = self.norm(self.mlp(hidden))
        return normed


def find_blocks(model: PreTrainedModel, name: str) -> tuple[str, nn.ModuleList]:
    """The list of blocks and its path in the base model; the outermost list of the right length is it."""
    count = model.config.get_text_config().num_hidden_layers
    for path, module in model.base_model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and "vision" not in path:
            return path, module
    raise UserError(f"{name}: found no list of {count} blocks in this model; set subject to a decoder-only transformer")


def has_mlp(block: nn.Module) -> bool:
    """Whether the block has an MLP that reads one tensor; Bloom's is given the residual too and adds it itself."""
    mlp = getattr(block, "mlp", None)
    if not isinstance(mlp, nn.Module):
        return False
    parameters = inspect.signature(mlp.forward).parameters.values()
    return sum(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in parameters) == 1


def find_attention(block: nn.Module) -> nn.Module | None:
    found = (getattr(block, name, None) for name in ATTENTION)
    return next((module for module in found if isinstance(module, nn.Module)), None)


def join_norm(block: nn.Module) -> None:
    """Make the norm of the MLP's output part of the MLP, where the model has one (see the module docstring)."""
    for name in NORMS_OF_THE_WRITE:
        norm = getattr(block, name, None)
        if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity) and has_mlp(block):
            block.mlp = NormedMLP(block.get_submodule("mlp"), norm)
            setattr(block, name, nn.Identity())


def list_hookpoints(stem: str, blocks: nn.ModuleList) -> list[str]:
    mlps = [f"{stem}.{i}.mlp" for i, block in enumerate(blocks) if has_mlp(block)]
    return mlps + [f"{stem}.{i}" for i in range(len(blocks))]


def parse_hookpoint(hookpoint: str, path: str, blocks: nn.ModuleList, name: str) -> tuple[int, str]:
    """The layer's number and what follows it, `.mlp` or nothing.

    `layers.2.mlp` is good in every family; a model whose blocks have another name (GPT-2: `h`) answers to that too.
    """
    stem = path.split(".")[-1]
    known = list_hookpoints(stem, blocks)
    found = re.fullmatch(r"(.+)\.(\d+)(\.mlp)?", hookpoint)
    if found and found[1] in ("layers", stem, path) and f"{stem}.{int(found[2])}{found[3] or ''}" in known:
        return int(found[2]), found[3] or ""
    near = difflib.get_close_matches(hookpoint, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"hookpoint = {hookpoint}: {name} has no such hookpoint; {hint}there are: {', '.join(known)}")
