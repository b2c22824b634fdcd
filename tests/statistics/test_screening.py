"""What a screen misses, estimated where the truth is planted: unbiased, and covered as often as is said."""

from __future__ import annotations

import numpy as np
import pytest

from rewrite.statistics.losses import Key, Losses
from rewrite.statistics.screening.estimating import describe_screen, estimate_total
from rewrite.statistics.screening.measuring import COUNTS

ALPHA = 0.05


def planted(kind: str, documents: int) -> np.ndarray:
    """How many firings the screen misses in each document."""
    generator = np.random.default_rng(7)
    if kind == "even":
        return generator.poisson(20, documents)
    lengths = generator.lognormal(0, 0.6, documents)  # of documents that differ in length
    return generator.poisson(12 * lengths)


@pytest.mark.parametrize("kind", ["even", "uneven"])
@pytest.mark.parametrize(("documents", "drawn"), [(60, 8), (60, 20), (500, 50)])
def test_the_estimate_is_unbiased_and_the_interval_covers_the_planted_truth(
    kind: str, documents: int, drawn: int
) -> None:
    missed, seeds = planted(kind, documents), 4000
    truth, totals, covered = int(missed.sum()), [], 0
    for seed in range(seeds):
        chosen = np.random.default_rng([seed, drawn]).permutation(documents)[:drawn]
        total, ends = estimate_total(missed[chosen], documents, ALPHA, 10**6)
        assert ends is not None
        totals.append(total)
        covered += ends[0] <= truth <= ends[1]
    error = np.std(totals) / np.sqrt(seeds)
    assert abs(np.mean(totals) - truth) < 4 * error
    # 95% is said. Skewed counts in eight documents cost a little, as of any Student interval.
    assert (0.925 if (kind, drawn) == ("uneven", 8) else 0.94) < covered / seeds < 0.965


def test_what_was_seen_and_what_there_is_bound_the_interval() -> None:
    total, ends = estimate_total(np.array([0, 9]), 4, ALPHA, 3)
    assert total == 18 and ends == (9.0, 12.0)


def test_a_whole_audit_is_the_truth() -> None:
    assert estimate_total(np.array([1, 2, 3]), 3, ALPHA, 0) == (6.0, (6.0, 6.0))
    assert estimate_total(np.array([0, 0]), 2, ALPHA, 0) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize("found", [[0, 0, 0], [5]])
def test_no_spread_is_no_interval(found: list[int]) -> None:
    total, ends = estimate_total(np.array(found), 30, ALPHA, 100)
    assert ends is None and total == 30 / len(found) * sum(found)


def measured(full: list[bool], **counts: list[int]) -> dict[str, object]:
    documents = len(full)
    columns = {name: counts.get(name, [0] * documents) for name in COUNTS}
    return {"by": "patterns", "documents": list(range(documents)), "full": full} | columns


def test_shares_are_of_all_that_the_simulator_says() -> None:
    told = describe_screen(
        measured(
            [True, False, True, False],
            pairs=[100] * 4,
            passed=[10, 20, 30, 40],
            audited=[90, 0, 70, 0],
            true=[5, 5, 5, 5],
            true_passed=[4, 4, 5, 5],
            said=[8, 8, 8, 8],
            said_truly=[4, 4, 4, 4],
            heard=[3, 0, 5, 0],
            heard_truly=[1, 0, 2, 0],
        ),
        None,
        ALPHA,
    )
    assert (told["pairs"], told["passed"], told["audited"], told["documents"], told["full"]) == (400, 100, 160, 4, 2)
    assert told["said"] == {"hits": 16, "false": 16} and told["true"] == {"firings": 20, "held": 2}
    assert [told["missed"][name]["firings"] for name in ("hits", "false", "all")] == [6, 10, 16]  # 4 / 2 · what is seen
    assert [told["missed"][name]["seen"] for name in ("hits", "false", "all")] == [3, 5, 8]
    assert told["missed"]["share"]["value"] == pytest.approx(16 / (32 + 16))
    low, high = told["missed"]["all"]["ci"]
    assert told["missed"]["share"]["ci"] == pytest.approx([low / (32 + low), high / (32 + high)])
    assert told["loss"] is None


def test_the_loss_is_what_asking_in_full_adds() -> None:
    tokens = np.full(8, 10)
    base = np.arange(8.0)
    added = np.array([1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0])
    arms = {"asked_by_screen": base, "asked_in_full": base + added}
    losses = Losses(tuple(range(8)), tokens, {Key(name, None, "", 0): nats for name, nats in arms.items()}, {})
    told = describe_screen(measured([True] * 8), losses, ALPHA)["loss"]
    assert told["nats"] == pytest.approx(0.15) and told["ci"][0] < 0.15 < told["ci"][1]
    assert (told["documents"], told["tokens"]) == (8, 80)
