"""The share of the gap recovered over several seeds: an interval that counts both seeds and documents.

A seed makes the coder (or another draw) again, so the next one would give another share; the documents are a sample
too, and the same for all seeds. Two errors are added in quadrature, each widened by its own Student's t (`pool`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats as theory

from rewrite.statistics.paired import Documents, Interval


@dataclass(frozen=True)
class Share:
    """One seed's run: by document, in nats, what was won back of what there is to win; `documents` names them."""

    up: Documents
    """Loss of zero less loss of the simulation."""
    down: Documents
    """Loss of zero less loss of the coder."""
    documents: tuple[str, ...]

    @property
    def value(self) -> float:
        """The share recovered over all documents."""
        return float(self.up.sum() / self.down.sum())

    @property
    def influence(self) -> Documents:
        """By how much the share moves where a document is left out."""
        moved: Documents = (self.up.sum() - self.up) / (self.down.sum() - self.down) - self.value
        return moved


@dataclass(frozen=True)
class Pooled:
    """The mean share over seeds, its interval and the two standard errors that it is made of."""

    value: float
    interval: Interval
    over_documents: Interval
    """What documents alone would say: of these very seeds, and no others."""
    se_documents: float
    se_seeds: float


def pool(shares: Sequence[Share], alpha: float) -> Pooled:
    """The mean share of two seeds or more, with an interval that covers 1 - alpha for other seeds and documents.

    The documents' variance is the jackknife's of the mean over seeds, (n-1)/n Σ_d (mean_s i_sd)², i_sd the influence of
    document d in seed s (Efron & Tibshirani, An Introduction to the Bootstrap (1993) ch. 11); where seeds were not
    scored on the same documents it is the mean of each seed's own, as if they were. The seeds' variance is s² / S of
    the S shares. The half-width is √(t(n-1)² V_documents + t(S-1)² V_seeds): each component has its own degrees of
    freedom, as in Howe, J. Am. Stat. Assoc. 69 (1974) 789. What documents and seeds do together (their interaction) is
    in both and so counted twice, on the safe side: Owen, Ann. Appl. Stat. 1 (2007) 386. With two seeds t(1) is 12.7:
    intervals are wide, and rightly so.
    """
    count, values = len(shares), np.array([share.value for share in shares])
    if count < 2:
        raise ValueError("one seed has no spread between seeds")
    moved = np.stack([share.influence for share in shares]) if _same(shares) else None
    if moved is not None:
        size = moved.shape[1]
        documents = (size - 1) / size * float(np.square(moved.mean(axis=0)).sum())
    else:
        size = min(len(share.up) for share in shares)
        own = [(len(share.up) - 1) / len(share.up) * float(np.square(share.influence).sum()) for share in shares]
        documents = float(np.mean(own))
    seeds = float(values.var(ddof=1)) / count
    t_documents, t_seeds = (float(theory.t.isf(alpha / 2, df)) for df in (size - 1, count - 1))
    half, inner = sqrt(t_documents**2 * documents + t_seeds**2 * seeds), t_documents * sqrt(documents)
    value = float(values.mean())
    outer = Interval(value - half, value + half)
    return Pooled(value, outer, Interval(value - inner, value + inner), sqrt(documents), sqrt(seeds))


def _same(shares: Sequence[Share]) -> bool:
    return all(share.documents == shares[0].documents for share in shares)
