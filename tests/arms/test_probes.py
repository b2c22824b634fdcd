"""The readers that know no explanation against plain averages and numpy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from rewrite.arms import probes
from rewrite.arms.least_squares import Inputs, Pulled, Sums, Targets, squared_error
from rewrite.arms.probes import REACH, RIDGES, Walk, embed, fit_probe, fit_table, list_context
from rewrite.coder.activations import Shard
from rewrite.text.windows import Text

TOKENS, LATENTS, WIDTH = 12, 3, 4


def make_shards(count: int, seed: int, activate: object = None) -> list[Shard]:
    """Shards of two documents of three windows; activations are what `activate(text)` says, else noise."""
    rng = np.random.default_rng(seed)
    shards = []
    for number in range(count):
        starts = np.concatenate([[0], np.cumsum(rng.integers(5, 20, 6))])
        text = Text(rng.integers(0, TOKENS - 1, starts[-1]).astype(np.int32), starts, tuple("abcdefghijkl"))
        dense = (
            activate(text)
            if callable(activate)
            else rng.random((starts[-1], LATENTS)) * (rng.random((starts[-1], LATENTS)) < 0.5)
        )
        dense = dense * text.counted()[:, None]
        documents = np.repeat([2 * number, 2 * number + 1], 3).astype(np.int32)
        shards.append(Shard(text, documents, csr_array(dense.astype(np.float32))))
    return shards


def stack(shards: list[Shard]) -> tuple[np.ndarray, np.ndarray]:
    """Token and activations of every counted position."""
    masks = [shard.text.counted() for shard in shards]
    ids = np.concatenate([s.text.ids[m] for s, m in zip(shards, masks, strict=True)])
    return ids, np.concatenate([s.activations.toarray()[m] for s, m in zip(shards, masks, strict=True)])


def test_the_context_ends_with_the_position_and_begins_with_the_window() -> None:
    text = Text(np.arange(12, dtype=np.int32), np.array([0, 10, 12]), ())
    found = list_context(text, np.arange(12))
    assert found[0].tolist() == [-1] * 7 + [0]
    assert found[3].tolist() == [-1] * 4 + [0, 1, 2, 3]
    assert found[9].tolist() == list(range(2, 10))
    assert found[11].tolist() == [-1] * 6 + [10, 11]
    assert list_context(text, np.array([9, 11])).tolist() == [found[9].tolist(), found[11].tolist()]


def test_the_table_holds_each_tokens_mean() -> None:
    shards = make_shards(4, 0)
    ids, truth = stack(shards)
    table = fit_table(shards, TOKENS, LATENTS)
    context = torch.arange(TOKENS)[:, None].repeat(1, REACH)
    found = table.activations(context).numpy()
    for token in range(TOKENS):
        expected = truth[ids == token].mean(0) if (ids == token).any() else truth.mean(0)
        np.testing.assert_allclose(found[token], expected, rtol=1e-5)
    assert not (ids == TOKENS - 1).any()
    assert not table.seen[TOKENS - 1]


def embeddings() -> torch.Tensor:
    return torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def features(shards: list[Shard]) -> np.ndarray:
    parts = []
    for shard in shards:
        rows = np.flatnonzero(shard.text.counted())
        parts.append(embed(torch.as_tensor(list_context(shard.text, rows)), embeddings().double()).numpy())
    return np.concatenate(parts)


@pytest.mark.parametrize("processes", [1, 3])
def test_the_sums_solve_what_least_squares_solves(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a ridge, the normal equations are ordinary least squares with √ridge rows below centred features."""
    monkeypatch.setattr(probes, "count_processes", lambda: processes)
    shards = make_shards(6, 2)
    x, y = features(shards), stack(shards)[1].astype(np.float64)
    inputs, targets = Inputs.empty(x.shape[1]), Targets.empty(x.shape[1], LATENTS)
    others = Inputs.empty(x.shape[1]), Targets.empty(x.shape[1], LATENTS)
    walk = Walk(lambda: shards, embeddings().double().numpy(), np.zeros(1000, dtype=bool))
    walk.fill((inputs, others[0]), (targets, others[1]), slice(0, LATENTS))
    assert others[0].n == 0 and not others[1].xy.any(), "no document is held out"
    pairs = ((inputs.xx, x.T @ x), (targets.xy, x.T @ y), (inputs.x, x.sum(0)), (targets.y, y.sum(0)))
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    sums = Sums(inputs, targets)
    for ridge in RIDGES:
        line = Pulled.of(sums).solve(inputs, ridge)
        centred = x - x.mean(0)
        penalty = np.sqrt(ridge * np.square(centred).sum() / x.shape[1]) * np.eye(x.shape[1])
        target = np.concatenate([y - y.mean(0), np.zeros((x.shape[1], LATENTS))])
        expected = np.linalg.lstsq(np.concatenate([centred, penalty]), target, rcond=None)[0]
        np.testing.assert_allclose(line.weights, expected, atol=1e-8)
        residual = y - x @ line.weights - line.bias
        assert squared_error(line, sums) == pytest.approx(np.square(residual).sum(), rel=1e-9)
        np.testing.assert_allclose(residual.mean(0), 0, atol=1e-7)


