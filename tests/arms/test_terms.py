"""Paths cut by the number of attention layers that they pass: with enough orders nothing is cut, in every family."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from makers.families import FAMILIES

from rewrite.arms.circuits.terms import cut_paths
from rewrite.config import UserError
from rewrite.subject.clamping import build_clamp
from rewrite.subject.subject import build_subject

IDS = torch.randint(3, 90, (2, 10), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_with_enough_orders_nothing_is_cut(family: str) -> None:
    torch.manual_seed(0)
    try:
        clamp = build_clamp(build_subject(FAMILIES[family]().eval(), None, "layers.0.mlp"))
    except UserError:
        pytest.skip("this family is refused at this hookpoint (docs/families.md)")
    later = [block.attention for block in clamp.later if block.heads and block.attention is not None]
    if not later or len(later) < len(clamp.later):
        pytest.skip("the heads of this family cannot be told apart")
    subject = clamp.subject
    prefix = subject.run_to(IDS)
    vectors = prefix.output + torch.randn(prefix.output.shape, generator=torch.Generator().manual_seed(1))
    run = partial(subject.run_from, prefix, vectors)
    own = run()
    whole, *orders = cut_paths(subject.model, later, run, len(later) + 1)
    assert torch.equal(whole, own), "looking changes nothing"
    torch.testing.assert_close(orders[-1], own, rtol=0, atol=1e-5)
    assert float((orders[0] - own).abs().max()) > 1e-4, "at order 0 no head hands anything on"
    assert torch.equal(run(), own), "and nothing stays cut"


def test_no_path_through_attention_is_a_model_whose_heads_write_nothing() -> None:
    torch.manual_seed(0)
    model = FAMILIES["llama"]().eval()
    subject = build_subject(model, None, "layers.0.mlp")
    attention = [block.self_attn for block in model.model.layers]
    run = partial(subject.logits, IDS)
    _, none, one = cut_paths(model, attention, run, 2)
    for module in attention:
        module.o_proj.weight.data.zero_()
    torch.testing.assert_close(none, run(), rtol=0, atol=1e-6)
    assert float((one - none).abs().max()) > 1e-4
