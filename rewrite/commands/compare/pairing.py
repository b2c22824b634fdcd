"""Two runs on the same documents: whether they may be compared, on what scale, and how they differ.

1. Any two that were not scored on the same tokens of the same documents at the same positions are refused, by what
   differs (`check_same`).
2. Where subject, hookpoint, coder and rewritten latents are the same, the difference of the full simulations' losses is
   tested. Where they are not, losses mean different things, and the difference of the shares recovered is
   (`difference_of_shares`).
3. Every pair, with Holm over the pairs, two one-sided tests against the margin, and one of four words
   (`compare_pairs`).

The margin is `analyse.margin` of the gap where losses are compared, and `analyse.margin` itself where shares are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from typing import Any, Literal

import numpy as np

from rewrite.commands.documents import Scored
from rewrite.config import UserError
from rewrite.display.escaping import one_line
from rewrite.run.finished import Finished
from rewrite.statistics import paired as stats
from rewrite.statistics import resampling
from rewrite.statistics.verdict import decide

Measure = Literal["loss", "recovered"]
Row = dict[str, Any]

SAME = 1e-3
"""Losses of the same arm in two runs may differ by this much and be the same, computed in other batches or on another
machine [nats per token of a document]."""

# What decides which positions of a document are scored, named where two runs differ in it.
POSITIONS = ("corpus.window", "corpus.max_windows", "sample.windows", "sample.positions", "sample.seed")

RESULTS = ("delta", "ci", "ci_bootstrap_t", "p", "p_holm", "margin", "p_equivalence", "mde", "verdict")


@dataclass(frozen=True)
class Side:
    """One run of several: what was scored and the losses that two runs are compared by."""

    run: Finished
    alpha: float
    fraction: float
    """Share of the latents that the full simulation simulates."""
    judged: bool
    """The run has a verdict: not too many of its predictions are missing."""
    scored: tuple[Scored, ...]
    tokens: stats.Tokens
    losses: dict[str, stats.Documents]
    """Of the arms clean, coder, zero and simulated, summed over each document's tokens."""
    coder: str
    """Hash of the coder."""
    rewritten: tuple[int, ...]
    """The latents that are rewritten."""

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def margin(self) -> float:
        """Half-width of the equivalence region [share of the gap]."""
        return float(self.run.setting("analyse.margin", 0.05))

    @property
    def gap(self) -> stats.Estimate:
        """Loss of zero less loss of coder."""
        return stats.difference(self.losses["zero"], self.losses["coder"], self.tokens)


def check_same(one: Side, other: Side) -> None:
    """Raise UserError, naming both runs and what differs, unless they were scored on the same tokens alike."""
    names = f"{one.name} and {other.name}"
    mine, yours = ([document.name for document in side.scored] for side in (one, other))
    if mine != yours:
        shared = len(set(mine) & set(yours))
        raise UserError(
            f"{names}: scored on different documents ({len(mine)} and {len(yours)}, {shared} of them in both); "
            "run both with the same corpus, corpus.seed and sample.documents"
        )
    if _corpus(one) != _corpus(other):
        raise UserError(
            f"{names}: the corpora differ (sha256 {_corpus(one)[:12] or 'none'} and {_corpus(other)[:12] or 'none'}); "
            "run both with the same corpus"
        )
    for left, right, count, other_count in zip(one.scored, other.scored, one.tokens, other.tokens, strict=True):
        if left.sha256 != right.sha256 or count != other_count:
            raise UserError(
                f"{names}: scored on different tokens or positions, first in document {one_line(left.name)} "
                f"({count} and {other_count} tokens): {_differing_positions(one, other)}"
            )
    for key, values in {
        "analyse.alpha": (one.alpha, other.alpha),
        "analyse.margin": (one.margin, other.margin),
        "the largest of evaluate.fractions": (one.fraction, other.fraction),
    }.items():
        if values[0] != values[1]:
            raise UserError(f"{names}: {key} is {values[0]} and {values[1]}; run both with the same")


