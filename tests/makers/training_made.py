"""A small model, windows for it, and a coder that loses nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers as hf
from makers.llamas import llama_sizes

from rewrite.coder.coder import Coder
from rewrite.config import CoderConfig

D, VOCABULARY = 16, 60


SIZES = llama_sizes(VOCABULARY, D, layers=3)


TINY = CoderConfig(latents=32, k=4, tokens=2000, batch=8, warmup=5, learning_rate=5e-3)


def make_model(family: str = "llama", dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    if family == "gemma2":
        return hf.Gemma2ForCausalLM(hf.Gemma2Config(**SIZES, head_dim=8)).to(dtype=dtype)  # type: ignore[call-arg]
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES)).to(dtype=dtype)  # type: ignore[call-arg]


def make_windows(count: int = 60, seed: int = 0) -> list[np.ndarray]:
    """Windows of 3 to 12 random tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 13, (count,), generator=generator).tolist()
    return [torch.randint(0, VOCABULARY, (n,), generator=generator).to(torch.int32).numpy() for n in lengths]


def identity_coder() -> Coder:
    """An autoencoder that loses nothing: one latent for each direction and one for its opposite."""
    both = torch.cat([torch.eye(D), -torch.eye(D)])
    return Coder(both, torch.zeros(2 * D), both, torch.zeros(D), kind="sae", activation="relu")
