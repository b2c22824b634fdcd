"""Arm → the vector written at the hookpoint; the one place where arms differ.

With a the true and â the calibrated activations, S the latents that an arm simulates, and base(x) the coder's output
with every latent 0 (decoder bias and skip path):

    clean       the module's own output           coder      base + Σ a W
    zero        base                              zero_layer 0
    mean        base + Σ E[a] W                   mean_layer the module's mean output
    simulated   base + Σ_{l∉S} a W + Σ_{l∈S} â W  simulated_topk  the same after keeping the k largest at each position

The mixtures of a and â (`rewrite.arms.controls.MIXTURES`) and the readers that know no explanation
(`rewrite.arms.probes`) put their activations in the place of â, for the same S.

Where only some latents are rewritten (`sample.latents`), the others keep their true activations in every arm that goes
through the coder: base(x) then stands for the coder's output with every *rewritten* latent 0.

Positions that are not simulated, the first of each window among them, are nobody's: every arm leaves them as they are
(`rewrite.text.windows.Text.counted`). At strength 0 a calibrator may give a latent a small activation everywhere, so â
is kept as that constant and a sparse difference from it.

A new arm is a name in `FIXED_ARMS`, a case in `Splicer.vectors`, and its name in `rewrite.config.Control`, by which a
run chooses it; what the report says of it is an entry of `rewrite.report.arms.CONTROLS`, and one that is compared with
`simulated` is named in `rewrite.statistics.analysis.BASELINES`. What it needs of each latent is counted on the
calibrate split (`rewrite.arms.calibrate.Tally`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from rewrite.arms.calibrate import Calibrator, Tally
from rewrite.arms.controls import MIXTURES, calibrate_firings, find_threshold, mix
from rewrite.arms.probes import Reader
from rewrite.coder.coder import Coder

FIXED_ARMS = ("clean", "coder", "zero", "zero_layer", "mean", "mean_layer")
CHUNK = 1 << 24


@dataclass(frozen=True)
class Arm:
    """One thing written at the hookpoint; `fraction`, `order` and `seed` mean something for simulated arms only."""

    name: str
    fraction: float | None = None
    order: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Bags:
    """A sparse positions × latents matrix as torch wants it for a weighted sum of decoder rows."""

    latents: Int[Tensor, " entry"]
    offsets: Int[Tensor, " position"]
    weights: Float[Tensor, " entry"]

    @classmethod
    def of(cls, matrix: csr_array, device: torch.device) -> Bags:
        """The matrix on a device."""
        return cls(
            torch.as_tensor(matrix.indices.astype(np.int64), device=device),
            torch.as_tensor(matrix.indptr[:-1].astype(np.int64), device=device),
            torch.as_tensor(matrix.data.astype(np.float32), device=device),
        )

    def decode(self, decoder: Float[Tensor, "latent d"], keep: Bool[Tensor, " latent"]) -> Float[Tensor, "position d"]:
        """Σ over the kept latents of weight · decoder row, at each position."""
        weights = self.weights * keep[self.latents]
        return torch.nn.functional.embedding_bag(
            self.latents, decoder, self.offsets, mode="sum", per_sample_weights=weights
        )

    def add_to(self, dense: Float[Tensor, "position latent"], keep: Bool[Tensor, " latent"]) -> None:
        """Add the kept latents' weights to a dense matrix, in place."""
        ends = torch.cat([self.offsets[1:], self.offsets.new_tensor([len(self.latents)])])
        positions = torch.arange(len(self.offsets), device=dense.device).repeat_interleave(ends - self.offsets)
        dense.index_put_((positions, self.latents), self.weights * keep[self.latents], accumulate=True)


@dataclass(frozen=True)
class Written:
    """Everything that any arm needs to know of some counted positions."""

    output: Float[Tensor, "position d"]
    base: Float[Tensor, "position d"]
    truth: Bags
    simulated: Bags
    """â − â(0): the calibrated activations' difference from their value at strength 0."""
    activations: csr_array
    """a."""
    strengths: csr_array
    context: Int[Tensor, "position reach"] | None = None
    """What a reader sees (`rewrite.arms.probes.list_context`)."""