def _corpus(side: Side) -> str:
    return str(side.run.manifest.get("corpus", {}).get("sha256", ""))


def _differing_positions(one: Side, other: Side) -> str:
    pairs = {key: (one.run.setting(key), other.run.setting(key)) for key in POSITIONS}
    found = [f"{key} is {left} and {right}" for key, (left, right) in pairs.items() if left != right]
    return "; ".join(found) or "the subjects' tokenizers differ"


@dataclass(frozen=True)
class Difference:
    """A pair's difference, first less second, and the margin on its scale; without an estimate `why` says why."""

    measure: Measure
    estimate: stats.Estimate | None
    margin: float
    why: str = ""
    student: stats.Interval | None = None
    """Bootstrap-t interval of a difference of losses, for skewed documents."""
    differences: stats.Documents | None = None
    """Of losses: each document's."""
    caution: str = ""
    """Where the test of it is known to miss its level."""
    region: stats.Region | None = None
    """Of losses: what is equivalent, a share of a gap that is estimated too."""

    def p_equivalence(self, estimate: stats.Estimate) -> float:
        """p of "the difference lies outside the margin"."""
        if self.region is None or self.differences is None or not self.margin:
            return estimate.p_equivalence(self.margin)
        return self.region.p_equivalence(self.differences)


def compare_pairs(sides: Sequence[Side], alpha: float) -> list[Row]:
    """A row for every pair. A pair that cannot be compared has None for every result, and `why`."""
    pairs = list(combinations(sides, 2))
    found = [compare_two(one, other, alpha) for one, other in pairs]
    adjusted = iter(stats.holm([pair.estimate.p_value() for pair in found if pair.estimate]))
    rows: list[Row] = []
    for (one, other), pair in zip(pairs, found, strict=True):
        row: Row = {"a": one.name, "b": other.name, "measure": pair.measure, "why": pair.why, "caution": pair.caution}
        results = _judge(pair, pair.estimate, next(adjusted), alpha) if pair.estimate else dict.fromkeys(RESULTS)
        lost = [side.name for side in (one, other) if not side.judged]
        if lost:
            results["verdict"] = None
            row["why"] = f"too many predictions are missing in {' and '.join(lost)}"
        rows.append(row | results)
    return rows


def _judge(pair: Difference, estimate: stats.Estimate, p_holm: float, alpha: float) -> Row:
    interval, p_equivalence = estimate.interval(alpha), pair.p_equivalence(estimate)
    # Less loss is better, and more recovered.
    worse = estimate.value if pair.measure == "loss" else -estimate.value
    values = (
        estimate.value,
        [interval.low, interval.high],
        [pair.student.low, pair.student.high] if pair.student else None,
        estimate.p_value(),
        p_holm,
        pair.margin,
        p_equivalence,
        estimate.detectable(alpha),
        decide(worse, p_holm, p_equivalence, alpha),
    )
    return dict(zip(RESULTS, values, strict=True))


def compare_two(one: Side, other: Side, alpha: float) -> Difference:
    """The difference of two runs' full simulations, on the scale on which they can be compared."""
    differing = find_difference(one, other)
    try:
        untold = [side.name for side in (one, other) if side.gap.interval(alpha).low <= 0]
        if not differing:
            return _difference_of_losses(one, other, alpha, told=not untold)
        if untold:
            why = f"{differing} not the same, and the gap of {' and '.join(untold)} is not told from 0"
            return Difference("recovered", None, one.margin, why)
        estimate, caution = difference_of_shares(one, other), _caution_of_shares(one, other)
        return Difference("recovered", estimate, one.margin, f"{differing} not the same", caution=caution)
    except UserError as error:
        raise UserError(f"{one.name} against {other.name}: {error}") from None


