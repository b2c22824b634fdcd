"""The sizes of small Llamas, which several tests make of random weights."""

from __future__ import annotations

from typing import Any


def llama_sizes(vocabulary: int, width: int, layers: int = 2, heads: int = 2, **more: Any) -> dict[str, Any]:
    """The arguments of a `LlamaConfig`, or of a family like it; `more` adds to them or takes their place."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 3 * width // 2,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2 * width,
    } | more
