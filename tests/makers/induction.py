"""A model built by hand that continues what it has seen: a previous-token head, an induction head, an MLP for it.

A GPT-2 of two blocks. The stream holds, side by side, the token now (`NOW`), the token before (`BEFORE`), a copy of the
token now that the MLP makes (`ASK`), the answer (`ANSWER`), the position, and room that nothing reads or writes.

    block 0, head 0   looks at the position before, writes its token into BEFORE
    block 0, MLP      copies NOW into ASK; this is the hookpoint
    block 1, head 1   asks by ASK for a position whose BEFORE is the same, writes the NOW found there into ANSWER
    the head          reads ANSWER

Everything else is 0. Without the MLP's copy head 1.1 looks everywhere alike, and nothing else changes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

TOKENS, POSITIONS, WIDTH, HEADS = 40, 80, 240, 2
NOW, BEFORE, ASK, ANSWER = (slice(start, start + TOKENS) for start in range(0, 4 * TOKENS, TOKENS))
PLACE = slice(4 * TOKENS, 4 * TOKENS + POSITIONS)
D_HEAD = WIDTH // HEADS
LENGTH = 40


def build_induction() -> GPT2LMHeadModel:
    """The model, its weights set."""
    config = GPT2Config(
        vocab_size=TOKENS, n_positions=POSITIONS, n_embd=WIDTH, n_layer=2, n_head=HEADS, n_inner=TOKENS,
        activation_function="relu", tie_word_embeddings=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    for name, weight in model.named_parameters():
        weight.data.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
    body = model.transformer
    body.wte.weight.data[:, NOW] = torch.eye(TOKENS)
    body.wpe.weight.data[:, PLACE] = torch.eye(POSITIONS)
    first, second = body.h
    # Rows read, columns write: queries, keys and values stand one after the other, each head's together.
    query, key, value = first.attn.c_attn.weight.data.split(WIDTH, 1)
    query[PLACE, :POSITIONS], key[PLACE, :POSITIONS] = 8 * torch.eye(POSITIONS).roll(-1, 1), 8 * torch.eye(POSITIONS)
    value[NOW, POSITIONS : POSITIONS + TOKENS] = torch.eye(TOKENS)
    first.attn.c_proj.weight.data[POSITIONS : POSITIONS + TOKENS, BEFORE] = 0.2 * torch.eye(TOKENS)
    first.mlp.c_fc.weight.data[NOW] = torch.eye(TOKENS)
    first.mlp.c_fc.bias.data.fill_(-1.0)
    first.mlp.c_proj.weight.data[:, ASK] = 0.5 * torch.eye(TOKENS)
    query, key, value = second.attn.c_attn.weight.data.split(WIDTH, 1)
    own = slice(D_HEAD, D_HEAD + TOKENS)
    query[ASK, own], key[BEFORE, own] = 8 * torch.eye(TOKENS), 8 * torch.eye(TOKENS)
    value[NOW, own] = torch.eye(TOKENS)
    second.attn.c_proj.weight.data[own, ANSWER] = 0.5 * torch.eye(TOKENS)
    model.lm_head.weight.data[:, ANSWER] = 4 * torch.eye(TOKENS)
    return model


def repeated_text(documents: int, seed: int) -> Tensor:
    """Texts [document, position] of tokens in a random order, said twice."""
    rng = torch.Generator().manual_seed(seed)
    half = torch.stack([torch.randperm(TOKENS, generator=rng)[: LENGTH // 2] for _ in range(documents)])
    return torch.cat([half, half], 1)
