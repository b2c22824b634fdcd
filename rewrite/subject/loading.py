"""A causal language model from a folder, a GGUF file or the hub: loaded quietly, checked, refused in one line.

The subject and the models that the `transformers` engine asks come through here. `said` is what an error begins with:
the key or the name by which the user knows the model. A source that ends with `.gguf` is a file, on disk or, as
`OWNER/NAME/FILE.gguf`, on the hub; its weights are unpacked to the precision that is asked for. Folders whose weights
are quantised are read by transformers, which names the package that one of them needs. A folder's own code is not run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewrite.config import Config, UserError


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
    if is_gguf(source):
        on_disk = folder.is_absolute() or source.startswith(".") or len(folder.parts) < 3
        if on_disk and not folder.is_file():
            raise UserError(f"{said}: no such file; name a GGUF file, or one on the hub as OWNER/NAME/FILE.gguf")
    elif (folder.is_absolute() or folder.exists() or source.startswith(".")) and not (folder / "config.json").is_file():
        raise UserError(
            f"{said}: no model folder (it has no config.json); name a model's folder or its name on the hub"
        )


def is_gguf(source: str) -> bool:
    """Whether a source is a GGUF file, by its name."""
    return source.lower().endswith(".gguf")


def place_of(source: str) -> tuple[str, dict[str, Any]]:
    """Where the libraries find a source, and which GGUF file to read there."""
    if not is_gguf(source):
        return source, {}
    path = Path(source)
    if path.is_file():
        return str(path.parent), {"gguf_file": path.name}
    return "/".join(path.parts[:2]), {"gguf_file": "/".join(path.parts[2:])}


def load_network(said: str, source: str, revision: str, dtype: str) -> Any:
    """The model itself, all of its weights there. Raises UserError for one that is not to be had."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.utils import logging

    # The library's warnings and bars speak to programmers; what matters in them is checked here.
    library: Any = logging
    library.set_verbosity_error()
    library.disable_progress_bar()
    loaders: list[Any] = [AutoModelForCausalLM, AutoModelForImageTextToText]
    place, file = place_of(source)
    how: dict[str, Any] = file or {"use_safetensors": True}
    if file and hasattr(transformers, "GgufConfig"):  # Older releases always unpack.
        how["quantization_config"] = transformers.GgufConfig(dequantize=True, **file)
    how |= {"revision": revision, "dtype": getattr(torch, dtype), "trust_remote_code": False}
    for loader in loaders:
        try:
            model, report = loader.from_pretrained(place, output_loading_info=True, **how)
            break
        except Exception as error:
            # A language model that looks at pictures too is found under another name.
            if loader is loaders[-1] or "Unrecognized configuration class" not in str(error):
                raise cannot_load(said, error) from None
    if report["missing_keys"]:
        raise UserError(f"{said}: the weights lack {min(report['missing_keys'])}; get the whole model again")
    _check_unpacked(said, model)
    return model


def _check_unpacked(said: str, model: Any) -> None:
    """transformers takes the weights of a folder whose way of quantising it does not know for plain ones."""
    quantised = getattr(model.config, "quantization_config", None)
    if quantised is not None and getattr(model, "hf_quantizer", None) is None:
        method = (quantised if isinstance(quantised, dict) else vars(quantised)).get("quant_method")
        raise UserError(f"{said}: its weights are quantised by {method}, which is not known; use a folder without")


def load_part(said: str, loader: Any, source: str, revision: str) -> Any:
    """A tokenizer or a config, by its `Auto` class. Raises UserError for one that is not to be had."""
    place, file = place_of(source)
    try:
        return loader.from_pretrained(place, revision=revision, trust_remote_code=False, **file)
    except Exception as error:
        raise cannot_load(said, error) from None


def cannot_load(said: str, error: Exception) -> UserError:
    """What the libraries underneath raise for a damaged or absent file, whatever its type, in one line."""
    reason = first_line(error)
    if "custom code" in reason:
        reason = "it brings its own code, which is not run here (trust_remote_code is off); use one transformers knows"
    return UserError(f"{said}: cannot be loaded as a causal language model ({reason})")


def first_line(error: Exception) -> str:
    """What an error says in its first line, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_window(config: Config, model: Any) -> None:
    """Raise UserError where the model cannot read windows as long as the corpus is cut into."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit and config.corpus.window > limit:
        raise UserError(
            f"corpus.window = {config.corpus.window}: {config.subject} reads at most {limit} tokens; set less"
        )
