"""The statistics of paired losses: from documents to estimates, intervals and tests.

1. The unit is the document. An arm's loss is a ratio, nats summed over tokens summed, so every token counts once and
   documents, not tokens, carry the error (`estimate`). Two arms are compared on the same documents (`difference`).
2. The primary test is Student's t on the jackknife's standard error, which is robust to clusters of any size
   (`Estimate.p_value`). Beside it stand a sign-flip test and two bootstrap intervals (`rewrite.statistics.resampling`).
3. "Not significant" never means "equal": two one-sided tests against a margin say that (`Estimate.p_equivalence`; where
   the margin is a share of a gap that is estimated too, `Region.p_equivalence`), and `Estimate.detectable` says how
   large a difference would have been found, `Estimate.documents_needed` how many documents it takes to find one
   (`rewrite.statistics.power`).
4. The share of the gap that an arm recovers is a ratio of two differences and has Fieller's interval (`recovered`).
5. Holm's step-down over the family of comparisons (`holm`); the word and the sentence that follow stand in
   `rewrite.statistics.verdict`. Over thousands of latents, Benjamini and Hochberg's step-up (`benjamini_hochberg`).

Sources stand at each function. Too few documents, or documents that show no spread, raise a UserError: a standard error
of 0 is returned in one case only, two arms that agree exactly on every document (`Estimate.identical`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from rewrite.config import UserError
from rewrite.statistics.power import documents_needed, noncentrality, upper_sd

Documents = Float[np.ndarray, " document"]
Tokens = Int[np.ndarray, " document"]

# With 8 documents there are 256 sign patterns, so a permutation test can go below 0.01; with 5 it never reaches 0.05.
MINIMUM_DOCUMENTS = 8


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Estimate:
    """A mean per token with its standard error [nats per token] and degrees of freedom [documents - 1]."""

    value: float
    se: float
    df: int

    @property
    def identical(self) -> bool:
        """The two arms agree exactly on every document: nothing is estimated, and nothing differs."""
        return self.se == 0.0

    def interval(self, alpha: float) -> Interval:
        """Student's two-sided interval that covers 1 - alpha: value ± t(1 - alpha/2, df) · se; a point if identical."""
        half = float(stats.t.isf(alpha / 2, self.df)) * self.se
        return Interval(self.value - half, self.value + half)

    def p_value(self) -> float:
        """Two-sided p of "the mean is 0": 2 P(T > |value| / se), T Student's t with df; 1 if identical."""
        if self.identical:
            return 1.0
        return float(2 * stats.t.sf(abs(self.value) / self.se, self.df))

    def p_equivalence(self, margin: float) -> float:
        """p of "the mean lies outside (-margin, margin)", the larger of two one-sided t tests.

        Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987) 657. Arms that are identical are equivalent (0) within any
        margin; with no margin (0) nothing is (1).
        """
        if margin <= 0:
            return 1.0
        if self.identical:
            return 0.0
        above = stats.t.sf((self.value + margin) / self.se, self.df)
        below = stats.t.cdf((self.value - margin) / self.se, self.df)
        return float(max(above, below))

    def detectable(self, alpha: float, power: float = 0.8) -> float:
        """The least true mean that the two-sided t test finds with this power: se times `noncentrality`.

        It is about the documents and their spread, not about the mean observed (no "observed power"): Hoenig & Heisey,
        Am. Stat. 55 (2001) 19. It is not adjusted for the number of comparisons; 0 if identical.
        """
        return self.se * noncentrality(self.df, alpha, power)

    @property
    def sd(self) -> float:
        """Standard deviation of the documents' means that would give this se with documents of equal length."""
        return self.se * sqrt(self.df + 1)

    def documents_needed(self, effect: float, alpha: float, power: float = 0.8, confidence: float | None = None) -> int:
        """Documents of this kind on which the t test finds a true mean of `effect` with this power: a pilot's answer.

        `rewrite.statistics.power.documents_needed` with this estimate's `sd`, or, with a `confidence`, with the `sd`
        that the true one is below that surely (`upper_sd`). Never fewer than MINIMUM_DOCUMENTS. Raises UserError for no
        effect.
        """
        sd = self.sd if confidence is None else upper_sd(self.sd, self.df + 1, confidence)
        return documents_needed(sd, effect, alpha, power, MINIMUM_DOCUMENTS)


def estimate(nats: Documents, tokens: Tokens, constant: bool = False) -> Estimate:
    """Mean nats per token and its standard error with documents as clusters of unequal size.

    r = Σy / Σw, e_i = y_i - r w_i: the ratio estimator of Cochran, Sampling Techniques (3rd ed. 1977) ch. 6. Leaving
    out document i moves r by -e_i / (Σw - w_i), so the jackknife's se² = (n-1)/n Σ e_i² / (Σw - w_i)². That is the
    cluster-robust variance CV3 of Bell & McCaffrey, Surv. Methodol. 28 (2002) 169, which MacKinnon, Nielsen & Webb, J.
    Appl. Econom. 38 (2023) 671, advise. The usual n/(n-1) Σe_i² / (Σw)² (CR1) is too small where a few documents are
    long: it rejects 9% of true nulls, not 5%, with 60 documents of lognormal length (σ = 1.2). Where lengths are equal
    both are the standard error of a mean.

    `nats` are sums over a document's tokens. Raises UserError for fewer than MINIMUM_DOCUMENTS documents, for values
    that are not finite, for documents without tokens, and where all documents have exactly the same mean, not 0, unless
    that is no surprise (`constant`): a model whose stream is zeroed says the same of every text.
    """
    check_documents(nats, tokens)
    count, total = len(nats), float(tokens.sum())
    value = float(nats.sum()) / total
    residuals = nats - value * tokens
    if not nats.any():
        return Estimate(0.0, 0.0, count - 1)
    if np.square(residuals).sum() <= 1e-18 * np.square(nats).sum():
        if constant:
            return Estimate(value, 0.0, count - 1)
        raise UserError(f"all {count} documents give the same {value:.6g} nats per token: no spread to judge it by")
    return Estimate(value, sqrt(float((weigh(tokens) * residuals**2).sum())), count - 1)


