"""What a coder is worth on text that nothing was fitted to: variance explained, latents active, and the loss it keeps.

FVU has one mean over the whole set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rewrite.coder.coder import Coder
from rewrite.config import UserError
from rewrite.display.progress import bar
from rewrite.subject.scoring import NONE, losses_from, next_tokens
from rewrite.subject.subject import Subject
from rewrite.text.windows import Windows, pad_windows


@dataclass(frozen=True)
class Metrics:
    """What a coder is worth on held-out text."""

    fvu: float
    """Fraction of the output's variance left unexplained: Σ‖y−ŷ‖² / Σ‖y−ȳ‖², one mean over the whole set."""
    fvu_with_first: float
    """The same with the first position of each window, which no arm writes: attention gathers there in many models, and
    its outputs may be so large that they are most of the variance."""
    l0: float
    """Latents active at a position, on average [latents]."""
    dead: float
    """Share of the latents that never fire here."""
    loss_clean: float
    """Loss with the module's own output [nats per token]."""
    loss_coder: float
    """Loss with the coder's output [nats per token]."""
    loss_zero: float
    """Loss with the coder's output when every latent is 0 [nats per token]."""
    recovered: float | None
    """(zero − coder) / (zero − clean), the share of the module's effect on the loss that the coder keeps; None where
    the module has no effect."""
    positions: int
    """Positions measured [tokens]."""
    tokens: int
    """Tokens whose loss is counted [tokens]."""


class Tally:
    """Sums over counted positions, in float64."""

    def __init__(self, width: int, latents: int) -> None:
        # Of counted positions, and of the first of each window.
        self.error, self.squares = np.zeros(2), np.zeros(2)
        self.sum, self.positions = np.zeros((2, width)), np.zeros(2, dtype=np.int64)
        self.active = self.tokens = 0
        self.fired = np.zeros(latents, dtype=bool)
        self.losses = {"clean": 0.0, "coder": 0.0, "zero": 0.0}

    def add(self, truth: Tensor, written: Tensor, first: bool = False) -> None:
        """Take in the module's outputs and the coder's at some positions, [position, d] each."""
        y, guess = truth.double(), written.double()
        self.error[int(first)] += float((y - guess).square().sum())
        self.squares[int(first)] += float(y.square().sum())
        self.sum[int(first)] += y.sum(0).cpu().numpy()
        self.positions[int(first)] += len(y)

    def _variance(self, kinds: int) -> float:
        """Σ‖y−ȳ‖² over the first `kinds` of positions."""
        total = self.sum[:kinds].sum(0)
        return float(self.squares[:kinds].sum() - total @ total / max(self.positions[:kinds].sum(), 1))

    def metrics(self) -> Metrics:
        """The means. Raises UserError where nothing was taken in that has a mean."""
        variance = self._variance(1)
        if not np.isfinite([variance, *self.error]).all():
            raise UserError(
                "hookpoint: what the module returns, or the coder makes of it, holds NaN or infinite values; set dtype "
                "to float32 or bfloat16, or take another layer"
            )
        if self.tokens == 0:
            raise UserError("corpus.calibrate: its documents hold too few tokens to measure a coder on; ask for more")
        if variance <= 1e-12 * self.squares[0]:
            raise UserError(
                f"hookpoint: the module returns the same at all {self.positions[0]:,} positions of the calibrate split "
                "and there is nothing to explain; take another layer"
            )
        clean, coder, zero = (self.losses[arm] / self.tokens for arm in ("clean", "coder", "zero"))
        return Metrics(
            fvu=float(self.error[0]) / variance,
            fvu_with_first=float(self.error.sum()) / self._variance(2),
            l0=self.active / int(self.positions[0]),
            dead=1 - float(self.fired.mean()),
            loss_clean=clean,
            loss_coder=coder,
            loss_zero=zero,
            recovered=(zero - coder) / (zero - clean) if zero != clean else None,
            positions=int(self.positions[0]),
            tokens=self.tokens,
        )


def hold_out_metrics(subject: Subject, coder: Coder, windows: Windows, batch: int) -> Metrics:
    """Measure a coder on token windows, `batch` of them in a forward pass."""
    tally = Tally(coder.W_dec.shape[1], coder.latents)
    # Windows of like length together: less padding.
    windows = sorted(windows, key=len)
    with bar(what="measure", unit="windows", total=len(windows)) as progress, torch.no_grad():
        for begin in range(0, len(windows), batch):
            padded = pad_windows(windows[begin : begin + batch])
            arrays = (padded.ids, padded.counted, padded.real & ~padded.counted)
            ids, counted, first = (torch.from_numpy(array).to(subject.device) for array in arrays)
            _measure(subject, coder, ids, counted, first, tally)
            progress.update(len(padded.ids))
    return tally.metrics()


def _measure(
    subject: Subject,
    coder: Coder,
    ids: Int[Tensor, "window position"],
    counted: Bool[Tensor, "window position"],
    first: Bool[Tensor, "window position"],
    tally: Tally,
) -> None:
    """Add one batch to the tally; `first` marks what is real and does not count."""
    prefix = subject.run_to(ids)
    x = coder.read(prefix.input[counted], prefix.output[counted])
    activations = coder.encode(x)
    written = {"coder": coder.reconstruct(activations, x), "zero": coder.base(x)}
    tally.add(prefix.output[counted], written["coder"])
    begin = coder.read(prefix.input[first], prefix.output[first])
    tally.add(prefix.output[first], coder.reconstruct(coder.encode(begin), begin), first=True)
    tally.active += activations.nnz
    tally.fired[activations.indices] = True
    targets = next_tokens(ids, counted, real=counted)  # All that is real counts here, but for a first position.
    tally.tokens += int((targets != NONE).sum())
    for arm in tally.losses:
        vectors = prefix.output.clone()
        if arm in written:
            vectors[counted] = written[arm].to(vectors.dtype)
        tally.losses[arm] += float(losses_from(subject, prefix, vectors, targets).sum())
