"""Steps add up, in nats and in shares, however they are grouped; heads and scores are tested by document."""

from __future__ import annotations

import numpy as np
import pytest

from rewrite.statistics.mediation import (
    describe_alike,
    describe_closed,
    describe_heads,
    describe_scores,
    describe_terms,
    describe_way,
)

NAMES = [(2, "direct"), (3, "values"), (3, "pattern"), (3, "mlp"), (4, "values"), (4, "pattern"), (4, "mlp")]
TOKENS = np.array([40, 55, 60, 30, 80, 45, 50, 65, 70, 35, 20, 90])


def made(scale: float = 0.02) -> tuple[dict, dict]:
    rng = np.random.default_rng(0)
    documents = len(TOKENS)
    forward = (scale * np.arange(1, 8)[:, None] + 0.01 * rng.normal(size=(7, documents))) * TOKENS
    backward = rng.permuted(forward, axis=0)
    coder = (2 + 0.3 * rng.normal(size=documents)) * TOKENS
    losses = {"coder": coder, "simulated": coder + forward.sum(0)}
    return losses, {("simulated", "forward"): forward, ("simulated", "backward"): backward}


def test_steps_add_up_in_every_grouping() -> None:
    losses, steps = made()
    (row,) = describe_way(losses, steps, NAMES, TOKENS, 0.05)
    whole = (losses["simulated"] - losses["coder"]).sum() / TOKENS.sum()
    assert row["nats"] == pytest.approx(whole) and row["error"] < 1e-12
    for group in ("steps", "kinds", "layers"):
        assert sum(one["nats"] for one in row[group]) == pytest.approx(whole)
        assert sum(one["share"] for one in row[group]) == pytest.approx(1)
        for one in row[group]:
            assert one["nats"] == pytest.approx((one["forward"] + one["backward"]) / 2)
            assert one["ci"][0] < one["nats"] < one["ci"][1] and one["share_ci"][0] < one["share"] < one["share_ci"][1]
    assert [one["kind"] for one in row["kinds"]] == ["direct", "values", "pattern", "mlp"]
    assert [one["layer"] for one in row["layers"]] == [2, 3, 4]


def test_what_orders_are_worth_adds_up() -> None:
    rng = np.random.default_rng(3)
    coder = np.stack([(3 - n + 0.2 * rng.random(len(TOKENS))) * TOKENS for n in range(3)])
    losses = {"coder": coder, "simulated": coder + 0.1 * TOKENS * (1 + rng.random(len(TOKENS))), "same": coder}
    rows = {arm: describe_terms(losses, arm, TOKENS, 0.05) for arm in losses}
    for arm, own in rows.items():
        assert [row["order"] for row in own] == [0, 1, None]
        assert own[0]["worth"] is None and own[0]["nats"] == pytest.approx(losses[arm][0].sum() / TOKENS.sum())
        assert own[0]["nats"] - sum(row["worth"] for row in own[1:]) == pytest.approx(own[-1]["nats"])
    assert all(row["lost"] is None for row in rows["coder"])
    assert all(row["lost_ci"][0] < row["lost"] < row["lost_ci"][1] for row in rows["simulated"])
    assert all(row["lost"] is None for row in rows["same"]), "nothing differs: there is no interval to give"


def test_what_does_not_add_up_is_said() -> None:
    losses, steps = made()
    losses["simulated"] = losses["simulated"] + 0.1 * TOKENS
    (row,) = describe_way(losses, steps, NAMES, TOKENS, 0.05)
    assert row["error"] == pytest.approx(0.1)


def test_no_damage_has_no_shares() -> None:
    losses, steps = made(0.0)
    (row,) = describe_way(losses, steps, NAMES, TOKENS, 0.05)
    assert row["ci"][0] < 0 < row["ci"][1]
    assert all(one["share"] is None and one["share_ci"] is None for one in row["steps"])


def test_heads_are_told_from_noise_by_document() -> None:
    rng = np.random.default_rng(1)
    nats = 0.001 * rng.normal(size=(2, 10, len(TOKENS))) * TOKENS
    nats[:, 3] += 0.01 * TOKENS
    nats[..., -2:] = np.nan
    alone, needed = describe_heads(nats, TOKENS, 0.05)
    for rows in (alone, needed):
        assert [number for number, row in enumerate(rows) if row["p_holm"] < 0.05] == [3]
        assert rows[3]["nats"] == pytest.approx(0.01, abs=0.001)
        assert rows[3]["nats"] == pytest.approx(nats[0, 3, :-2].sum() / TOKENS[:-2].sum(), abs=0.001)


def test_changes_of_scores_are_paired() -> None:
    rng = np.random.default_rng(2)
    clean = (0.3 + 0.1 * rng.random((4, len(TOKENS)))) * TOKENS
    paid = np.stack([clean, clean, clean - 0.05 * TOKENS * (1 + 0.1 * rng.normal(size=clean.shape))])
    paid[1, 0] = clean[0]
    first, same, less = describe_scores(paid, TOKENS, 0.05)
    assert first[0] == {"value": pytest.approx(clean[0].sum() / TOKENS.sum())}
    assert same[0]["change"] == 0 and same[0]["p_holm"] == 1
    assert all(row["change"] == pytest.approx(-0.05, abs=0.01) and row["p_holm"] < 1e-6 for row in less)
    assert describe_scores(paid[..., :5], TOKENS[:5], 0.05) == [], "too few documents for any interval"


def test_a_closed_channel_beside_random_ones() -> None:
    rng = np.random.default_rng(3)
    coder = (2 + 0.1 * rng.normal(size=len(TOKENS))) * TOKENS
    noise = 1 + 0.05 * rng.normal(size=(2, 3, len(TOKENS)))
    random = coder + np.array([[0.01, 0.02, 0.05], [0.02, 0.03, 0.04]])[:, :, None] * TOKENS * noise
    own = coder + np.array([[0.03], [0.08]]) * TOKENS
    one, two = describe_closed(TOKENS, coder, own, random, 0.05)
    assert (one["own"], one["random"]) == (pytest.approx(0.03), pytest.approx(0.08 / 3, rel=0.05))
    assert (one["below"], two["below"], two["draws"]) == (2, 3, 3)
    assert two["ci"][0] < two["difference"] < two["ci"][1] and two["p_holm"] < 1e-6


def test_how_alike_routes_are_by_document() -> None:
    rng = np.random.default_rng(4)
    windows = np.full(len(TOKENS), 2)
    alike = np.stack([np.full((2, len(TOKENS)), 2.0), 1 + 0.1 * rng.random((2, len(TOKENS)))])
    first, second = describe_alike(alike, windows, ("clean", "zero"), (0.01, 0.02), 0.05)
    assert (first["arm"], first["threshold"], second["threshold"]) == ("zero", 0.01, 0.02)
    assert (
        first["f1"] == pytest.approx(alike[1, 0].sum() / windows.sum())
        and first["ci"][0] < first["f1"] < first["ci"][1]
    )
    same = describe_alike(alike[:1].repeat(2, 0), windows, ("clean", "coder"), (0.01, 0.02), 0.05)
    assert [(row["f1"], row["ci"]) for row in same] == [(1.0, None), (1.0, None)]