def test_the_probe_finds_a_linear_rule_and_cuts_it_off_below_zero() -> None:
    weights = torch.randn(REACH * WIDTH, LATENTS, generator=torch.Generator().manual_seed(2)).numpy()

    def activate(text: Text) -> np.ndarray:
        context = torch.as_tensor(list_context(text, np.arange(len(text.ids))))
        line: np.ndarray = embed(context, embeddings()).numpy() @ weights + 40
        return line

    shards = make_shards(30, 3, activate)
    probe = fit_probe(lambda: shards, embeddings(), 60, LATENTS)
    assert probe.ridge == min(RIDGES)
    fresh = make_shards(1, 4, activate)[0]
    rows = np.flatnonzero(fresh.text.counted())
    context = torch.as_tensor(list_context(fresh.text, rows))
    np.testing.assert_allclose(probe.activations(context).numpy(), fresh.activations[rows].toarray(), rtol=0.02)
    below = type(probe)(probe.embeddings, probe.weights, probe.bias - 1000, probe.ridge)
    assert not below.activations(context).any()


def test_where_nothing_can_be_known_the_strongest_ridge_wins() -> None:
    shards = make_shards(10, 5)
    probe = fit_probe(lambda: shards, embeddings(), 20, LATENTS)
    assert probe.ridge == max(RIDGES)
    again = fit_probe(lambda: shards, embeddings(), 20, LATENTS)
    assert torch.equal(probe.weights, again.weights)


def test_latents_a_few_at_a_time_give_the_same_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held grows with features × latents, which a wide coder makes too many."""
    shards = make_shards(10, 7)
    whole = fit_probe(lambda: shards, embeddings(), 20, LATENTS)
    held: list[int] = []
    empty = Targets.empty

    def watched(features: int, latents: int) -> Targets:
        held.append(latents)
        return empty(features, latents)

    monkeypatch.setattr(Targets, "empty", watched)
    monkeypatch.setattr(probes, "PRODUCTS", 2 * REACH * WIDTH)
    parts = fit_probe(lambda: shards, embeddings(), 20, LATENTS)
    assert set(held) == {2, 1} and len(held) == 2 * -(-LATENTS // 2), "the train split is walked once a block"
    assert parts.ridge == whole.ridge
    torch.testing.assert_close(parts.weights, whole.weights)
    torch.testing.assert_close(parts.bias, whole.bias)


def test_with_one_document_there_is_no_fifth_to_err_on() -> None:
    shard = make_shards(1, 6)[0]
    one = Shard(shard.text, np.zeros(6, dtype=np.int32), shard.activations)
    assert fit_probe(lambda: [one], embeddings(), 1, LATENTS).ridge == max(RIDGES)
