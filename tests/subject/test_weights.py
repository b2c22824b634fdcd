"""Heads as matrices: what the model computes is what the matrices say, up to a norm's scale, in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from makers.families import FAMILIES, without_biases
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rewrite.config import UserError
from rewrite.subject.attending import Look, tapping
from rewrite.subject.clamping import build_clamp
from rewrite.subject.forwards import Record, vectors_of, with_forwards
from rewrite.subject.subject import build_subject
from rewrite.subject.weights import OUTPUT_NORMS, SERIAL, head_weights, unembedding

IDS = torch.randint(3, 90, (1, 9), generator=torch.Generator().manual_seed(0))
NORMED = ("gemma3", "gemma3_with_pictures", "olmo2", "qwen3", "qwen3_moe")
"""Families that normalise each query and key."""
UNKNOWN = ("gpt_bigcode",)


def alike(a: Tensor, b: Tensor) -> bool:
    return float(cosine_similarity(a, b, dim=-1).min()) > 1 - 1e-4


def find(block: Any, names: tuple[str, ...]) -> Any:
    return next((getattr(block, name) for name in names if hasattr(block, name)), None)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_heads_read_and_write_is_what_their_matrices_say(family: str) -> None:
    model = without_biases(family)
    try:
        subject = build_subject(model, None, "layers.0")
    except UserError:
        pytest.skip("this family is refused (docs/families.md)")
    block = build_clamp(subject).later[-1]
    if not block.heads:
        pytest.skip("this family's heads are not told apart")
    weights = head_weights(subject, block.layer, block.heads)
    if family in UNKNOWN:
        assert weights is None
        return
    assert weights is not None and block.attention is not None
    stream, attention, looks = Record(), Record(), list[tuple[Look, Tensor]]()

    def note(look: Look) -> Any:
        returned = look.compute()
        looks.append((look, returned[0]))
        return returned

    watched = {block.block: stream.watch(block.block), block.attention: attention.watch(block.attention)}
    with with_forwards(watched), tapping(subject.model, {block.attention: note}):
        logits = subject.logits(IDS)[0]
    x, (look, mixed) = stream.input[0], looks[0]

    def each(heads: Tensor) -> Tensor:
        """[position, head, d_head] of every head, shared ones repeated."""
        return heads[0].repeat_interleave(block.heads // heads.shape[1], 0).permute(1, 0, 2)

    assert alike(each(look.value).flatten(1), torch.einsum("hed,pd->phe", weights.value, x).flatten(1))
    if family not in NORMED:
        # Rotations keep lengths; the norm's scale is one for all heads.
        for found, matrix in ((look.query, weights.query), (look.key, weights.key)):
            assert alike(each(found).norm(dim=2), torch.einsum("hed,pd->phe", matrix, x).norm(dim=2))
    added = vectors_of(attention.output)[0]
    if find(block.block, SERIAL) is not None:
        added = find(block.block, OUTPUT_NORMS)(added)
    assert alike(added, torch.einsum("hde,phe->pd", weights.output, mixed[0]))
    assert alike(logits, vectors_of(stream.output)[0] @ unembedding(subject).T)
