"""A causal language model from a folder or the hub: loaded quietly, checked, refused in one line.

The subject and the models that the `transformers` engine asks come through here. `said` is what an error begins with:
the key or the name by which the user knows the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewrite.config import UserError


def check_device(key: str, name: str) -> Any:
    """The torch device of this name. Raises UserError, naming the key, where it is not on this machine."""
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception:  # torch raises half a dozen types for a device that is not there
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise UserError(f"{key} = {name}: not on this machine; there are: {', '.join(there)}") from None
    return device


def check_folder(said: str, source: str) -> None:
    """What looks like a folder must be a model's, or the library takes it for a name on the hub."""
    folder = Path(source)
    if (folder.is_absolute() or folder.exists() or source.startswith(".")) and not (folder / "config.json").is_file():
        raise UserError(
            f"{said}: no model folder (it has no config.json); name a model's folder or its name on the hub"
        )


def load_network(said: str, source: str, revision: str, dtype: str) -> Any:
    """The model itself, all of its weights there. Raises UserError for one that is not to be had."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    # The library's warnings and bars speak to programmers; what matters in them is checked here.
    library: Any = logging
    library.set_verbosity_error()
    library.disable_progress_bar()
    loader: Any = AutoModelForCausalLM
    try:
        model, report = loader.from_pretrained(
            source,
            revision=revision,
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise cannot_load(said, error) from None
    if report["missing_keys"]:
        raise UserError(f"{said}: the weights lack {min(report['missing_keys'])}; get the whole model again")
    return model


def load_part(said: str, loader: Any, source: str, revision: str) -> Any:
    """A tokenizer or a config, by its `Auto` class. Raises UserError for one that is not to be had."""
    try:
        return loader.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:
        raise cannot_load(said, error) from None


def cannot_load(said: str, error: Exception) -> UserError:
    """What the libraries underneath raise for a damaged or absent file, whatever its type, in one line."""
    return UserError(f"{said}: cannot be loaded as a causal language model ({first_line(error)})")


def first_line(error: Exception) -> str:
    """What an error says in its first line, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
