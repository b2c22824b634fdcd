"""Costs of latents against their definitions, on a small Llama of random weights and a coder of random directions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from makers.llamas import llama_sizes
from scipy.sparse import csr_array
from transformers import LlamaConfig, LlamaForCausalLM

from rewrite.arms import attribution
from rewrite.arms.attribution import Errors, alone_losses, attribute, differentiate, integrate
from rewrite.arms.batches import Batch, losses_of
from rewrite.arms.calibrate import Pair, conditional_mean, tally
from rewrite.arms.splice import Arm, Splicer
from rewrite.coder.coder import Coder
from rewrite.subject.scoring import next_tokens
from rewrite.subject.subject import build_subject

WINDOWS, LENGTH, LATENTS, WIDTH = 6, 12, 20, 16
EVERY = np.ones(LATENTS, dtype=bool)


class Case:
    """A subject, a batch of windows of three documents, a splicer; `spoil` is a latent with large wrong strengths."""

    def __init__(self, layer: int = 0, simulated: np.ndarray = EVERY, spoil: int | None = None) -> None:
        torch.manual_seed(0)
        config = LlamaConfig(**llama_sizes(40, WIDTH, num_key_value_heads=1), initializer_range=0.3)
        self.subject = build_subject(LlamaForCausalLM(config), None, f"layers.{layer}.mlp")
        draws = np.random.default_rng(0)
        coder = Coder(
            W_enc=torch.randn(LATENTS, WIDTH) / 4,
            b_enc=torch.zeros(LATENTS),
            W_dec=torch.randn(LATENTS, WIDTH) / 4,
            b_dec=torch.randn(WIDTH) / 4,
            kind="transcoder",
            activation="topk",
            k=5,
        )
        ids = torch.as_tensor(draws.integers(0, 40, (WINDOWS, LENGTH)))
        counted = torch.ones_like(ids, dtype=torch.bool)
        counted[:, 0] = False
        counted[2, 5:] = False
        real = torch.ones_like(counted)
        prefix = self.subject.run_to(ids)
        x = coder.read(prefix.input[counted], prefix.output[counted])
        truth = coder.encode(x)
        noisy = np.round(truth.toarray() * draws.choice([0, 0.5, 1, 1.5], truth.shape) * 3)
        noisy += draws.random(truth.shape) < 0.1
        if spoil is not None:
            noisy[:, spoil] = 9
        self.strengths = csr_array(np.minimum(noisy, 9).astype(np.float32))
        fitted = tally([Pair(truth, self.strengths)], LATENTS, 9.0)
        calibrator = conditional_mean(fitted)
        if spoil is not None:
            calibrator.values[spoil, 90] = 30.0  # type: ignore[attr-defined]
        self.splicer = Splicer(coder, calibrator, fitted, np.zeros(WIDTH, dtype=np.float32), EVERY)
        written = self.splicer.prepare(x, prefix.output[counted], truth, self.strengths)
        targets = next_tokens(ids, counted, real)
        owners = np.array([0, 0, 1, 1, 1, 2], dtype=np.int32)
        self.batch = Batch(prefix, counted, targets, written, owners, np.flatnonzero(counted))
        # Random weights know no text, so what comes next is what the coder arm says: true latents are worth something.
        placed = prefix.output.clone()
        placed[counted] = self.arm("coder")
        said = self.subject.run_from(prefix, placed).argmax(-1)
        self.batch = replace(self.batch, targets=torch.where(targets >= 0, said, targets))
        self.simulated, self.truth, self.decoder = simulated, truth, coder.W_dec
        self.errors = Errors.of(written, self.splicer, simulated)
        self.owners = self.batch.owners.astype(np.int64)

    def arm(self, name: str, marked: np.ndarray | None = None) -> torch.Tensor:
        marks = None if marked is None else torch.as_tensor(marked)
        return self.splicer.vectors(Arm(name, 1.0, "best"), self.batch.written, marks)

    def costs(self, steps: int) -> np.ndarray:
        mean = integrate(self.subject, self.batch, self.arm("coder"), self.arm("simulated", self.simulated), steps)
        return attribute(mean, self.errors, self.decoder, self.owners, 3)

    def difference(self) -> np.ndarray:
        """Loss of the simulated arm less that of the coder, by window."""
        ends = [self.arm("simulated", self.simulated), self.arm("coder")]
        simulated, coder = (losses_of(self.subject, self.batch, end) for end in ends)
        return simulated - coder

    def dense_errors(self) -> np.ndarray:
        latents = np.broadcast_to(np.arange(LATENTS), self.truth.shape)
        calibrated = self.splicer.calibrator.apply(self.strengths.toarray().ravel(), latents.ravel())
        return (calibrated.reshape(latents.shape) - self.truth.toarray()) * self.simulated


SOME = np.arange(LATENTS) % 3 > 0


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("simulated", [EVERY, SOME], ids=["every", "some"])
def test_costs_add_up_to_what_the_simulation_costs(layer: int, simulated: np.ndarray) -> None:
    case = Case(layer, simulated)
    whole = case.difference().sum()
    assert whole > 1
    errors = [abs(case.costs(steps).sum() - whole) / whole for steps in (1, 4, 16, 64)]
    # The midpoint rule's error falls as the square of the steps: 16-fold where the steps are 4 times as many.
    assert errors[0] > 1e-4 and errors[1] < errors[0] / 2
    assert errors[2] == pytest.approx(errors[1] / 16, rel=0.5)
    assert errors[3] < 2e-5


def test_what_is_not_simulated_costs_nothing() -> None:
    case = Case(simulated=SOME)
    assert (case.costs(2)[:, ~SOME] == 0).all() and (case.costs(2)[:, SOME] != 0).all()


def test_costs_are_the_gradient_by_each_activation_times_its_error() -> None:
    """The definition, by torch on dense activations: no vectors at the hookpoint, no sparse entries."""
    case = Case()
    truth, error = torch.as_tensor(case.truth.toarray()), torch.as_tensor(case.dense_errors())
    base, steps, mean = case.batch.written.base, 3, torch.zeros(case.truth.shape)
    for step in range(steps):
        activations = (truth + (step + 0.5) / steps * error).requires_grad_()
        vectors = case.batch.prefix.output.clone()
        vectors[case.batch.counted] = base + activations @ case.decoder
        logits = case.subject.run_from(case.batch.prefix, vectors)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), case.batch.targets.flatten(), reduction="sum")
        mean += torch.autograd.grad(loss, activations)[0] / steps
    expected = np.stack([(mean * error).numpy()[case.owners == document].sum(0) for document in range(3)])
    np.testing.assert_allclose(case.costs(steps), expected, atol=2e-5)


def test_entries_in_chunks_are_entries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case()
    at_once = case.costs(1)
    monkeypatch.setattr(attribution, "CHUNK", 7 * WIDTH)
    np.testing.assert_allclose(case.costs(1), at_once, rtol=1e-6)


def test_gradients_are_those_of_small_steps() -> None:
    case = Case(1)
    begin = case.arm("coder")
    gradient = differentiate(case.subject, case.batch, begin)
    step = 1e-2 * torch.randn(begin.shape, generator=torch.Generator().manual_seed(1))
    up, down = (losses_of(case.subject, case.batch, begin + sign * step).sum() for sign in (1, -1))
    assert (up - down) / 2 == pytest.approx(float((gradient * step).sum()), rel=1e-2)


def test_errors_are_the_calibrated_less_the_true_activations() -> None:
    case = Case(simulated=SOME)
    dense = case.dense_errors()
    np.testing.assert_allclose(np.stack([case.errors.at(i) for i in range(LATENTS)], axis=1), dense, atol=1e-6)
    np.testing.assert_allclose(case.errors.squares(), (dense**2).sum(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("latent", [0, 7])
def test_one_latent_alone_is_the_arm_that_simulates_only_it(latent: int) -> None:
    case = Case(1)
    only = np.arange(LATENTS) == latent
    expected = losses_of(case.subject, case.batch, case.arm("simulated", only))
    coder = losses_of(case.subject, case.batch, case.arm("coder"))
    found = alone_losses(case.subject, case.batch, case.arm("coder"), case.errors, case.decoder, latent)
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.abs(expected - coder).max() > 1e-3  # simulating it changes something


def test_a_latent_without_errors_needs_no_pass() -> None:
    case = Case(simulated=SOME)
    assert alone_losses(case.subject, case.batch, case.arm("coder"), case.errors, case.decoder, 0) is None


@pytest.mark.parametrize("spoiled", [3, 11])
def test_a_latent_made_costly_by_hand_ranks_first(spoiled: int) -> None:
    case = Case(spoil=spoiled)
    costs = case.costs(32).sum(0)
    assert np.argmax(costs) == spoiled and costs[spoiled] > 2 * np.delete(costs, spoiled).max()
    coder = losses_of(case.subject, case.batch, case.arm("coder")).sum()
    measured = [
        alone_losses(case.subject, case.batch, case.arm("coder"), case.errors, case.decoder, i) for i in range(LATENTS)
    ]
    assert np.argmax([0 if loss is None else loss.sum() - coder for loss in measured]) == spoiled


def test_gradients_pass_only_where_they_are_wanted() -> None:
    case = Case(1)
    vectors = case.batch.prefix.output.clone()
    plain = case.subject.run_from(case.batch.prefix, vectors)
    assert not plain.requires_grad
    wanted = vectors.clone().requires_grad_()
    found = case.subject.run_from(case.batch.prefix, wanted)
    assert found.requires_grad and torch.equal(found.detach(), plain)
    with torch.no_grad():
        assert not case.subject.run_from(case.batch.prefix, wanted).requires_grad
