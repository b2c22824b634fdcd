"""How heads are joined and what they say: against matrices written out, planted heads, and chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf
from makers.families import FAMILIES
from makers.llamas import llama_sizes

from rewrite.arms.circuits.channels import WAYS
from rewrite.arms.circuits.composition import (
    compose,
    copying,
    join,
    known_weights,
    say,
    skip_trigrams,
    whole_circuit,
    write_components,
)
from rewrite.subject.clamping import Head, build_clamp
from rewrite.subject.subject import build_subject
from rewrite.subject.weights import HeadWeights, head_weights, unembedding


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "gemma2"])
def test_scores_are_those_of_the_matrices_written_out(family: str) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    subject = build_subject(model, None, "layers.0.mlp")
    before, after = (head_weights(subject, layer, 4) for layer in (1, 2))
    assert before is not None and after is not None
    width = 32
    for number, own in enumerate(copying(after, whole_circuit(subject))):
        embedding = model.get_input_embeddings().weight.detach()
        whole = unembedding(subject) @ after.output[number] @ after.value[number] @ embedding.T
        roots = torch.linalg.eigvals(whole.double())
        assert own == pytest.approx(float(roots.real.sum() / roots.abs().sum()), abs=2e-3)
    scores = compose(before, after)
    for a in range(4):
        writes = before.output[a] @ before.value[a]
        for b in range(4):
            whole = (after.key[b].T @ after.query[b], after.query[b].T @ after.key[b], after.output[b] @ after.value[b])
            for way, matrix in enumerate(whole):
                expected = torch.linalg.norm(matrix @ writes) / torch.linalg.norm(matrix) / torch.linalg.norm(writes)
                assert scores[a, b, way] == pytest.approx(float(expected) * width**0.5, rel=1e-4)


def random_weights(heads: int, width: int, seed: int) -> HeadWeights:
    rng = torch.Generator().manual_seed(seed)
    size = width // heads
    parts = [torch.randn(heads, size, width, generator=rng) for _ in range(3)]
    return HeadWeights(*parts, torch.randn(heads, width, size, generator=rng))


def test_components_are_the_singular_vectors_that_are_written() -> None:
    weights = random_weights(4, 32, 0)
    for head, own in enumerate(write_components(weights)):
        left = torch.linalg.svd((weights.output[head] @ weights.value[head]).double()).U[:, :8]
        torch.testing.assert_close((own @ left).abs(), torch.eye(8, dtype=torch.float64), atol=1e-4, rtol=0)


def test_one_component_that_is_read_is_found_where_whole_matrices_hide_it() -> None:
    """A later key reads one direction of sixteen that an earlier head writes, among much that is random."""
    earlier, later = random_weights(4, 64, 1), random_weights(4, 64, 2)
    direction = write_components(earlier)[2, 9].float()
    later.key[1] += 12 * torch.outer(torch.randn(16, generator=torch.Generator().manual_seed(3)), direction)
    (first, *rest) = join({0: earlier, 1: later}, after=0, most=9)
    assert (first.earlier, first.component, first.later, first.way) == (Head(0, 2), 9, Head(1, 1), "key")
    assert first.z > first.least and not rest
    scores = compose(earlier, later)
    assert first.whole == scores[2, 1, WAYS.index("key")]
    assert np.abs(scores - 1).max() < 0.6, "no pair of whole matrices is far from chance"


def test_on_random_weights_seldom_anything_is_joined() -> None:
    """One of all that is compared stands out in some 5% of models, also where a head's singular values are uneven."""
    uneven = torch.logspace(0, -1.5, 24)[:, None]

    def found(seed: int) -> bool:
        earlier, later = random_weights(2, 48, seed), random_weights(2, 48, 1000 + seed)
        later = HeadWeights(later.query * uneven, later.key, later.value * uneven, later.output)
        return bool(join({0: earlier, 1: later}, 0, 9))

    # 2 to 7 of 80 by a binomial's 95%, a little more for what is conservative: components of a head are orthogonal.
    assert sum(found(seed) for seed in range(80)) <= 8


def test_heads_of_zeros_and_layers_before_the_hookpoint_are_joined_to_nothing() -> None:
    none = HeadWeights(*(torch.zeros(2, 4, 8) for _ in range(3)), torch.zeros(2, 8, 4))
    assert join({0: none, 1: none}, 0, 9) == []
    assert join({0: random_weights(2, 8, 0)}, 0, 9) == []


def planted_head() -> tuple[HeadWeights, torch.Tensor, torch.Tensor]:
    """A head that turns token 3 into 5, looking at it from 7; embeddings and unembeddings are axes."""
    embed, unembed = torch.eye(12), torch.eye(12)
    query, key, value = (torch.zeros(1, 2, 12) for _ in range(3))
    output = torch.zeros(1, 12, 2)
    query[0, 0, 7], key[0, 0, 3], value[0, 0, 3], output[0, 5, 0] = 2, 2, 3, 4
    return HeadWeights(query, key, value, output), embed, unembed


def test_what_a_planted_head_says() -> None:
    weights, embed, unembed = planted_head()
    ends = say(write_components(weights)[0], unembed)[0]
    assert 5 in (ends[0][0], ends[1][0]), "the one direction that it writes"
    (best, *others) = skip_trigrams(weights, 0, embed, unembed, np.arange(12))
    assert (best.source, best.end, best.next) == (3, 7, 5)
    assert all(best.strength > 5 * abs(other.strength) for other in others)


def test_every_layer_is_known_once() -> None:
    sizes = llama_sizes(99, 32, layers=3, heads=4)
    subject = build_subject(hf.LlamaForCausalLM(hf.LlamaConfig(**sizes)).eval(), None, "layers.1.mlp")
    found = known_weights(build_clamp(subject))
    assert list(found) == [0, 1, 2] and all(len(weights.query) == 4 for weights in found.values())
