"""A model on vLLM in this process: one at a time, kept for whoever asks for it again with the same settings.

Explaining and simulating with one model loads it once, and a second model finds the memory free. Where there is no GPU,
vLLM needs other settings, some of them in the environment (https://docs.vllm.ai, "CPU"); the user's own come first.
"""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rewrite.config import UserError

# Read by vLLM and torch when they are imported or start.
ALWAYS = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
ON_CPU = {
    "TORCH_COMPILE_DISABLE": "1",  # Compiling needs a C++ compiler and minutes.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # Else threads are bound to cores for the rest of this process.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # No second process, which would load torch again.
}
CPU_BLOCK = 32
"""Tokens in a block of the cache on a CPU, where vLLM takes multiples of 32 only [tokens]."""
# Left to itself, a weak model fills an answer that is held to a schema with blanks without end.
HELD = {"backend": "guidance", "disable_any_whitespace": True}


@dataclass(frozen=True)
class Launch:
    """What a loaded model is started with."""

    model: str
    revision: str
    dtype: str
    max_model_len: int
    """Longest prompt with its answer; 0 is what the model was made for [tokens]."""
    memory: float
    """Share of a GPU's memory."""
    cpu_cache: int
    """Memory for the cache of prefixes on a CPU [GiB]."""
    prefix_reuse: bool


_loaded: dict[Launch, Any] = {}


def load(launch: Launch) -> Any:
    """vLLM's `LLM`, started where it is not the one that is there. Raises UserError where it cannot be."""
    if launch not in _loaded:
        unload()
        _loaded[launch] = _start(launch)
    return _loaded[launch]


def unload() -> None:
    """Free the model's memory."""
    _loaded.clear()
    gc.collect()


def _start(launch: Launch) -> Any:
    import torch

    on_cpu = torch.cuda.device_count() == 0  # Asks the driver, and leaves CUDA untouched for vLLM's own process.
    for name, value in {**ALWAYS, **(ON_CPU if on_cpu else {})}.items():
        os.environ.setdefault(name, value)
    special: dict[str, Any] = {}
    if on_cpu:
        special = {
            "enforce_eager": True,
            "block_size": CPU_BLOCK,
            "kv_cache_memory_bytes": launch.cpu_cache << 30,
        }
    with _quiet(on_cpu):
        try:
            from vllm import LLM

            return LLM(
                launch.model,
                revision=launch.revision,
                tokenizer_revision=launch.revision,
                dtype=_precision(launch),
                max_model_len=launch.max_model_len or None,
                gpu_memory_utilization=launch.memory,
                enable_prefix_caching=launch.prefix_reuse,
                structured_outputs_config=HELD,
                use_tqdm_on_load=False,
                **special,
            )
        except Exception as error:
            raise UserError(f"engine = vllm: cannot run {launch.model}: {read_reason(error)}") from None


def _precision(launch: Launch) -> Any:
    """What vLLM is told: its own `auto` would halve the precision of weights in float32."""
    if launch.dtype != "auto":
        return launch.dtype
    from transformers import AutoConfig

    stored = str(AutoConfig.from_pretrained(launch.model, revision=launch.revision).dtype)
    return "float32" if stored == "torch.float32" else "auto"


@contextmanager
def _quiet(on_cpu: bool) -> Iterator[None]:
    """Starting vLLM tells of dozens of things that no user of ours can mend. On a GPU its own process works, which says
    on the standard error why it failed; on a CPU it fails by an exception, and only warnings of C++ come that way."""
    disabled, kept = logging.root.manager.disable, os.dup(2)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "wb") as nowhere:
            warnings.simplefilter("ignore")
            if on_cpu:
                os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        logging.disable(disabled)


def read_reason(error: Exception) -> str:
    """What an error says, without its traceback."""
    text = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
    text = text.removeprefix("Value error, ")
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[0].strip()[:300] if lines else type(error).__name__
