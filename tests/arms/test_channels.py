"""Who reads what by chance: the moments of the baseline, and that on random weights nothing stands out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf
from makers.families import FAMILIES
from makers.llamas import llama_sizes
from scipy import stats

from rewrite.arms.circuits.channels import WAYS, read_channels
from rewrite.arms.circuits.composition import known_weights
from rewrite.arms.circuits.shares import share_read, standardise, threshold
from rewrite.subject.clamping import build_clamp
from rewrite.subject.subject import build_subject


@pytest.mark.parametrize("skewed", [False, True])
def test_a_random_direction_is_read_by_chance(skewed: bool) -> None:
    """The mean and the variance of the share are those stated, for a matrix of any shape of spectrum."""
    rng = torch.Generator().manual_seed(0)
    matrix = torch.randn(8, 64, generator=rng, dtype=torch.float64)
    if skewed:
        matrix *= torch.logspace(0, -2, 8, dtype=torch.float64)[:, None]
    rows = torch.randn(20_000, 64, generator=rng, dtype=torch.float64)
    z = standardise(matrix, share_read(matrix, rows)).numpy()
    assert abs(z.mean()) < 4 / np.sqrt(len(z)) and z.std() == pytest.approx(1, abs=0.03)


def test_on_random_weights_nothing_stands_out() -> None:
    """z of a random coder under the heads of a random model of many widths a head is standard normal (Kolmogorov and
    Smirnov): a share is then a mean of many squares."""
    torch.manual_seed(0)
    sizes = llama_sizes(99, 512, layers=3, heads=4, num_key_value_heads=4)
    clamp = build_clamp(build_subject(hf.LlamaForCausalLM(hf.LlamaConfig(**sizes)).eval(), None, "layers.0.mlp"))
    later = {layer: weights for layer, weights in known_weights(clamp).items() if layer > 0}
    found = read_channels(later, torch.randn(400, 512), np.ones(400))
    assert found is not None and found.latents.shape == (8, len(WAYS), 400)
    for z in found.latents.reshape(-1, 400)[::5]:
        assert stats.kstest(z, "norm").pvalue > 1e-3
    # All that the coder writes, of any spectrum, is read by chance too: its deviations are of size 1.
    stretched = torch.randn(400, 512) * torch.logspace(0, -1, 512)
    many = [read_channels(later, stretched[:, torch.randperm(512)], np.ones(400)) for _ in range(12)]
    z = np.stack([one.coder for one in many if one is not None]).ravel()
    assert abs(z.mean()) < 0.3 and z.std() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("skewed", [False, True])
def test_what_stands_out_does_so_rarely_by_chance(skewed: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    matrix = torch.randn(8, 64, generator=rng, dtype=torch.float64)
    if skewed:
        matrix *= torch.logspace(0, -2, 8, dtype=torch.float64)[:, None]
    rows = torch.randn(400_000, 64, generator=rng, dtype=torch.float64)
    z = standardise(matrix, share_read(matrix, rows)).numpy()
    for chance in (0.01, 0.001, 1e-4):
        slack = 3 * (chance / len(rows)) ** 0.5
        assert abs((z > threshold(matrix, chance)).mean() - chance) < 0.06 * chance + slack


def test_a_family_whose_weights_are_not_known_has_no_channels() -> None:
    torch.manual_seed(0)
    clamp = build_clamp(build_subject(FAMILIES["gpt_bigcode"]().eval(), None, "layers.0.mlp"))
    assert clamp.heads and not known_weights(clamp)
    assert read_channels({}, torch.randn(5, 32), np.ones(5)) is None


def test_the_far_tail_is_that_of_one_direction_where_one_is_all_that_is_read() -> None:
    """Of a matrix of rank 1 the share is a squared cosine, whose distribution is a beta's."""
    matrix = torch.zeros(3, 40, dtype=torch.float64)
    matrix[1, 5] = 2.0
    for chance in (1e-3, 1e-6, 1e-9):
        share = stats.beta.isf(chance, 0.5, 39 / 2)
        found = float(standardise(matrix, torch.tensor(share, dtype=torch.float64)))
        assert threshold(matrix, chance) == pytest.approx(found, rel=0.02)
    assert threshold(torch.zeros(3, 40), 1e-3) == np.inf
