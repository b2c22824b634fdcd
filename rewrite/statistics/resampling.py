"""What asks less of the losses than the t test does: coins, and documents drawn again; and when to read them.

1. `sign_flip`: the p of a paired difference under all patterns of signs, studentised.
2. `bootstrap_t`: documents are drawn again with replacement, and the quantiles of (value* - value) / se* stand in place
   of Student's.
3. `find_skew`: one sentence where the documents are too few for how skewed their differences are.

A mean per token, Σ nats / Σ tokens, is a ratio of two sums over documents: leaving out document i moves Σy / Σx by
-e_i / (Σx - x_i), with e = y - (Σy / Σx) x. That is the `se` of `paired.estimate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, sqrt

import numpy as np
from jaxtyping import Float

from rewrite.statistics.paired import Documents, Interval, Tokens, check_documents, estimate, weigh

# A permuted statistic this close to the observed one, relatively, is a tie: they differ by the order of the sums only.
TIE = 1e-10

# Numbers drawn at once by a permutation test or a bootstrap, which bounds its memory to some 100 MB.
DRAWS_AT_ONCE = 4_000_000

# Skewness over √documents beyond which t tests are not to be trusted: at it a one-sided test at 5%, of which TOST has
# two, errs in 6.1% (`find_skew`).
SKEW_LIMIT = 0.1


def sign_flip(
    differences: Float[np.ndarray, "comparison document"], tokens: Tokens, resamples: int, seed: int
) -> Float[np.ndarray, " comparison"]:
    """Two-sided permutation p of each row's mean: documents' differences change sign by fair coins.

    The statistic is |value| / se of `estimate`, computed anew for every pattern of signs; that keeps the test valid for
    a mean of 0 without symmetry as documents grow in number: Janssen, Math. Methods Stat. 8 (1999) 320; Canay, Romano &
    Shaikh, Econometrica 85 (2017) 1013. All 2^n patterns where they are not more than `resamples`; else random ones,
    with p = (1 + ties and above) / (1 + draws): Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39. All rows
    share the same coins, which `seed` names. Rows of zeros give 1.
    """
    for row in differences:
        check_documents(row, tokens)
    count = len(tokens)
    scale = np.abs(differences).max(axis=1, keepdims=True)
    rows = differences / np.where(scale > 0, scale, 1)
    observed = _studentise(np.ones((1, count)), rows, tokens)[0]
    exact = count < 63 and 2**count <= resamples
    patterns = 2**count if exact else resamples
    generator = np.random.default_rng(seed)
    reached = np.zeros(len(rows), dtype=np.int64)
    for begin in range(0, patterns, max(1, DRAWS_AT_ONCE // count)):
        end = min(patterns, begin + max(1, DRAWS_AT_ONCE // count))
        if exact:
            coins = np.arange(begin, end)[:, None] >> np.arange(count) & 1
        else:
            coins = generator.integers(0, 2, (end - begin, count), dtype=np.int8)
        reached += (_studentise(2.0 * coins - 1, rows, tokens) >= observed * (1 - TIE)).sum(axis=0)
    p = reached / patterns if exact else (1 + reached) / (1 + patterns)
    return np.where(scale[:, 0] > 0, p, 1.0)


def _studentise(
    signs: Float[np.ndarray, "pattern document"], rows: Float[np.ndarray, "comparison document"], tokens: Tokens
) -> Float[np.ndarray, "pattern comparison"]:
    """(value / se)² for every pattern of signs, from two matrix products.

    With s_i = ±1 and v_i from `stats.weigh`, se² = Σ v d² - 2r Σ v s d w + r² Σ v w², where r = Σ s d / Σw.
    """
    weights = weigh(tokens)
    mean = signs @ rows.T / tokens.sum()
    cross = signs @ (rows * weights * tokens).T
    squares = np.square(rows) @ weights - 2 * mean * cross + mean**2 * (weights * np.square(tokens)).sum()
    safe = np.where(squares > 0, squares, 1)
    return np.where(squares > 0, mean**2 / safe, np.where(mean == 0, 0, inf))


def bootstrap_t(nats: Documents, tokens: Tokens, alpha: float, resamples: int, seed: int) -> Interval | None:
    """Bootstrap-t interval of the mean nats per token that covers 1 - alpha; None where the resamples bound none.

    `nats` are the differences of two arms, paired by document, or one arm's. Documents are drawn with replacement,
    nats and tokens together, as clusters: Field & Welsh, J. R. Stat. Soc. B 69 (2007) 369. What lies high among the
    resamples' (value* - value) / se* bounds the value from below, and the other way round: Efron, The Jackknife, the
    Bootstrap (1982) ch. 10; Hall, Ann. Stat. 16 (1988) 927. `seed` names the draws. Raises as `paired.estimate` does.
    """
    found = estimate(nats, tokens)
    if found.identical:
        return Interval(0.0, 0.0)
    count = len(nats)
    generator = np.random.default_rng(seed)
    moved = np.empty(resamples)
    for begin in range(0, resamples, max(1, DRAWS_AT_ONCE // count)):
        end = min(resamples, begin + max(1, DRAWS_AT_ONCE // count))
        rows = generator.integers(0, count, (end - begin, count))
        moved[begin:end] = _studentise_draws(nats[rows], tokens.astype(np.float64)[rows], found.value)
    # Order statistics, not means of two: one of them may be infinite.
    low, high = np.quantile(moved, [alpha / 2, 1 - alpha / 2], method="inverted_cdf").tolist()
    ends = Interval(found.value - high * found.se, found.value - low * found.se)
    return ends if np.isfinite([ends.low, ends.high]).all() else None


def _studentise_draws(
    above: Float[np.ndarray, "resample document"], below: Float[np.ndarray, "resample document"], value: float
) -> Float[np.ndarray, " resample"]:
    """How many of its own standard errors the ratio of every resample lies from `value`.

    A resample that is one document many times has no standard error; it lies infinitely far.
    """
    total = below.sum(axis=1, keepdims=True)
    count = above.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = above.sum(axis=1, keepdims=True) / total
        left_out = (above - ratio * below) / (total - below)
        se = np.sqrt((count - 1) / count * np.square(left_out).sum(axis=1))
        away = ratio[:, 0] - value
        return np.where(se > 0, away / se, np.where(away == 0, 0.0, np.copysign(inf, away)))


@dataclass(frozen=True)
class Skewed:
    """Differences too skewed for their number."""

    documents: int
    skewness: float
    needed: int
    """Documents at which a t test of such differences would hold its level."""

    def __str__(self) -> str:
        return (
            f"The differences of these {self.documents} documents are skewed (skewness {self.skewness:+.1f}), so the t "
            "test may be wrong more often than it says: read the bootstrap-t interval, or score "
            f"{self.needed:,} documents."
        )


def find_skew(differences: Documents, tokens: Tokens) -> Skewed | None:
    """Whether the t test of these paired differences is known to miss its level; None where it is sound.

    A one-sided t test errs by skewness / √documents · (2z² + 1) φ(z) / 6, which is .11 of the ratio at 5%: Johnson, J.
    Am. Stat. Assoc. 73 (1978) 536; Hall, The Bootstrap and Edgeworth Expansion (1992) section 2.6. (Two-sided tests err
    less: Cochran, Sampling Techniques (1977) section 2.15, lets them have a ratio of .2.) A skewness within two
    standard errors of a normal sample's, √(6 / n), is not told from none. It is the skewness of what each document adds
    to the mean per token, so a long document counts. Few documents of a very skewed kind may hold none of the large
    ones: then nothing is said, and no rule could (`benchmarks/calibration.py` counts how often). Raises as
    `stats.estimate` does.
    """
    found = estimate(differences, tokens)
    if found.identical:
        return None
    count = len(differences)
    influence = (differences - found.value * tokens) / (tokens.sum() - tokens)
    influence = influence - influence.mean()
    skewness = float(np.mean(influence**3) / np.mean(influence**2) ** 1.5)
    if abs(skewness) <= max(SKEW_LIMIT * sqrt(count), 2 * sqrt(6 / count)):
        return None
    return Skewed(count, skewness, ceil((skewness / SKEW_LIMIT) ** 2))


def caution(differences: Documents, tokens: Tokens) -> str:
    """`find_skew` as a sentence; empty where the t test is sound."""
    found = find_skew(differences, tokens)
    return str(found) if found else ""