class Splicer:
    """Computes the vectors of every arm for a run's coder, calibrator and order of latents."""

    def __init__(
        self,
        coder: Coder,
        calibrator: Calibrator,
        tally: Tally,
        mean_output: Float[np.ndarray, " d"],
        rewritten: Bool[np.ndarray, " latent"],
        readers: Mapping[str, Reader] | None = None,
    ):
        device = coder.W_dec.device
        latents = np.arange(len(tally.mean))
        self.coder, self.calibrator, self.tally, self.means = coder, calibrator, tally, tally.mean
        self.readers = readers or {}
        self.threshold = find_threshold(calibrator, tally.scale, len(latents))
        self.at_zero = calibrator.apply(np.zeros(len(latents), dtype=np.float32), latents)
        self.every = torch.ones(len(latents), dtype=torch.bool, device=device)
        self.rewritten = torch.as_tensor(rewritten, device=device)
        self.all_rewritten = bool(rewritten.all())
        self.resting = torch.as_tensor(self.at_zero, device=device)
        means = torch.as_tensor((tally.mean * rewritten).astype(np.float32), device=device)
        self.mean_latents = means @ coder.W_dec
        self.mean_output = torch.as_tensor(mean_output, device=device)

    def replace_missing(self, missing: Bool[np.ndarray, " latent"]) -> None:
        """Let latents without any prediction rest at their calibrated mean."""
        device = self.resting.device
        means = torch.as_tensor(self.means.astype(np.float32), device=device)
        self.resting = torch.where(torch.as_tensor(missing, device=device), means, self.resting)
        self.at_zero = self.resting.cpu().numpy()

    def prepare(
        self,
        x: Float[Tensor, "position d"],
        output: Float[Tensor, "position d"],
        truth: csr_array,
        strengths: csr_array,
        context: Int[Tensor, "position reach"] | None = None,
    ) -> Written:
        """What the arms share: calibrate the strengths once, move everything to the coder's device once."""
        true = Bags.of(truth, self.resting.device)
        return Written(output, self.coder.base(x), true, self._calibrate(strengths), truth, strengths, context)

    def prepare_again(self, written: Written, strengths: csr_array) -> Written:
        """The same positions of the same coder with other strengths, by this splicer's calibration."""
        return replace(written, simulated=self._calibrate(strengths), strengths=strengths)

    def _calibrate(self, strengths: csr_array) -> Bags:
        latents = strengths.indices
        activations = self.calibrator.apply(strengths.data.astype(np.float32), latents)
        # A value missing at one position is not zero: the latent's mean stands there.
        activations = np.where(np.isnan(activations), self.means[latents], activations)
        difference = csr_array((activations - self.at_zero[latents], latents, strengths.indptr), shape=strengths.shape)
        return Bags.of(difference, self.resting.device)

    def vectors(
        self, arm: Arm, written: Written, simulated: Bool[Tensor, " latent"] | None = None
    ) -> Float[Tensor, "position d"]:
        """What the arm writes at each position; `simulated` marks the latents that a simulated arm simulates."""
        match arm.name:
            case "clean":
                return written.output
            case "coder":
                return written.base + written.truth.decode(self.coder.W_dec, self.every)
            case "zero":
                return self._without(written)
            case "zero_layer":
                return torch.zeros_like(written.base)
            case "mean":
                return self._without(written) + self.mean_latents
            case "mean_layer":
                return self.mean_output.expand_as(written.base)
        if simulated is None:
            raise ValueError(f"arm {arm.name} needs the latents that it simulates")
        return self._replaced(arm, written, simulated)

    def _replaced(self, arm: Arm, written: Written, simulated: Bool[Tensor, " latent"]) -> Float[Tensor, "position d"]:
        """The coder's output with something else in the place of the simulated latents."""
        if arm.name == "simulated_topk":
            return written.base + self._top(self._mixed(written, simulated)) @ self.coder.W_dec
        decoder = self.coder.W_dec
        others = written.base + written.truth.decode(decoder, ~simulated)
        if arm.name in MIXTURES:
            return others + self._mixture(arm.name, written).decode(decoder, simulated)
        if arm.name in self.readers:
            return others + self._read(self.readers[arm.name], written, simulated)
        return others + (self.resting * simulated) @ decoder + written.simulated.decode(decoder, simulated)

    def _mixture(self, name: str, written: Written) -> Bags:
        """True and calibrated activations, mixed as a control says."""
        fired = calibrate_firings(written.strengths, self.calibrator, self.threshold)
        return Bags.of(mix(name, written.activations, fired, self.tally), self.resting.device)

    def _read(
        self, reader: Reader, written: Written, simulated: Bool[Tensor, " latent"]
    ) -> Float[Tensor, "position d"]:
        """A reader's part of the output, some positions at a time: its activations are dense."""
        if written.context is None:
            raise ValueError("a reader needs the context of each position")
        decoder = self.coder.W_dec * simulated[:, None]
        parts = torch.split(written.context, max(1, CHUNK // len(decoder)))
        return torch.cat([reader.activations(part) @ decoder for part in parts])

    def _without(self, written: Written) -> Float[Tensor, "position d"]:
        """The coder's output with every rewritten latent 0."""
        if self.all_rewritten:
            return written.base
        return written.base + written.truth.decode(self.coder.W_dec, ~self.rewritten)

    def _mixed(self, written: Written, simulated: Bool[Tensor, " latent"]) -> Float[Tensor, "position latent"]:
        """Every latent's activation at each position: simulated or true."""
        dense = (self.resting * simulated).repeat(len(written.base), 1)
        written.truth.add_to(dense, ~simulated)
        written.simulated.add_to(dense, simulated)
        return dense

    def _top(self, activations: Float[Tensor, "position latent"]) -> Float[Tensor, "position latent"]:
        """The k largest of each position, the others 0."""
        top = activations.topk(self.coder.k or activations.shape[1], dim=1)
        return torch.zeros_like(activations).scatter(1, top.indices, top.values)
