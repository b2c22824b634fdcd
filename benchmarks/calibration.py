"""How often the tests are wrong and the intervals cover, where the truth is known.

python -m benchmarks.calibration [repeats]

1. A cell: a distribution of losses, 30 or 200 documents, an intraclass correlation, equal or unequal lengths. A token's
   difference of losses is √icc · (its document's draw) + √(1 - icc) · (its own draw), both of the named distribution,
   of mean 0 and variance 1; lengths are 100 tokens, or 20 and a gamma with a long tail, 110 on average.
2. The functions of the package, not copies of them, judge every repeat: what is true by construction is either found or
   missed. Skewness is what one arm has over the other; losses that are skewed alike in both cancel.
3. A rate outside its target is a miss (!), and the table says so. For TOST and ratio, whose rate is 5% in the long run
   where all is well, outside is two binomial standard errors above.

Shares: a gap of .5 nats per token, of which the arm recovers .6. TOST: the worse of the two edges of a margin of four
standard errors, known beforehand; ratio: the same margin as a share of the gap, which the same documents tell (what a
verdict does). Power: where `rewrite.statistics.power` says 80%, with the true spread; of the two signs of the effect,
the one further from 80%. `warned`: the share of repeats in which `resampling.caution` speaks; `t silent` and `TOST
silent`: the share in which the test is wrong and nothing is said.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import sqrt

import numpy as np

from rewrite.statistics import paired as stats
from rewrite.statistics import resampling
from rewrite.statistics.power import noncentrality

ALPHA = 0.05
REPEATS = 2000
RESAMPLES = 999
SHARE, GAP = 0.6, 0.5
POWER = 0.8
AT_ONCE = 4_000_000  # tokens drawn at once


@dataclass(frozen=True)
class Cell:
    kind: str
    documents: int
    icc: float
    lengths: str

    def draw_tokens(self, rng: np.random.Generator, repeats: int) -> np.ndarray:
        """Lengths of every repeat's documents [tokens]."""
        shape = (repeats, self.documents)
        return np.full(shape, 100) if self.lengths == "equal" else 20 + rng.gamma(1.5, 60, shape).astype(np.int64)

    def draw_nats(self, rng: np.random.Generator, tokens: np.ndarray) -> np.ndarray:
        """Sums over documents of differences whose mean is 0."""
        parts = []
        rows = max(1, AT_ONCE // int(tokens.sum(axis=1).max()))
        for begin in range(0, len(tokens), rows):
            lengths = tokens[begin : begin + rows].ravel()
            starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
            sums = np.add.reduceat(_draw(rng, self.kind, int(lengths.sum())), starts, dtype=np.float64)
            whole = lengths * _draw(rng, self.kind, len(lengths)) * sqrt(self.icc)
            parts.append((whole + sqrt(1 - self.icc) * sums).reshape(-1, self.documents))
        return np.concatenate(parts)

    def error(self, tokens: np.ndarray) -> np.ndarray:
        """True standard error of every repeat's mean per token, given its documents' lengths."""
        variance = np.square(tokens) * self.icc + tokens * (1 - self.icc)
        return np.asarray(np.sqrt(variance.sum(axis=1)) / tokens.sum(axis=1))


def _draw(rng: np.random.Generator, kind: str, count: int) -> np.ndarray:
    """Draws of mean 0 and variance 1."""
    if kind == "normal":
        return rng.standard_normal(count, dtype=np.float32)
    if kind == "t3":
        return rng.standard_t(3, count) / sqrt(3)
    skewed = np.exp(rng.standard_normal(count, dtype=np.float32))
    return np.asarray((skewed - np.exp(0.5)) / sqrt((np.e - 1) * np.e))


CELLS = [Cell(*of) for of in product(("normal", "t3", "lognormal"), (30, 200), (0.0, 0.05), ("equal", "unequal"))]


@dataclass(frozen=True)
class Judged:
    """What one repeat said; each is what its target is about."""

    rejected: bool
    flipped: bool
    mean: list[bool]  # covered by t, bootstrap-t
    share: bool  # covered by Fieller's
    equivalent: tuple[bool, bool]
    within: tuple[bool, bool]  # the share of the gap
    found: tuple[bool, bool]
    warned: bool


def judge(nats: np.ndarray, other: np.ndarray, tokens: np.ndarray, error: float, seed: int) -> Judged:
    """One repeat: differences of mean 0, and others that make a gap and an arm within it."""
    found = stats.estimate(nats, tokens)
    student = resampling.bootstrap_t(nats, tokens, ALPHA, RESAMPLES, seed)
    coder = np.zeros(len(tokens))
    zero = coder + nats + GAP * tokens
    arm = coder + other + (1 - SHARE) * (zero - coder)
    fieller = stats.recovered(arm, zero, coder, tokens, ALPHA).interval
    margin = 4 * error
    region = stats.Region(other + GAP * tokens, tokens, margin / GAP, ALPHA)
    effect = noncentrality(found.df, ALPHA, POWER) * error
    return Judged(
        rejected=found.p_value() < ALPHA,
        flipped=bool(resampling.sign_flip(nats[None], tokens, RESAMPLES, seed)[0] < ALPHA),
        mean=[_covers(one, 0.0) for one in (found.interval(ALPHA), student)],
        share=_covers(fieller, SHARE),
        equivalent=(
            stats.estimate(nats + margin * tokens, tokens).p_equivalence(margin) < ALPHA,
            stats.estimate(nats - margin * tokens, tokens).p_equivalence(margin) < ALPHA,
        ),
        within=(
            region.p_equivalence(nats + margin * tokens) < ALPHA,
            region.p_equivalence(nats - margin * tokens) < ALPHA,
        ),
        found=(
            stats.estimate(nats + effect * tokens, tokens).p_value() < ALPHA,
            stats.estimate(nats - effect * tokens, tokens).p_value() < ALPHA,
        ),
        warned=resampling.caution(nats, tokens) != "",
    )


def _covers(interval: stats.Interval | None, truth: float) -> bool:
    """An interval without bounds covers everything."""
    return interval is None or truth in interval


# Column, its target.
COLUMNS = {
    "t": (0.035, 0.065),
    "flip": (0.035, 0.065),
    "mean t": (0.93, 0.97),
    "boot-t": (0.93, 0.97),
    "share Fieller": (0.93, 0.97),
    "TOST": (0.0, 0.05),
    "ratio": (0.0, 0.05),
    "power": (POWER - 0.05, POWER + 0.05),
}


def measure(cell: Cell, repeats: int, seed: int) -> dict[str, float]:
    """The rates of one cell, in the order of `COLUMNS`, and the share of repeats in which the package warns."""
    rng = np.random.default_rng([20, seed])
    tokens = cell.draw_tokens(rng, repeats)
    nats, other, error = cell.draw_nats(rng, tokens), cell.draw_nats(rng, tokens), cell.error(tokens)
    every = [judge(nats[i], other[i], tokens[i], float(error[i]), i) for i in range(repeats)]
    powers = np.mean([one.found for one in every], axis=0)
    equivalent = np.array([one.equivalent for one in every])
    silent = np.array([not one.warned for one in every])
    rates = [
        np.mean([one.rejected for one in every]),
        np.mean([one.flipped for one in every]),
        *np.mean([one.mean for one in every], axis=0),
        np.mean([one.share for one in every]),
        equivalent.mean(axis=0).max(),
        np.mean([one.within for one in every], axis=0).max(),
        powers[np.abs(powers - POWER).argmax()],
        np.mean([one.warned for one in every]),
        np.mean([one.rejected for one in every] & silent),
        (equivalent & silent[:, None]).mean(axis=0).max(),
    ]
    return dict(zip([*COLUMNS, "warned", "t silent", "TOST silent"], map(float, rates), strict=True))


def is_missed(column: str, rate: float, repeats: int) -> bool:
    """Whether a rate is outside its target."""
    low, high = COLUMNS[column]
    slack = 2 * sqrt(high * (1 - high) / repeats) if column in ("TOST", "ratio") else 0.0
    return not low <= rate <= high + slack


def bench(repeats: int = REPEATS) -> Iterator[str]:
    """A table, a row a cell; then how many cells meet each column's target."""
    began = time.perf_counter()
    yield f"{repeats:,} repeats a cell, {RESAMPLES} resamples each; ! misses its target"
    yield "targets: " + "; ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in COLUMNS.items())
    yield " | ".join([f"{'cell':32}", *(column.ljust(6) for column in COLUMNS), "warned", "t silent", "TOST silent"])
    met = dict.fromkeys(COLUMNS, 0)
    for seed, cell in enumerate(CELLS):
        name = f"{cell.kind} n={cell.documents} icc={cell.icc:g} {cell.lengths}"
        rates = measure(cell, repeats, seed)
        texts = []
        for column in COLUMNS:
            wrong = is_missed(column, rates[column], repeats)
            met[column] += not wrong
            texts.append((f"{rates[column]:.3f}" + "!" * wrong).ljust(max(6, len(column))))
        texts += [f"{rates[column]:.3f}".ljust(len(column)) for column in ("warned", "t silent", "TOST silent")]
        yield " | ".join([f"{name:32}", *texts]).rstrip()
    yield f"cells of {len(CELLS)} that meet the target: " + ", ".join(f"{name} {count}" for name, count in met.items())
    yield f"{time.perf_counter() - began:.0f} s"


if __name__ == "__main__":
    for line in bench(int(sys.argv[1]) if len(sys.argv) > 1 else REPEATS):
        print(line, flush=True)
