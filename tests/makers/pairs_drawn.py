"""Losses of two arms, drawn: documents, their tokens, and no difference between the arms but what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Sampler = Callable[[np.random.Generator, int], np.ndarray]


# Losses per token of one document around a mean of 0.
NULLS: dict[str, Sampler] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "t3": lambda rng, n: rng.standard_t(3, size=n),
    "lognormal": lambda rng, n: rng.lognormal(0, 1, n) - np.exp(0.5),
}


def make_tokens(rng: np.random.Generator, n: int) -> np.ndarray:
    """Documents of very unequal length: 20 to about 1,000 tokens."""
    return 20 + rng.gamma(1.5, 120, n).astype(np.int64)


@dataclass(frozen=True)
class Paired:
    arm: Float[np.ndarray, " document"]
    reference: Float[np.ndarray, " document"]
    tokens: np.ndarray


def make_null(name: str, rng: np.random.Generator, n: int, spread: float | None = None) -> Paired:
    """Two arms of equal mean loss on documents that are hard or easy for both, each with noise of the named kind.

    With a `spread`, lengths are lognormal with that σ.
    """
    tokens = make_tokens(rng, n) if spread is None else (20 + 200 * rng.lognormal(0, spread, n)).astype(np.int64)
    hardness = 2 + 0.4 * NULLS[name](rng, n)
    noise = [0.1 * NULLS[name](rng, n) for _ in range(2)]
    return Paired((hardness + noise[0]) * tokens, (hardness + noise[1]) * tokens, tokens)
