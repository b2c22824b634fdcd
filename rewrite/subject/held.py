"""A model that is already in memory, named by what it holds, so that a run knows it again.

The name that stands for it in a config is `memory:`, its family, and a hash over its weights, its config and its
tokenizer: a model that was changed has another name, and what was made with the old one is made again. The model is
kept in this process alone; a run folder that names one goes on where such a model is held again.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rewrite.config import UserError
from rewrite.subject.families import NORMS_OF_THE_WRITE

PREFIX = "memory:"
JOINED = re.compile(rf"\.mlp\.mlp\.|\.mlp\.norm\.|\.(?:{'|'.join(NORMS_OF_THE_WRITE)})\.")
"""Parts of weights' names that differ before and after an MLP and its norm were made one (`families.join_norm`)."""
INCIDENTAL = ("_name_or_path", "transformers_version")
"""What a model's config says and its outputs do not depend on."""


@dataclass(frozen=True, eq=False)
class Held:
    """A model in memory and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


_HELD: dict[str, Held] = {}


def hold(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Keep a model for the runs of this process; returns the name by which a config calls it.

    Raises UserError for what is no model of the transformers library, has no tokenizer, or lies on no device.
    """
    if not isinstance(model, PreTrainedModel):
        raise UserError(
            f"{type(model).__name__}: not a model of the transformers library; give one, as in "
            "AutoModelForCausalLM.from_pretrained(...), or the name of a folder or of a model on the hub"
        )
    if tokenizer is None:
        raise UserError("tokenizer: not given; a model in memory needs the tokenizer that its text is read with")
    name = f"{PREFIX}{model.config.model_type}-{_fingerprint(model, tokenizer)[:16]}"
    _HELD[name] = Held(model, tokenizer)
    return name


def find_held(name: str) -> Held | None:
    """The model of this name; None for a name of another kind. Raises UserError where it was another process'."""
    if not name.startswith(PREFIX):
        return None
    if name not in _HELD:
        raise UserError(
            f"subject = {name}: was in the memory of another process, or was changed; hold it again with "
            "rewrite.study(model, tokenizer, ...), or save it and name its folder"
        )
    return _HELD[name]


def _fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over weights, config and tokenizer."""
    said = {key: value for key, value in model.config.to_dict().items() if key not in INCIDENTAL}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    read = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    digest.update(read.encode())
    weights = {JOINED.sub(_undo_join, name): tensor for name, tensor in model.state_dict().items()}
    for name, tensor in sorted(weights.items()):
        if tensor.is_meta:
            raise UserError(f"{model.config.model_type}: its {name} is not loaded; load the model onto one device")
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _undo_join(found: re.Match[str]) -> str:
    return ".mlp." if found[0] == ".mlp.mlp." else ".norm_of_the_write."
