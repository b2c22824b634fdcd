"""Steps of nats → what each part of the way carries, with intervals by document.

A step is stated as the mean of its two orders (`rewrite.arms.circuits.mediation`), with the interval of that mean over
documents, and beside it each order's own value. A share is the step's part of the whole difference, with Fieller's
interval (`rewrite.statistics.paired.recovered`); None where the difference itself is not told from 0: there is nothing
to share out. Sums over layers, and over kinds of parts, are taken within each document before anything else.

Heads are tested by each bound against 0, adjusted by Holm over all heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from rewrite.statistics.paired import MINIMUM_DOCUMENTS, Documents, Tokens, difference, estimate, holm, recovered

Row = dict[str, Any]
Steps = Float[np.ndarray, "step document"]

KINDS = ("direct", "values", "pattern", "attention", "mlp", "block")
"""The kinds of steps, as they are listed."""


def describe_way(
    losses: Mapping[str, Documents],
    steps: Mapping[tuple[str, str], Steps],
    names: Sequence[tuple[int, str]],
    tokens: Tokens,
    alpha: float,
) -> list[Row]:
    """For each arm the whole difference to `coder`, its steps, and their sums by kind and by layer.

    `losses` are sums of nats by arm, `steps` by arm and order, `names` the layer and kind of each step. `error` is by
    how much the steps of an order fail to add up to the difference between two runs of their own, in the document where
    they fail most [nats per token].
    """
    rows = []
    for arm in dict.fromkeys(arm for arm, _ in steps):
        both = [steps[arm, order] for order in ("forward", "backward")]
        whole = losses[arm] - losses["coder"]
        total = difference(losses[arm], losses["coder"], tokens)
        interval = total.interval(alpha)
        groups: dict[str, list[tuple[Row, list[int]]]] = {
            "steps": [({"layer": layer, "kind": kind}, [n]) for n, (layer, kind) in enumerate(names)],
            "kinds": _group("kind", [kind for _, kind in names], KINDS),
            "layers": _group("layer", [layer for layer, _ in names], sorted({layer for layer, _ in names})),
        }
        row: Row = {
            "arm": arm,
            "nats": total.value,
            "ci": [interval.low, interval.high],
            "error": max(float(np.abs((part.sum(0) - whole) / tokens).max()) for part in both),
        }
        for group, members in groups.items():
            row[group] = [
                name | _describe([part[chosen].sum(0) for part in both], losses, arm, tokens, alpha)
                for name, chosen in members
            ]
        rows.append(row)
    return rows


def _group(name: str, of: Sequence[Any], order: Sequence[Any]) -> list[tuple[Row, list[int]]]:
    members = {value: [n for n, own in enumerate(of) if own == value] for value in order}
    return [({name: value}, chosen) for value, chosen in members.items() if chosen]


def _describe(both: list[Documents], losses: Mapping[str, Documents], arm: str, tokens: Tokens, alpha: float) -> Row:
    nats: Documents = np.mean(both, axis=0)
    found = estimate(nats, tokens)
    interval = found.interval(alpha)
    share = recovered(losses[arm] - nats, losses[arm], losses["coder"], tokens, alpha)
    ends = [share.interval.low, share.interval.high] if share.interval else None
    forward, backward = (float(part.sum() / tokens.sum()) for part in both)
    return {
        "nats": found.value,
        "ci": [interval.low, interval.high],
        "forward": forward,
        "backward": backward,
        "share": share.value,
        "share_ci": ends,
    }


def describe_heads(nats: Float[np.ndarray, "bound head document"], tokens: Tokens, alpha: float) -> list[list[Row]]:
    """What each head carries by each bound [nats per token], with p and Holm's over all heads of a bound."""
    known = ~np.isnan(nats).any((0, 1))
    rows = []
    for bound in nats:
        found = [estimate(head[known], tokens[known]) for head in bound]
        p = [one.p_value() for one in found]
        adjusted = holm(p)
        rows.append(
            [
                {"nats": one.value, "ci": [one.interval(alpha).low, one.interval(alpha).high], "p": p[n], "p_holm": h}
                for n, (one, h) in enumerate(zip(found, adjusted, strict=True))
            ]
        )
    return rows


def describe_scores(
    paid: Float[np.ndarray, "arm head document"], counts: Int[np.ndarray, " document"], alpha: float
) -> list[list[Row]]:
    """Mean attention of each head under each arm, and its change against the first arm, with interval and Holm's p."""
    known = counts > 0
    if known.sum() < MINIMUM_DOCUMENTS:
        return []
    tokens = counts[known]
    means = [[float(head[known].sum() / tokens.sum()) for head in arm] for arm in paid]
    rows: list[list[Row]] = [[{"value": value} for value in means[0]]]
    for arm in range(1, len(paid)):
        found = [difference(a[known], b[known], tokens) for a, b in zip(paid[arm], paid[0], strict=True)]
        adjusted = holm([one.p_value() for one in found])
        rows.append(
            [
                {"value": value, "change": one.value, "ci": _ends(one, alpha), "p_holm": p}
                for value, one, p in zip(means[arm], found, adjusted, strict=True)
            ]
        )
    return rows


