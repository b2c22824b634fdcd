"""How often a paired t test finds a difference, and how many documents it takes to find one.

1. With documents' differences of standard deviation sd, the t statistic of n documents is noncentral t with n - 1
   degrees of freedom around effect / (sd / √n): `power`.
2. Solved for the effect that gives the wished-for power: `noncentrality`, in standard errors. Solved for n:
   `documents_needed`.
3. A pilot's sd is itself uncertain, and planning with it as it stands falls short half of the time; `upper_sd` is the
   one to plan with.

Cohen, Statistical Power Analysis (2nd ed. 1988) ch. 2; Owen, Technometrics 10 (1968) 445, for the exact distribution.
"""

from __future__ import annotations

from functools import cache
from math import inf, sqrt

import numpy as np
from scipy import optimize, stats
from scipy.special import gammainccinv, gammaincinv, ndtr

from rewrite.config import UserError

# More documents than any corpus has: an effect that needs them is no effect.
MOST_DOCUMENTS = 10**9

# The average over standard errors: points, and the share of them that is cut off at either end.
NODES = 200
TAIL = 1e-17


def power(effect: float, sd: float, documents: int, alpha: float) -> float:
    """Chance that the two-sided paired t test on this many documents finds a true mean difference of `effect`.

    `sd` is that of the documents' mean differences, in the unit of `effect`.
    """
    return _power_at(abs(effect) / sd * sqrt(documents), documents - 1, alpha)


@cache
def noncentrality(df: int, alpha: float, power: float) -> float:
    """The mean, in standard errors, at which a two-sided t test has this power, solved numerically.

    Cohen, Statistical Power Analysis (2nd ed. 1988) ch. 2.
    """
    upper = float(stats.t.isf(alpha / 2, df)) + 1
    while _power_at(upper, df, alpha) < power:
        upper *= 2
    return float(optimize.brentq(lambda shift: _power_at(shift, df, alpha) - power, 0.0, upper, xtol=1e-12))


def documents_needed(sd: float, effect: float, alpha: float, power: float = 0.8, least: int = 2) -> int:
    """The least number of documents on which the paired t test finds a true difference of `effect` with this power.

    The least n, not below `least`, with n ≥ (sd · noncentrality(n - 1) / effect)²: Cohen (1988) ch. 2.4. Raises
    UserError for an effect of 0 or one that no corpus could show.
    """
    if not (effect != 0 and sd >= 0 and abs(effect) < inf and sd < inf):
        raise UserError(f"no number of documents finds an effect of {effect:.6g} where one varies by {sd:.6g}")

    def enough(count: int) -> bool:
        return sd * noncentrality(count - 1, alpha, power) <= abs(effect) * sqrt(count)

    few, many = max(2, least) - 1, max(2, least)
    while not enough(many):
        few, many = many, 2 * many
        if many > MOST_DOCUMENTS:
            raise UserError(
                f"an effect of {effect:.3g} would need over {MOST_DOCUMENTS:,} documents: wish for a larger one"
            )
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def upper_sd(sd: float, documents: int, confidence: float = 0.8) -> float:
    """The standard deviation that the true one stays below with this confidence, from a pilot's.

    sd · √(df / χ²(1 - confidence, df)): Browne, Stat. Med. 14 (1995) 1933, whose point is that with it the power
    planned for is reached in that share of the studies. It takes the differences for normal.
    """
    df = documents - 1
    return sd * sqrt(df / float(stats.chi2.ppf(1 - confidence, df)))


def _power_at(shift: float, df: int, alpha: float) -> float:
    """Chance that a t statistic, noncentral by `shift` ≥ 0, falls beyond either critical value.

    Given its standard error, √df · (1 + t) with √df times it chi distributed, the statistic is normal: the average of
    the normal's tails over t, by Gauss and Legendre's rule. Owen, Technometrics 10 (1968) 445. scipy's own noncentral t
    warns, and gives NaN, in the far tails.
    """
    critical = float(stats.t.isf(alpha / 2, df))
    low, high = np.sqrt(2 * np.array([gammaincinv(df / 2, TAIL), gammainccinv(df / 2, TAIL)]) / df) - 1
    nodes, weights = _nodes()
    t = (high - low) / 2 * nodes + (high + low) / 2
    density = (df - 1) * np.log1p(t) - df * (t + t**2 / 2)
    weights = weights * np.exp(density - density.max())
    tails = ndtr(shift - critical * (1 + t)) + ndtr(-shift - critical * (1 + t))
    return float((weights * tails).sum() / weights.sum())


@cache
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return nodes, weights
