"""The trained part of `towers`: what a model holds of an explanation meets what it holds of a text.

1. An explanation's states, a vector a token, pass a projection and two small blocks of attention that see all of it,
   for what is said of a token may stand behind it. A learned vector stands before them, and alone where there is
   nothing to read.
2. Each of its tokens gives a query of length 1 and a gate, the learned vector a further query, free in length, and a
   bias. A text's states give, at each position, a key of length 1 and a free key.
3. The logit of a strength at a position is  log Σ_tokens exp(sharpness · query · key + gate) + free query · free key +
   bias: late interaction in the manner of ColBERT (Khattab & Zaharia 2020), the sum in place of its maximum, and a
   low-rank bilinear form. So all latents at all positions are a product of two matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

TOP = 9.0
CHUNK = 1 << 24
"""Numbers in a product at a time."""
NEVER = -30.0
"""The gate of what is not there."""
RARE = -4.0
"""The bias at first: firings are rare."""


@dataclass(frozen=True)
class Queries:
    """What explanations ask of a position."""

    matched: Float[Tensor, "latent token rank"]
    gates: Float[Tensor, "latent token"]
    free: Float[Tensor, "latent rank"]
    bias: Float[Tensor, " latent"]


@dataclass(frozen=True)
class Keys:
    """What a text offers at each position."""

    matched: Float[Tensor, "position rank"]
    free: Float[Tensor, "position rank"]


class Head(nn.Module):
    """See the module. `width` is that of the states on both sides, which are brought to size 1 by `spread`."""

    def __init__(self, width: int, hidden: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(width))
        self.text = nn.Sequential(nn.Linear(width, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, 2 * rank))
        self.told = nn.Linear(width, hidden)
        self.first = nn.Parameter(0.1 * torch.randn(hidden))
        block = nn.TransformerEncoderLayer(hidden, 4, 4 * hidden, dropout=0.1, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.query, self.gate = nn.Linear(hidden, rank), nn.Linear(hidden, 1)
        self.free, self.bias = nn.Linear(hidden, rank), nn.Linear(hidden, 1)
        self.sharpness = nn.Parameter(torch.tensor(8.0))
        nn.init.constant_(self.bias.bias, RARE)

    def ask(self, states: Float[Tensor, "latent token width"], there: Bool[Tensor, "latent token"]) -> Queries:
        """What explanations ask; `there` is False on padding."""
        first = self.first.expand(len(states), 1, -1)
        tokens = torch.cat([first, self.told(states.float() / self.spread)], dim=1)
        absent = torch.cat([there.new_zeros(len(states), 1), ~there], dim=1)
        seen = self.blocks(tokens, src_key_padding_mask=absent)
        gates = self.gate(seen)[..., 0].masked_fill(absent, NEVER)
        return Queries(F.normalize(self.query(seen), dim=-1), gates, self.free(seen[:, 0]), self.bias(seen[:, 0])[:, 0])

    def hold(self, states: Float[Tensor, "position width"]) -> Keys:
        """What a text offers at each position."""
        matched, free = self.text(states.float() / self.spread).split(self.rank, dim=-1)
        return Keys(F.normalize(matched, dim=-1), free)

    def forward(self, keys: Keys, queries: Queries) -> Float[Tensor, "latent position"]:
        """The logit of each latent's strength, as a share of its maximum, at each position."""
        latents, tokens, rank = queries.matched.shape
        near = (queries.matched.reshape(-1, rank) @ keys.matched.T).reshape(latents, tokens, -1)
        matched = (self.sharpness * near + queries.gates[..., None]).logsumexp(dim=1)
        logits: Tensor = matched + queries.free @ keys.free.T / math.sqrt(rank) + queries.bias[:, None]
        return logits


def pad(
    told: Sequence[Float[np.ndarray, "_ width"]], width: int, device: str
) -> tuple[Float[Tensor, "latent token width"], Bool[Tensor, "latent token"]]:
    """Explanations of any lengths side by side, and where each has a token."""
    longest = max(map(len, told), default=0)
    states = np.zeros((len(told), longest, width), dtype=np.float16)
    there = np.zeros((len(told), longest), dtype=bool)
    for number, own in enumerate(told):
        states[number, : len(own)], there[number, : len(own)] = own, True
    return torch.from_numpy(states).to(device), torch.from_numpy(there).to(device)


def ask(head: Head, told: Sequence[Float[np.ndarray, "_ width"]], width: int) -> Queries:
    """What explanations ask of a position, as a head has learned it."""
    with torch.inference_mode():
        return head.eval().ask(*pad(told, width, str(head.first.device)))


def read(
    head: Head, states: Float[np.ndarray, "position width"], asked: Sequence[Queries]
) -> list[Float[np.ndarray, "position latent"]]:
    """Strengths on the scale 0 to 9 for each of the queries, a part of the positions at a time."""
    size = max(1, CHUNK // max(queries.gates.numel() for queries in asked))
    found = [np.zeros((len(states), len(queries.gates)), dtype=np.float32) for queries in asked]
    with torch.inference_mode():
        head.eval()
        for begin in range(0, len(states), size):
            keys = head.hold(torch.from_numpy(states[begin : begin + size]).to(head.first.device))
            for values, queries in zip(found, asked, strict=True):
                values[begin : begin + size] = TOP * head(keys, queries).sigmoid().T.cpu().numpy()
    return found
