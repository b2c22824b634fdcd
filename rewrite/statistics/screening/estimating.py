"""Counts by document → what a screen misses (see the package)."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy import stats

from rewrite.arms.controls import AUDITED
from rewrite.statistics import paired
from rewrite.statistics.losses import Losses
from rewrite.statistics.screening.measuring import COUNTS

Row = dict[str, Any]


def estimate_total(
    found: Int[np.ndarray, " audited"], documents: int, alpha: float, most: int
) -> tuple[float, tuple[float, float] | None]:
    """What all `documents` hold, from the counts of those that were drawn, and its interval; `most` is what there may
    be in those that were not drawn. See the package, 3."""
    drawn, seen = len(found), int(found.sum())
    if drawn == documents:
        return float(seen), (float(seen), float(seen))
    total = documents / drawn * seen if drawn else float("nan")
    if drawn < 2 or not seen:
        return total, None
    se = documents * sqrt((1 - drawn / documents) * float(found.var(ddof=1)) / drawn)
    half = float(stats.t.isf(alpha / 2, drawn - 1)) * se
    return total, (max(total - half, float(seen)), min(total + half, float(seen + most)))


def describe_screen(measured: Row, losses: Losses | None, alpha: float) -> Row:
    """`screen` of 6_stats.json: counts over the simulated documents, and what the screen misses."""
    counts = {column: np.array(measured[column], dtype=np.int64) for column in COUNTS}
    full = np.array(measured["full"], dtype=bool)
    sums = {column: int(values.sum()) for column, values in counts.items()}
    most = int((counts["pairs"] - counts["passed"])[~full].sum())
    held = {"hits": counts["heard_truly"], "false": counts["heard"] - counts["heard_truly"], "all": counts["heard"]}
    missed: dict[str, Row] = {}
    for name, found in held.items():
        total, ends = estimate_total(found[full], len(full), alpha, most)
        missed[name] = {"firings": _finite(total), "ci": ends and list(ends), "seen": int(found.sum())}
    said = sums["said"]
    total, ends = missed["all"]["firings"], missed["all"]["ci"]
    share = None if total is None or not said + total else total / (said + total)
    return {
        "by": measured["by"],
        **{column: sums[column] for column in ("pairs", "passed", "audited", "failed")},
        "documents": len(full),
        "full": int(full.sum()),
        "said": {"hits": sums["said_truly"], "false": said - sums["said_truly"]},
        "missed": missed | {"share": {"value": share, "ci": ends and [end / max(said + end, 1) for end in ends]}},
        "true": {"firings": sums["true"], "held": sums["true"] - sums["true_passed"]},
        "loss": _describe_loss(losses, alpha),
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _describe_loss(losses: Losses | None, alpha: float) -> Row | None:
    """What asking in full changed; None with too few documents to say."""
    if losses is None or len(losses.documents) < paired.MINIMUM_DOCUMENTS:
        return None
    by_screen, in_full = (losses.find(arm) for arm in AUDITED)
    changed = paired.difference(in_full, by_screen, losses.tokens)
    ends = changed.interval(alpha)
    return {
        "nats": changed.value,
        "ci": [ends.low, ends.high],
        "documents": len(losses.documents),
        "tokens": int(losses.tokens.sum()),
    }