def _difference_of_losses(one: Side, other: Side, alpha: float, told: bool) -> Difference:
    """`told` says that both gaps are told from 0; without a gap nothing is equivalent."""
    mine, yours, tokens = one.losses["simulated"], other.losses["simulated"], one.tokens
    resamples, seed = one.run.setting("analyse.resamples", 10_000), one.run.setting("analyse.seed", 0)
    student = resampling.bootstrap_t(mine - yours, tokens, alpha, resamples, seed)
    estimate, caution = stats.difference(mine, yours, tokens), resampling.caution(mine - yours, tokens)
    region = stats.Region(one.losses["zero"] - one.losses["coder"], tokens, one.margin, alpha)
    margin = region.margin if told else 0.0
    return Difference("loss", estimate, margin, "", student, mine - yours, caution, region)


def find_difference(one: Side, other: Side) -> str:
    """What makes two runs' losses incomparable, with its verb, or nothing.

    The subject is known by what it does: the same losses where nothing is written.
    """
    if one.run.setting("hookpoint") != other.run.setting("hookpoint"):
        return "the hookpoint is"
    if _apart(one, other, "clean"):
        return "the subject's own losses are"
    if one.coder != other.coder:
        return "the coder is"
    if one.rewritten != other.rewritten:
        return "the latents that are rewritten are"
    return next((f"the losses of {arm} are" for arm in ("coder", "zero") if _apart(one, other, arm)), "")


def _apart(one: Side, other: Side, arm: str) -> bool:
    """Whether an arm that both runs should share has other losses in one of them."""
    return bool((np.abs(one.losses[arm] - other.losses[arm]) > SAME * one.tokens).any())


def difference_of_shares(one: Side, other: Side) -> stats.Estimate:
    """Share recovered by the first less that of the second, with the jackknife's standard error over documents.

    Each share is a ratio of sums over documents, (zero - simulated) / (zero - coder), so leaving out a document moves
    both, and what makes a document easy for both cancels: se² = (n-1)/n Σ (D_i - D)², D_i without document i; Efron &
    Tibshirani, An Introduction to the Bootstrap (1993) ch. 11. With one gap in proportion to the tokens it is
    `rewrite.statistics.paired.difference` over that gap. Raises UserError where all documents agree on a share that is
    not 0.
    """
    (value, left_out), (other_value, other_left_out) = _shares(one), _shares(other)
    value, left_out = value - other_value, left_out - other_left_out
    size = len(left_out)
    if not np.any(left_out):
        return stats.Estimate(0.0, 0.0, size - 1)
    se = sqrt((size - 1) / size * float(np.square(left_out - value).sum()))
    if se <= 1e-9 * abs(value):
        raise UserError(f"all {size} documents give the same difference {value:.6g}: no spread to judge it by")
    return stats.Estimate(value, se, size - 1)


def _caution_of_shares(one: Side, other: Side) -> str:
    """As `rewrite.statistics.resampling.caution`, of what each document adds to the difference of the shares."""
    added = np.zeros(len(one.tokens))
    for side, sign in ((one, 1), (other, -1)):
        down = side.losses["zero"] - side.losses["coder"]
        up = side.losses["zero"] - side.losses["simulated"]
        added += sign * (up - up.sum() / down.sum() * down) / down.sum()
    skewed = resampling.caution(added, one.tokens) if np.abs(added).max() > 1e-12 else ""
    return "The documents' shares are skewed, so the t test may be wrong more often than it says." if skewed else ""


def _shares(side: Side) -> tuple[float, stats.Documents]:
    """The share recovered over all documents, and without each of them."""
    up = side.losses["zero"] - side.losses["simulated"]
    down = side.losses["zero"] - side.losses["coder"]
    without: stats.Documents = (up.sum() - up) / (down.sum() - down)
    return float(up.sum() / down.sum()), without


def hash_coder(run: Finished) -> str:
    """SHA-256 of the coder's weights and settings, not of the metrics beside them, which hold what training took."""
    digest = hashlib.sha256()
    files = sorted(p for p in run.path("1_coder").rglob("*") if p.is_file() and p.name != "metrics.json")
    for file in files:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
