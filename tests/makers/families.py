"""A small model of random weights of every family of language models that is tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from makers.llamas import llama_sizes

SIZES: dict[str, Any] = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
GPT: dict[str, Any] = {"vocab_size": 99, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
LLAMA = llama_sizes(99, 32, layers=3, heads=4)
GEMMA = LLAMA | {"head_dim": 8, "sliding_window": 8}
EXPERTS = LLAMA | {"num_experts_per_tok": 2}
VISION: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
PICTURE = VISION | {"image_size": 28, "patch_size": 14}


def neox(parallel: bool) -> Any:
    return hf.GPTNeoXForCausalLM(
        hf.GPTNeoXConfig(**SIZES, intermediate_size=48, max_position_embeddings=64, use_parallel_residual=parallel)
    )


def opt() -> Any:
    return hf.OPTForCausalLM(
        hf.OPTConfig(**SIZES, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=32, pad_token_id=1)
    )


def gpt_neo() -> Any:
    kinds = [[["global", "local"], 2]]
    return hf.GPTNeoForCausalLM(
        hf.GPTNeoConfig(vocab_size=99, hidden_size=32, num_layers=4, num_heads=4, attention_types=kinds)
    )


def qwen_vl() -> Any:
    text = LLAMA | {"rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}}
    seen = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 14}
    return hf.Qwen2VLForConditionalGeneration(hf.Qwen2VLConfig(text_config=text, vision_config=seen))


def gemma3_with_pictures() -> Any:
    config = hf.Gemma3Config(text_config=hf.Gemma3TextConfig(**GEMMA), vision_config=PICTURE, mm_tokens_per_image=4)
    return hf.Gemma3ForConditionalGeneration(config)


def gemma4_moe() -> Any:
    experts = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16}
    config = hf.Gemma4TextConfig(**GEMMA, **experts, hidden_size_per_layer_input=0, pad_token_id=0)
    return hf.Gemma4ForCausalLM(config)


def llava() -> Any:
    config = hf.LlavaConfig(text_config=hf.LlamaConfig(**LLAMA), vision_config=hf.CLIPVisionConfig(**PICTURE))
    return hf.LlavaForConditionalGeneration(config)


FAMILIES: dict[str, Callable[[], Any]] = {
    "bloom": lambda: hf.BloomForCausalLM(hf.BloomConfig(vocab_size=99, hidden_size=32, n_layer=3, n_head=4)),
    "cohere": lambda: hf.CohereForCausalLM(hf.CohereConfig(**LLAMA)),
    "cohere2": lambda: hf.Cohere2ForCausalLM(hf.Cohere2Config(**LLAMA)),
    "falcon": lambda: hf.FalconForCausalLM(hf.FalconConfig(**SIZES)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**LLAMA, head_dim=8)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**GEMMA)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**GEMMA)),
    "gemma3_with_pictures": gemma3_with_pictures,
    "gemma4_moe": gemma4_moe,
    "glm4": lambda: hf.Glm4ForCausalLM(hf.Glm4Config(**LLAMA, head_dim=8, pad_token_id=0)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**GPT)),
    "gpt_bigcode": lambda: hf.GPTBigCodeForCausalLM(hf.GPTBigCodeConfig(**GPT)),
    "gpt_neo": gpt_neo,
    "gpt_oss": lambda: hf.GptOssForCausalLM(hf.GptOssConfig(**EXPERTS, head_dim=8, num_local_experts=4)),
    # Its blocks return tuples.
    "gptj": lambda: hf.GPTJForCausalLM(hf.GPTJConfig(**GPT, rotary_dim=8)),
    "granite": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**LLAMA)),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)),
    "llava": llava,
    "mamba": lambda: hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=3, state_size=4)
    ),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**LLAMA, sliding_window=8)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**EXPERTS, num_local_experts=4)),
    "mpt": lambda: hf.MptForCausalLM(hf.MptConfig(vocab_size=99, d_model=32, n_layers=3, n_heads=4)),
    "neox": lambda: neox(True),
    "neox_serial": lambda: neox(False),
    "olmo": lambda: hf.OlmoForCausalLM(hf.OlmoConfig(**LLAMA)),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**LLAMA)),
    "opt": opt,
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**LLAMA)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**LLAMA, pad_token_id=0)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**LLAMA)),
    "qwen2_vl": qwen_vl,
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**LLAMA, head_dim=8)),
    "qwen3_moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**EXPERTS, head_dim=8, num_experts=4, moe_intermediate_size=16)
    ),
    "smollm3": lambda: hf.SmolLM3ForCausalLM(hf.SmolLM3Config(**LLAMA, pad_token_id=0)),
    "stablelm": lambda: hf.StableLmForCausalLM(hf.StableLmConfig(**LLAMA)),
    "starcoder2": lambda: hf.Starcoder2ForCausalLM(hf.Starcoder2Config(**LLAMA)),
}


def without_biases(family: str) -> Any:
    """A model of random weights, its norms' gains too, and no biases, which no matrix holds."""
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    for name, weight in model.named_parameters():
        if "bias" in name:
            weight.data.zero_()
        elif weight.ndim == 1:
            weight.data += 0.3 * torch.randn_like(weight)
    return model
