"""How much of a spread is the documents', the latents' and the simulator seeds'.

The design it needs is complete and balanced: one number in every cell of documents × latents × seeds, such as the nats
per token that one latent adds on one document with one seed. The model is that of three crossed random factors,

    y = μ + document + latent + seed + document·latent + document·seed + latent·seed + rest

1. The mean square of every set of factors A: the cell means, cleared of all smaller sets' effects, squared and summed
   over the whole table, over Π (levels - 1).
2. Its expectation is Σ over all sets B ⊇ A of σ²(B) · Π of the levels of the factors outside B. Equated to what was
   found and solved from the largest set down, this gives every σ² (`split_variance`): the method of moments, Searle,
   Casella & McCulloch, Variance Components (1992) ch. 4; Brennan, Generalizability Theory (2001) ch. 3.
3. A factor with one level has no spread to show: it and what it is crossed with are missing, not 0.

An estimate may fall below 0 where the true one is small. It is left so: cutting it at 0 would make it biased.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod, sqrt

import numpy as np
from jaxtyping import Float

from rewrite.config import UserError

FACTORS = ("document", "latent", "seed")
Factors = tuple[str, ...]


@dataclass(frozen=True)
class Components:
    """Variances by set of factors, in the order of `FACTORS`; the largest set also holds what is left over.

    `levels` has only the factors with more than one level.
    """

    variances: dict[Factors, float]
    levels: dict[str, int]

    @property
    def document(self) -> float | None:
        """Variance between documents; None with one document."""
        return self.variances.get(("document",))

    @property
    def latent(self) -> float | None:
        """Variance between latents; None with one latent."""
        return self.variances.get(("latent",))

    @property
    def seed(self) -> float | None:
        """Variance between simulator seeds; None with one seed."""
        return self.variances.get(("seed",))

    def standard_error(self, levels: dict[str, int]) -> float:
        """Standard error of the mean of a study with these levels of the factors: what more of each would buy.

        √ Σ σ²(B) / Π levels of B: Brennan (2001) ch. 4, a "D study". Estimates below 0 count as 0.
        """
        if set(levels) != set(self.levels):
            raise ValueError(f"levels of {sorted(levels)}, components of {sorted(self.levels)}")
        return sqrt(sum(max(0.0, found) / prod(levels[name] for name in of) for of, found in self.variances.items()))


def split_variance(values: Float[np.ndarray, "document latent seed"]) -> Components:
    """The variance components of a complete table; see the module for the design and the method.

    Raises UserError where a cell is missing (NaN): the balanced method would be wrong there, and 0 would be a claim.
    """
    if not np.isfinite(values).all():
        lost = int((~np.isfinite(values)).sum())
        raise UserError(
            f"{lost} of {values.size} cells are missing: leave out the documents, latents or seeds they are in"
        )
    levels = {name: count for name, count in zip(FACTORS, values.shape, strict=True) if count > 1}
    table = values.squeeze(axis=tuple(axis for axis, count in enumerate(values.shape) if count == 1))
    squares = {of: _mean_square(table, of, list(levels)) for of in _subsets(list(levels))}
    variances: dict[Factors, float] = {}
    for of in sorted(squares, key=len, reverse=True):
        outside = prod(count for name, count in levels.items() if name not in of)
        above = sum(
            found * prod(count for name, count in levels.items() if name not in larger)
            for larger, found in variances.items()
            if set(of) < set(larger)
        )
        variances[of] = (squares[of] - above) / outside
    return Components({of: variances[of] for of in squares}, levels)


def _subsets(names: Sequence[str]) -> list[Factors]:
    return [of for size in range(1, len(names) + 1) for of in combinations(names, size)]


def _mean_square(table: Float[np.ndarray, ...], of: Factors, names: Sequence[str]) -> float:
    """Sum of squares of the effect of a set of factors over its degrees of freedom.

    The effect is what is left of the means over the other factors once each factor's own mean is taken out.
    """
    others = tuple(axis for axis, name in enumerate(names) if name not in of)
    effect = table.mean(axis=others, keepdims=True)
    for name in of:
        effect = effect - effect.mean(axis=names.index(name), keepdims=True)
    repeated = table.size / effect.size
    freedom = prod(table.shape[names.index(name)] - 1 for name in of)
    return float(repeated * np.square(effect).sum() / freedom)
