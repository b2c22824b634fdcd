"""Each arm's vectors against its definition, written out densely."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from rewrite.arms.calibrate import Pair, conditional_mean, identity, tally
from rewrite.arms.splice import Arm, Splicer, Written
from rewrite.coder.coder import Coder

POSITIONS, LATENTS, WIDTH = 50, 12, 6
EVERY = np.ones(LATENTS, dtype=bool)


def make_coder(kind: str) -> Coder:
    draws = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draws)

    return Coder(
        W_enc=normal(LATENTS, WIDTH),
        b_enc=normal(LATENTS),
        W_dec=normal(LATENTS, WIDTH),
        b_dec=normal(WIDTH),
        kind=kind,  # type: ignore[arg-type]
        activation="topk",
        k=4,
        W_skip=normal(WIDTH, WIDTH) if kind == "skip_transcoder" else None,
        subtract_decoder_bias=kind == "sae",
    )


class Case:
    """A coder, true and simulated activations, and everything that a splicer derives from them."""

    def __init__(self, kind: str = "transcoder", calibrator: str = "identity") -> None:
        draws = np.random.default_rng(0)
        self.coder = make_coder(kind)
        self.x = torch.randn(POSITIONS, WIDTH, generator=torch.Generator().manual_seed(4))
        self.output = self.x.flip(0)
        self.truth = self.coder.encode(self.x)
        dense = self.truth.toarray() * draws.choice([0, 0.5, 1, 2], (POSITIONS, LATENTS))
        dense += 0.3 * (draws.random((POSITIONS, LATENTS)) < 0.1)
        self.strengths = csr_array(np.minimum(dense, 9).astype(np.float32))
        self.fitted = tally([Pair(self.truth, self.strengths)], LATENTS, 9.0)
        fit = {"identity": identity, "conditional_mean": conditional_mean}[calibrator]
        self.calibrator = fit(self.fitted)
        self.mean_output = np.arange(WIDTH, dtype=np.float32)
        self.splicer = Splicer(self.coder, self.calibrator, self.fitted, self.mean_output, EVERY)
        self.simulated = torch.as_tensor(draws.random(LATENTS) < 0.5)

    def prepare(self) -> Written:
        return self.splicer.prepare(self.x, self.output, self.truth, self.strengths)

    def vectors(self, name: str) -> np.ndarray:
        return self.splicer.vectors(Arm(name), self.prepare(), self.simulated).numpy()

    def base(self) -> np.ndarray:
        return self.coder.base(self.x).numpy()

    def decode(self, activations: np.ndarray) -> np.ndarray:
        return self.base() + activations @ self.coder.W_dec.numpy()

    def calibrated(self) -> np.ndarray:
        latents = np.broadcast_to(np.arange(LATENTS), (POSITIONS, LATENTS))
        return self.calibrator.apply(self.strengths.toarray().ravel(), latents.ravel()).reshape(latents.shape)

    def mixed(self) -> np.ndarray:
        return np.where(self.simulated.numpy(), self.calibrated(), self.truth.toarray())


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder", "sae"])
@pytest.mark.parametrize("calibrator", ["identity", "conditional_mean"])
def test_arms_are_their_definitions(kind: str, calibrator: str) -> None:
    case = Case(kind, calibrator)
    expected = {
        "clean": case.output.numpy(),
        "coder": case.decode(case.truth.toarray()),
        "zero": case.base(),
        "zero_layer": np.zeros((POSITIONS, WIDTH)),
        "mean": case.base() + case.fitted.mean @ case.coder.W_dec.numpy(),
        "mean_layer": np.broadcast_to(case.mean_output, (POSITIONS, WIDTH)),
        "simulated": case.decode(case.mixed()),
    }
    for name, vectors in expected.items():
        np.testing.assert_allclose(case.vectors(name), vectors, atol=2e-5, err_msg=name)


def test_latents_that_are_not_rewritten_keep_their_true_activations() -> None:
    case = Case("transcoder", "conditional_mean")
    rewritten = np.arange(LATENTS) < 5
    splicer = Splicer(case.coder, case.calibrator, case.fitted, case.mean_output, rewritten)
    truth, decoder = case.truth.toarray(), case.coder.W_dec.numpy()
    kept = case.coder.base(case.x).numpy() + (truth * ~rewritten) @ decoder
    written = case.prepare()
    simulated = torch.as_tensor(rewritten)
    np.testing.assert_allclose(splicer.vectors(Arm("zero"), written).numpy(), kept, atol=1e-5)
    means = (case.fitted.mean * rewritten) @ decoder
    np.testing.assert_allclose(splicer.vectors(Arm("mean"), written).numpy(), kept + means, atol=1e-5)
    whole = case.splicer.vectors(Arm("coder"), written).numpy()
    np.testing.assert_allclose(splicer.vectors(Arm("coder"), written).numpy(), whole, atol=1e-5)
    np.testing.assert_allclose(
        splicer.vectors(Arm("simulated"), written, simulated).numpy(),
        case.splicer.vectors(Arm("simulated"), written, simulated).numpy(),
        atol=1e-5,
    )


def test_topk_keeps_the_k_largest_of_the_mixture() -> None:
    case = Case(calibrator="conditional_mean")
    mixed = case.mixed()
    kept = np.where(mixed >= np.sort(mixed, axis=1)[:, [-4]], mixed, 0)
    np.testing.assert_allclose(case.vectors("simulated_topk"), case.decode(kept), atol=2e-5)


def test_a_value_missing_at_one_position_is_the_latents_mean_there() -> None:
    case = Case()
    case.simulated[:] = True
    holed = case.strengths.toarray()
    holed[7, 3] = np.nan
    case.strengths = csr_array(holed)
    expected = np.where(np.isnan(holed), case.fitted.mean, holed)
    np.testing.assert_allclose(case.vectors("simulated"), case.decode(expected), atol=2e-5)


def test_a_latent_without_predictions_rests_at_its_mean() -> None:
    case = Case()
    case.simulated[:] = True
    dense = case.strengths.toarray()
    dense[:, 5] = 0
    case.strengths = csr_array(dense)
    case.splicer.replace_missing(np.arange(LATENTS) == 5)
    dense[:, 5] = case.fitted.mean[5]
    np.testing.assert_allclose(case.vectors("simulated"), case.decode(dense), atol=2e-5)


def test_a_simulated_arm_must_be_told_what_it_simulates() -> None:
    case = Case()
    with pytest.raises(ValueError, match="needs the latents"):
        case.splicer.vectors(Arm("simulated"), case.prepare())
