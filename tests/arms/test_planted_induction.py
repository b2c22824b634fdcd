"""The instruments on a model built by hand: each names the planted parts, and on shuffled weights none."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from makers.induction import LENGTH, TOKENS, WIDTH, build_induction, repeated_text
from torch import Tensor

from rewrite.arms.anywhere import Anywhere
from rewrite.arms.circuits.channels import WAYS, close, read_channels
from rewrite.arms.circuits.composition import compose, copying, join, known_weights, whole_circuit
from rewrite.arms.circuits.heads import KINDS, all_heads, attended, induction_of, previous_of, repeat, watch
from rewrite.arms.circuits.mediation import ORDERS, Mediated
from rewrite.arms.circuits.terms import cut_paths
from rewrite.coder.coder import Coder
from rewrite.subject.clamping import Clamp, Head, build_clamp
from rewrite.subject.scoring import next_tokens, token_losses
from rewrite.subject.subject import build_subject

IDS = repeated_text(8, 0)
SECOND = torch.arange(LENGTH).expand_as(IDS) >= LENGTH // 2
PLANTED = Head(1, 1)


@pytest.fixture(scope="module")
def clamp() -> Clamp:
    return build_clamp(build_subject(build_induction(), None, "layers.0.mlp"))


def loss(logits: Tensor) -> float:
    """Mean over the second saying, nats a token."""
    targets = next_tokens(IDS, SECOND, torch.ones_like(SECOND))
    return float(token_losses(logits, targets).sum() / (targets >= 0).sum())


def copier() -> Coder:
    """The hookpoint's MLP as a transcoder: a latent a token."""
    block = build_induction().transformer.h[0].mlp
    read, write = block.c_fc.weight.data.T, block.c_proj.weight.data
    rows = (read.contiguous(), block.c_fc.bias.data.clone(), write.contiguous(), torch.zeros(WIDTH))
    return Coder(*rows, kind="transcoder", activation="relu")


def coder_arms() -> Anywhere:
    """The arms that need no simulation."""
    return Anywhere(copier(), np.ones(TOKENS, dtype=bool))


def test_the_loss_goes_the_planted_way_and_no_other(clamp: Clamp) -> None:
    subject = clamp.subject
    prefix = subject.run_to(IDS)
    own, kept = clamp.keep(prefix, prefix.output)
    nothing = torch.zeros_like(prefix.output)
    whole = loss(subject.run_from(prefix, nothing)) - loss(own)
    assert loss(own) < 0.1 and whole > 3, "it continues what it has seen, by what the MLP writes"
    for backward in (False, True):
        runs = {
            part.kind if part else "direct": loss(logits)
            for part, logits in clamp.release(prefix, nothing, kept, backward)
        }
        order = list(runs)
        steps = dict(zip(order, np.diff([loss(own), *runs.values()]), strict=True))
        assert sum(steps.values()) == pytest.approx(whole, abs=1e-9)
        # The norm before attention feels the copy too, so what is moved is a little larger without it.
        assert steps["pattern"] > 0.85 * whole
        assert abs(steps["direct"]) < 1e-4 and abs(steps["mlp"]) < 1e-4


def test_steps_of_either_order_stand_under_the_parts_that_they_are_of(clamp: Clamp) -> None:
    """Let go backwards, the first run after all are held is the last part's."""
    found = Mediated(np.array([0]), clamp)
    found.losses["coder"][:] = 1.0
    worth = np.arange(2.0, 3.0 + len(clamp.parts))  # the direct step, then each part's
    found.runs["zero", "forward"][:, 0] = 1 + worth.cumsum()
    found.runs["zero", "backward"][:, 0] = 1 + np.r_[worth[:1], worth[:0:-1]].cumsum()
    for order in ORDERS:
        np.testing.assert_allclose(found.steps("zero", order)[:, 0], worth)


def test_the_planted_head_carries_it_all(clamp: Clamp) -> None:
    prefix = clamp.subject.run_to(IDS)
    nothing = torch.zeros_like(prefix.output)
    own, kept = clamp.keep(prefix, prefix.output)
    held, free = loss(clamp.run(prefix, nothing, kept, ())), loss(clamp.subject.run_from(prefix, nothing))
    for head, alone, without in clamp.each_head(prefix, nothing, kept):
        whole = free - loss(own) if head == PLANTED else 0.0
        assert loss(alone) - held == pytest.approx(whole, abs=1e-4)
        assert free - loss(without) == pytest.approx(whole, abs=1e-4)


def test_heads_are_called_what_they_are(clamp: Clamp) -> None:
    found = repeat(clamp, coder_arms(), np.arange(TOKENS), 0)
    scores = {head: found.own[:, number] for number, head in enumerate(all_heads(clamp))}
    assert [head for head, score in scores.items() if score[KINDS.index("previous")] > 0.5] == [Head(0, 0)]
    assert [head for head, score in scores.items() if score[KINDS.index("induction")] > 0.5] == [PLANTED]
    under = {arm: found.later[number, KINDS.index("induction"), 1] for number, arm in enumerate(found.arms)}
    assert under["coder"] == pytest.approx(under["clean"], abs=1e-5), "this coder is the layer"
    assert (
        under["zero"] < 0.1 and found.losses[found.arms.index("clean"), 1] < found.losses[found.arms.index("zero"), 1]
    )


