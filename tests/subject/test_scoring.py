"""Losses of scored positions: those of all logits, without unembedding more than is scored."""

from __future__ import annotations

import pytest
import torch
from makers.families import FAMILIES
from torch import Tensor

from rewrite.subject.scoring import NONE, losses_from, token_losses
from rewrite.subject.subject import Prefix, Subject, build_subject

IDS = torch.randint(3, 90, (3, 11), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["llama", "gpt2", "gemma2"])
def subject(request: pytest.FixtureRequest) -> Subject:
    torch.manual_seed(1)
    return build_subject(FAMILIES[request.param]().eval(), None, "layers.1.mlp")


def written(subject: Subject) -> tuple[Prefix, Tensor]:
    prefix = subject.run_to(IDS)
    return prefix, torch.randn(prefix.output.shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_they_are_those_of_all_logits(subject: Subject, share: float) -> None:
    prefix, vectors = written(subject)
    scored = torch.rand(IDS.shape, generator=torch.Generator().manual_seed(3)) < share
    targets = torch.where(scored, IDS.roll(-1, 1), NONE)
    made: list[int] = []
    head = subject.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, given, logits: made.append(logits.shape[-2]))
    found = losses_from(subject, prefix, vectors, targets)
    handle.remove()
    torch.testing.assert_close(found, token_losses(subject.run_from(prefix, vectors), targets))
    assert found.dtype == torch.float64 and made == [int(scored.sum())], "nothing else is unembedded"


def test_they_can_be_differentiated(subject: Subject) -> None:
    prefix, vectors = written(subject)
    targets = torch.where(IDS % 3 == 0, IDS.roll(-1, 1), NONE)
    own, other = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
    (mine,) = torch.autograd.grad(losses_from(subject, prefix, own, targets).sum(), own)
    (theirs,) = torch.autograd.grad(token_losses(subject.run_from(prefix, other), targets).sum(), other)
    assert theirs.abs().max() > 0
    torch.testing.assert_close(mine, theirs)


def test_a_model_that_names_no_unembedding_is_scored_all_the_same(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, vectors = written(subject)
    targets = torch.where(IDS % 3 == 0, IDS.roll(-1, 1), NONE)
    expected = losses_from(subject, prefix, vectors, targets)
    monkeypatch.setattr(subject.model, "get_output_embeddings", lambda: None)
    torch.testing.assert_close(losses_from(subject, prefix, vectors, targets), expected)