def difference(arm: Documents, reference: Documents, tokens: Tokens) -> Estimate:
    """Loss of `arm` minus loss of `reference`, paired by document; below 0 the arm is the better one.

    `estimate` of the documents' differences, so what makes a document hard for both arms cancels. Raises as it does.
    """
    return estimate(arm - reference, tokens)


def weigh(tokens: Tokens) -> Documents:
    """What each squared residual counts for in the jackknife's se²: (n-1)/n / (Σw - w_i)²."""
    count = len(tokens)
    others = (tokens.sum() - tokens).astype(np.float64)
    return np.asarray((count - 1) / count / others**2)


def check_documents(nats: Documents, tokens: Tokens) -> None:
    """Raise UserError where these documents allow no test; see `estimate`."""
    if nats.shape != tokens.shape:
        raise ValueError(f"nats of shape {nats.shape}, tokens of shape {tokens.shape}")
    if len(nats) < MINIMUM_DOCUMENTS:
        raise UserError(
            f"{len(nats)} documents are too few for a test: at least {MINIMUM_DOCUMENTS} are needed, "
            f"{MINIMUM_DOCUMENTS - len(nats)} more (corpus.test, corpus.max_documents or sample.documents)"
        )
    if not np.isfinite(nats).all():
        raise UserError(f"document {int(np.argmin(np.isfinite(nats)))} has a loss that is not a finite number")
    if (tokens <= 0).any():
        raise UserError(f"document {int(np.argmax(tokens <= 0))} has no scored tokens")


@dataclass(frozen=True)
class Region:
    """Where two arms are as good as equal: differences smaller than a share of the gap, on the same documents."""

    gap: Documents
    """The gap's sums of nats, zero less coder."""
    tokens: Tokens
    share: float
    alpha: float

    @cached_property
    def margin(self) -> float:
        """The half-width as measured [nats per token]; 0 where the gap's interval reaches 0: no gap, no share of it."""
        found = estimate(self.gap, self.tokens)
        return self.share * found.value if found.interval(self.alpha).low > 0 else 0.0

    def p_equivalence(self, differences: Documents) -> float:
        """p of "the difference is at least this share of the gap, up or down", the larger of two one-sided t tests.

        Each is a test that a mean is 0, of `differences` + share · gap and of `differences` - share · gap, document by
        document: what Fieller's interval is to a ratio (`recovered`), Schuirmann's tests are here. A margin held fixed
        at its measured size would claim equality too often where the gap itself is uncertain. Arms that are identical
        are equivalent (0); without a gap nothing is (1).
        """
        if not self.margin:
            return 1.0
        if not differences.any():
            return 0.0
        above = estimate(differences + self.share * self.gap, self.tokens)
        below = estimate(differences - self.share * self.gap, self.tokens)
        if above.identical or below.identical:
            return 1.0
        p_above, p_below = stats.t.sf(above.value / above.se, above.df), stats.t.cdf(below.value / below.se, below.df)
        return float(max(p_above, p_below))


@dataclass(frozen=True)
class Recovered:
    """A share of the gap; None where the gap's own interval reaches 0: there is nothing that could be shared out."""

    value: float | None
    interval: Interval | None


def recovered(arm: Documents, zero: Documents, coder: Documents, tokens: Tokens, alpha: float) -> Recovered:
    """(loss of zero - loss of arm) / (loss of zero - loss of coder) with Fieller's interval.

    R = u / v, both paired differences. The interval holds every R that |u - R v| ≤ t · se(u - R v) does not reject:
    Fieller, J. R. Stat. Soc. B 16 (1954) 175, with the variances and the covariance of `estimate`'s residuals. Unlike
    the delta method's it cannot contradict the tests: it holds 0 exactly where the arm's interval against zero does, 1
    exactly where that against the coder does, and it is bounded exactly where the gap's interval leaves out 0. Raises
    as `estimate` does.
    """
    up, down = difference(zero, arm, tokens), difference(zero, coder, tokens)
    if down.interval(alpha).low <= 0:
        return Recovered(None, None)
    value = up.value / down.value
    square = float(stats.t.isf(alpha / 2, down.df)) ** 2
    products = (zero - arm - up.value * tokens) * (zero - coder - down.value * tokens)
    covariance = float((weigh(tokens) * products).sum())
    a = down.value**2 - square * down.se**2
    b = up.value * down.value - square * covariance
    c = up.value**2 - square * up.se**2
    root = sqrt(max(0.0, b * b - a * c))
    return Recovered(value, Interval((b - root) / a, (b + root) / a))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for being several, in the order given: Holm, Scand. J. Stat. 6 (1979) 65.

    The i-th smallest of m is multiplied by m - i + 1, kept from falling below the one before, and cut at 1.
    """
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, highest)
    return adjusted


def benjamini_hochberg(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """p values adjusted so that calling those below q significant is wrong in a share q of the calls, on average.

    The i-th smallest of m is multiplied by m / i and kept from rising above the one after: Benjamini & Hochberg, J. R.
    Stat. Soc. B 57 (1995) 289. For independent tests, and for those positively dependent as Benjamini & Yekutieli, Ann.
    Stat. 29 (2001) 1165, say. A missing p (NaN) stays missing and is not counted.
    """
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(-p_values[known], kind="stable")]
    counts = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(p_values[order] * len(order) / counts))
    return adjusted