def test_weights_say_who_reads_what(clamp: Clamp) -> None:
    coder = copier()
    layers = known_weights(clamp)
    channels = read_channels({1: layers[1]}, coder.W_dec, np.ones(TOKENS))
    assert channels is not None
    z = channels.latents[channels.heads.index(PLANTED)]
    assert (z[WAYS.index("query")] > 10).all() and (z[[WAYS.index("key"), WAYS.index("value")]] < 0).all()
    before, after = layers[0], layers[1]
    scores = compose(before, after)[0, 1]
    assert scores[WAYS.index("key")] > 2 and (np.delete(scores, WAYS.index("key")) < 0.2).all()
    assert copying(after, whole_circuit(clamp.subject))[1] == pytest.approx(1, abs=1e-6), (
        "it raises the token that it looks at"
    )
    joined = join(layers, 0, 9)
    assert {(joint.earlier, joint.later, joint.way) for joint in joined} == {(Head(0, 0), PLANTED, "key")}


def test_shuffled_weights_name_none() -> None:
    model = build_induction()
    rng = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data = weight.data.flatten()[torch.randperm(weight.numel(), generator=rng)].view_as(weight)
    clamp = build_clamp(build_subject(model, None, "layers.0.mlp"))
    found = repeat(clamp, coder_arms(), np.arange(TOKENS), 0)
    assert (found.own < 0.2).all()
    # Weights that stand one by one on axes are read along axes; of directions that are no axes nothing stands out.
    layers = known_weights(clamp)
    channels = read_channels({1: layers[1]}, torch.randn(TOKENS, WIDTH, generator=rng), np.ones(TOKENS))
    assert channels is not None and np.nanmax(np.abs(channels.coder)) < 4


def test_what_was_said_before_comes_through_attention_and_its_place_through_two(clamp: Clamp) -> None:
    """The answer passes one later layer; the whole model needs two only for where it looks, which is held."""
    subject = clamp.subject
    prefix = subject.run_to(IDS)
    later = [block.attention for block in clamp.later if block.attention is not None]
    runs = {
        name: [loss(logits) for logits in cut_paths(subject.model, modules, run, 3)]
        for name, modules, run in (
            ("later", later, partial(subject.run_from, prefix, prefix.output)),
            ("model", [block.attn for block in subject.model.transformer.h], partial(subject.logits, IDS)),
        )
    }
    for name, (whole, none, one, two) in runs.items():
        assert whole < 0.1, name
        assert none > 3, "no path without attention knows what comes next"
        assert one == pytest.approx(whole, abs=0.05), "what is moved passes one layer, where it looks is held"
        assert two == pytest.approx(whole, abs=1e-6), "nothing is cut"
    # What the MLP writes steers where head 1.1 looks and no more: cut, held or not, order 0 does not see it.
    nothing = torch.zeros_like(prefix.output)
    cut = [loss(each) for each in cut_paths(subject.model, later, partial(subject.run_from, prefix, nothing), 1)]
    assert cut[1] == pytest.approx(runs["later"][1], abs=1e-6) and cut[0] > 3


def test_places_that_are_looked_for() -> None:
    ids = torch.tensor([[5, 6, 7, 5, 6, 6, 5]])
    every = torch.ones_like(ids, dtype=torch.bool)
    assert previous_of(every).tolist() == [[-1, 0, 1, 2, 3, 4, 5]]
    # 6 at 5 follows 6 at 4: the place after the last earlier 6 would be itself, so the one before that counts.
    assert induction_of(ids, every).tolist() == [[-1, -1, -1, 1, 2, 2, 4]]
    some = torch.tensor([[False] * 6 + [True]])
    assert induction_of(ids, some).tolist() == [[-1] * 6 + [4]]
    pattern = torch.rand(1, 2, 7, 7, generator=torch.Generator().manual_seed(0))
    paid = attended(pattern, previous_of(every))
    assert paid[0].tolist() == pytest.approx([sum(float(pattern[0, h, t, t - 1]) for t in range(1, 7)) for h in (0, 1)])


def test_patterns_are_what_the_model_looks_by(clamp: Clamp) -> None:
    asked = torch.ones_like(IDS, dtype=torch.bool)
    logits, paid = watch(clamp.subject, all_heads(clamp), partial(clamp.subject.logits, IDS), [previous_of(asked)])
    assert torch.equal(logits, clamp.subject.logits(IDS)), "watching changes nothing"
    assert float(paid[0][:, 0].mean()) / (LENGTH - 1) > 0.9


def test_closing_the_planted_channel_costs_all_and_a_random_one_little(clamp: Clamp) -> None:
    prefix = clamp.subject.run_to(IDS)
    channels = read_channels({1: known_weights(clamp)[1]}, copier().W_dec, np.ones(TOKENS))
    assert channels is not None
    head, way = np.unravel_index(np.nanargmax(channels.coder), channels.coder.shape)
    assert (channels.heads[head], WAYS[way]) == (PLANTED, "query")
    directions = torch.linalg.svd(channels.matrices[head][way].double(), full_matrices=False).Vh[:TOKENS]
    rng = torch.Generator().manual_seed(0)
    random = torch.linalg.qr(torch.randn(WIDTH, TOKENS, generator=rng, dtype=torch.float64)).Q.T
    flat = prefix.output.flatten(0, 1)
    losses = [
        loss(clamp.subject.run_from(prefix, close(flat, basis).view_as(prefix.output)))
        for basis in (directions, random)
    ]
    own = loss(clamp.subject.run_from(prefix, prefix.output))
    nothing = loss(clamp.subject.run_from(prefix, torch.zeros_like(prefix.output)))
    assert losses[0] - own > 0.9 * (nothing - own) and losses[1] - own < 0.1 * (nothing - own)
    assert torch.allclose(close(close(flat, random), random), close(flat, random), atol=1e-5), "a projection"
