"""A small language model for the tests, made in seconds from nothing: a Llama of 4 layers with random weights.

Its weights are large enough that its predictions differ from place to place, its vocabulary of 4,096 pieces is trained
on the standard library's source with every digit, tab and newline a piece of its own, and it has a chat template.

    python tests/makers/tiny.py FOLDER
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SPECIAL = ["<bos>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>"]


def make_tiny(folder: Path, pieces: int = 4096, ends: bool = True) -> Path:
    """Write the model and its tokenizer, of so many pieces, to a folder that does not exist yet. One that `ends` says a
    special piece as often as another, which of few pieces is soon, and its answer is over."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[0-9\t\n]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    source = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:60]
    tokenizer.train_from_iterator((p.read_text(encoding="utf-8", errors="replace") for p in source), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")
    fast.chat_template = CHAT
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.1,
    )
    model = LlamaForCausalLM(config).eval()
    if not ends:
        with torch.no_grad():
            model.lm_head.weight[: len(SPECIAL)] = 0  # Far below the largest of the others.
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(make_tiny(Path(sys.argv[1])))