def describe_closed(
    tokens: Tokens,
    coder: Documents,
    own: Float[np.ndarray, "rank document"],
    random: Float[np.ndarray, "rank draw document"],
    alpha: float,
) -> list[Row]:
    """What each channel costs to lose, what random ones of its rank do, and how many of them cost less.

    The difference to the random ones' mean has an interval by document and Holm's p over ranks; that the random
    channels are a few of many is not in it, so the number of those below stands beside it.
    """
    rows, p = list[Row](), list[float]()
    for mine, theirs in zip(own, random, strict=True):
        costs = [float((nats - coder).sum() / tokens.sum()) for nats in (mine, *theirs)]
        found = difference(mine, theirs.mean(0), tokens)
        p.append(found.p_value())
        below = sum(cost < costs[0] for cost in costs[1:])
        rows.append({"own": costs[0], "random": float(np.mean(costs[1:])), "draws": len(theirs), "below": below})
        rows[-1] |= {"difference": found.value, "ci": _ends(found, alpha)}
    return [row | {"p_holm": adjusted} for row, adjusted in zip(rows, holm(p), strict=True)]


def describe_alike(
    alike: Float[np.ndarray, "arm threshold document"],
    windows: Int[np.ndarray, " document"],
    arms: Sequence[str],
    thresholds: Sequence[float],
    alpha: float,
) -> list[Row]:
    """F1 of each arm's routes against the first arm's, which is left out, the mean over windows with its interval."""
    rows = []
    for arm, name in list(enumerate(arms))[1:]:
        for number, threshold in enumerate(thresholds):
            f1 = alike[arm, number]
            # Routes that are all the same have no spread, and need none.
            same = bool(np.ptp(f1 / windows) == 0)
            found = None if same else estimate(f1, windows)
            rows.append(
                {
                    "arm": name,
                    "threshold": threshold,
                    "f1": float(f1.sum() / windows.sum()),
                    "ci": _ends(found, alpha) if found else None,
                }
            )
    return rows


def describe_terms(
    losses: Mapping[str, Float[np.ndarray, "order document"]], arm: str, tokens: Tokens, alpha: float
) -> list[Row]:
    """Of an arm by order (`rewrite.arms.circuits.terms`), None for the run that cuts nothing: loss [nats per token],
    what paths of this order are worth beyond those of fewer, and what the arm loses against `coder` at this order; the
    last two with intervals by document."""
    rows = list[Row]()
    own, coder = losses[arm], losses["coder"]
    for number, nats in enumerate(own):
        last = number == len(own) - 1
        row: Row = {"arm": arm, "order": None if last else number, "nats": float(nats.sum() / tokens.sum())}
        compared = {"worth": (own[number - 1], nats) if number else None}
        compared["lost"] = (nats, coder[number]) if arm not in ("coder", "model") else None
        for name, pair in compared.items():
            # Runs may be the same, and then nothing is to be said.
            found = difference(*pair, tokens) if pair and (pair[0] != pair[1]).any() else None
            row |= {name: found.value if found else None, f"{name}_ci": _ends(found, alpha) if found else None}
        rows.append(row)
    return rows


def describe_task(
    right: Mapping[str, Bool[np.ndarray, " item"]], margin: Mapping[str, Float[np.ndarray, " item"]], alpha: float
) -> list[Row]:
    """Accuracy under each arm with Wilson's interval, the mean margin [nats], and McNemar's exact p, adjusted by Holm,
    of "as many items are right under this arm as under `coder`"."""
    rows, p, count = list[Row](), list[float](), len(right["coder"])
    for arm, own in right.items():
        hits, gained, lost = int(own.sum()), int((own & ~right["coder"]).sum()), int((~own & right["coder"]).sum())
        interval = stats.binomtest(hits, count).proportion_ci(1 - alpha, "wilson")
        rows.append({"arm": arm, "accuracy": hits / count, "ci": [interval.low, interval.high]})
        rows[-1] |= {"margin": float(margin[arm].mean()), "gained": gained, "lost": lost}
        p.append(float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0)
    others = [number for number, arm in enumerate(right) if arm != "coder"]
    adjusted = holm([p[number] for number in others])
    for number, one in zip(others, adjusted, strict=True):
        rows[number]["p_holm"] = one
    return rows


def _ends(found: Any, alpha: float) -> list[float]:
    interval = found.interval(alpha)
    return [interval.low, interval.high]
