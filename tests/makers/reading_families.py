"""Sizes of small models of several families, whose caches and masks differ."""

from __future__ import annotations

from typing import Any

VOCABULARY = 97


SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


# Sliding windows are shorter than the prompts; caps and scales of logits are strong.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 9},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 9, "final_logit_softcapping": 3.0},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 9},
    "cohere": {"num_key_value_heads": 2, "logit_scale": 0.5},
    "gpt2": {},
    "gpt_neox": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3},
    "bloom": {},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4},
    "mamba": {"state_size": 4},
    "llama4_text": {"num_key_value_heads": 2, "head_dim": 8, "attention_chunk_size": 9, "intermediate_size_mlp": 64}
    | {"num_local_experts": 2},
}
