"""Heads' scores beside TransformerLens' own, on the same small GPT-2: in the environment of `make test-export`."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from makers.families import FAMILIES

from rewrite.arms.circuits.channels import WAYS
from rewrite.arms.circuits.composition import compose, copying, known_weights, whole_circuit
from rewrite.subject.clamping import build_clamp
from rewrite.subject.subject import build_subject

pytestmark = pytest.mark.skipif(
    find_spec("transformer_lens") is None, reason="transformer-lens is not installed here: make test-export has it"
)


def test_composition_and_copying_are_those_of_transformer_lens() -> None:
    """The gains of its norms folded into its weights, as ours are."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    torch.manual_seed(0)
    model = FAMILIES["gpt2"]().eval()
    for norm in [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]:
        norm.weight.data.uniform_(0.5, 2.0)
    size = model.config
    config = HookedTransformerConfig(
        n_layers=size.n_layer, n_heads=size.n_head, d_model=size.n_embd, n_ctx=size.n_positions,
        d_vocab=size.vocab_size, d_head=size.n_embd // size.n_head, d_mlp=size.n_inner or 4 * size.n_embd,
        act_fn="gelu_new", normalization_type="LN",
    )  # fmt: skip
    lens = HookedTransformer(config)
    lens.load_and_process_state_dict(
        convert_gpt2_weights(model, config),
        fold_ln=True, center_writing_weights=False, center_unembed=False, fold_value_biases=False,
    )  # fmt: skip
    subject = build_subject(model, None, "layers.0.mlp")
    ids = torch.randint(0, size.vocab_size, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(lens(ids), model(ids).logits, atol=1e-4, rtol=1e-4)
    layers = known_weights(build_clamp(subject))
    width = size.n_embd
    for way, letter in zip(WAYS, "QKV", strict=True):
        scores = lens.all_composition_scores(letter).detach().numpy()
        for later in layers:
            for earlier in (layer for layer in layers if layer < later):
                ours = compose(layers[earlier], layers[later])[:, :, WAYS.index(way)] / width**0.5
                np.testing.assert_allclose(ours, scores[earlier, :, later], rtol=1e-4)
    through = whole_circuit(subject)
    for layer, weights in layers.items():
        for head, own in enumerate(copying(weights, through)):
            full = lens.W_E @ lens.OV[layer, head].AB @ lens.W_U
            roots = torch.linalg.eigvals(full.double())
            assert own == pytest.approx(float(roots.real.sum() / roots.abs().sum()), abs=2e-3)
