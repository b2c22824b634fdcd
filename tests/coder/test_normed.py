"""Transcoders that read the norm before the MLP without its gain: folded, they read what the MLP reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from makers.families import FAMILIES

from rewrite.coder.coder import Coder
from rewrite.coder.normed import fold_norm
from rewrite.config import UserError
from rewrite.subject.subject import build_subject

LATENTS, D = 40, 32


def make_coder(seed: int = 0, normed: bool = True) -> Coder:
    rng = torch.Generator().manual_seed(seed)
    shapes = ((LATENTS, D), (LATENTS,), (LATENTS, D), (D,))
    parts = [torch.randn(*shape, generator=rng) for shape in shapes]
    skip = torch.randn(D, D, generator=rng)
    return Coder(*parts, kind="skip_transcoder", activation="relu", W_skip=skip, reads_normed=normed)


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "gemma2", "gemma3"])
def test_folded_it_computes_what_it_did_of_the_bare_norm(family: str) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_" in name:
            parameter.data += 0.5 * torch.rand_like(parameter)
    subject = build_subject(model, None, "layers.1.mlp")
    prefix = subject.run_to(torch.randint(5, 90, (2, 7)))
    coder = make_coder()
    folded = fold_norm(coder, subject)
    assert not folded.reads_normed and fold_norm(folded, subject) is folded
    read = folded.read(prefix.input, prefix.output)
    # The bare norm from its definition: what the MLP reads, its bias and gain taken off.
    block = subject.blocks[1]
    names = ("pre_feedforward_layernorm", "ln_2", "post_attention_layernorm")
    norm = next(getattr(block, name) for name in names if hasattr(block, name))
    gain = norm.weight.detach() + (1.0 if "gemma" in family else 0.0)
    bias = getattr(norm, "bias", None)
    bare = (read - (bias.detach() if bias is not None else 0.0)) / gain
    assert bare.square().mean(1).sqrt() == pytest.approx(torch.ones(len(bare)), abs=0.02), "of root mean square 1"
    np.testing.assert_allclose(folded.encode(read).toarray(), coder.encode(bare).toarray(), atol=1e-4)
    code = coder.encode(bare)
    torch.testing.assert_close(folded.reconstruct(code, read), coder.reconstruct(code, bare), atol=1e-3, rtol=1e-4)


def test_a_model_without_such_a_norm_is_refused() -> None:
    torch.manual_seed(0)
    subject = build_subject(FAMILIES["olmo2"]().eval(), None, "layers.1.mlp")
    with pytest.raises(UserError, match="this model has none; use a coder that reads what the MLP reads"):
        fold_norm(make_coder(), subject)
    assert fold_norm(make_coder(normed=False), subject).W_enc.shape == (LATENTS, D)
