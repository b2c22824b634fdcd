"""How much of a direction a matrix reads, against directions drawn at random.

Of a direction d a matrix W of width D reads the share r = ‖W d‖² / (‖W‖_F² ‖d‖²). With λ the eigenvalues of W Wᵀ over
their sum, and D − rank zeros beside them, r of a random direction is Σ λᵢ xᵢ² / Σ xᵢ² of D standard normal x: its mean
is 1 / D, its variance 2 (Σ λᵢ² − 1 / D) / (D (D + 2)), and

    P(r > q) = P(Σ (λᵢ − q) xᵢ² > 0),

the tail of a quadratic form. Chances here are of one in millions, for the best of many is looked for, and there a
share's tail is far from a normal's or a gamma's; it is taken from the saddlepoint (Lugannani & Rice 1980, Adv. Appl.
Prob. 12, 475), which is good to some per cent in the far tail too.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy import optimize, stats
from torch import Tensor


def share_read(matrix: Float[Tensor, "d_head d"], rows: Float[Tensor, "row d"]) -> Float[Tensor, " row"]:
    """‖W d‖² / (‖W‖_F² ‖d‖²) of each row d."""
    return (rows @ matrix.T).square().sum(1) / (matrix.square().sum() * rows.square().sum(1))


def standardise(matrix: Float[Tensor, "d_head d"], shares: Tensor) -> Tensor:
    """Shares as deviations from a random direction's mean, in its standard deviations."""
    width = matrix.shape[1]
    small = matrix @ matrix.T
    spread = 2 * (small.square().sum() / small.trace() ** 2 - 1 / width) / (width * (width + 2))
    return (shares - 1 / width) / spread.sqrt()


def threshold(matrix: Float[Tensor, "d_head d"], chance: float) -> float:
    """The z that a random direction exceeds with this chance, which is to be small; infinite for a matrix of zeros."""
    width = matrix.shape[1]
    roots = torch.linalg.eigvalsh((matrix @ matrix.T).double()).clamp(min=0).cpu().numpy()
    if roots.sum() <= 0:
        return float("inf")
    roots = roots[roots > 1e-12 * roots.max()] / roots.sum()
    # From a share just above the mean, where the tail is nearly a half, to the largest that there is.
    low, high = (1 + 1e-3) / width, float(roots.max()) * (1 - 1e-9)
    if tail(roots, width, high) > chance:
        share = high
    else:
        share = optimize.brentq(lambda q: np.log(max(tail(roots, width, q), 1e-300)) - np.log(chance), low, high)
    return float(standardise(matrix.double(), torch.tensor(share, dtype=torch.float64, device=matrix.device)))


def tail(roots: Float[np.ndarray, " root"], width: int, share: float) -> float:
    """P(r > share) of a random direction for a share above the mean; `roots` are the λ above 0, of sum 1."""
    weights = np.append(roots - share, -share)
    counts = np.append(np.ones(len(roots)), width - len(roots))
    most = float(weights.max())
    if most <= 0:
        return 0.0

    def slope(s: float) -> float:
        return float((counts * weights / (1 - 2 * s * weights)).sum())

    saddle = float(optimize.brentq(slope, 0.0, (1 - 1e-12) / (2 * most)))
    inside = 1 - 2 * saddle * weights
    w = np.sqrt(max(float((counts * np.log(inside)).sum()), 0.0))
    u = saddle * np.sqrt(2 * float((counts * (weights / inside) ** 2).sum()))
    if w < 1e-6 or u < 1e-6:
        return 0.5
    return float(stats.norm.sf(w) + stats.norm.pdf(w) * (1 / u - 1 / w))
