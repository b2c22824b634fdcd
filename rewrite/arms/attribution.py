"""What each latent's simulation costs in loss, from a handful of backward passes.

1. With a the true and â the calibrated activations, what is written is linear in both, so the straight line from a to
   â is one from the `coder` arm's vectors to the `simulated` arm's: w(α) = w(a) + α (w(â) − w(a)).
2. Integrated gradients (Sundararajan, Taly & Yan 2017) along it: latent l costs Σ (â_l − a_l) ∫ ∂loss/∂a_l dα, summed
   over positions, and ∂loss/∂a_l = ∂loss/∂w · W_l. One backward pass at each of a few α gives all latents at once; the
   integral is the midpoint rule's.
3. The costs of all latents add up to loss(simulated) − loss(coder), but for the rule's error ("completeness"), which
   is measured, not assumed. It is Aumann and Shapley's (1974) way to share a joint cost: what latents cost together is
   shared among them, so a latent's cost is that among simulated and true others alike.
4. `alone_losses` is the yardstick: the loss with one latent simulated and all others true, a forward pass for each.

Positions that are not written (`rewrite.text.windows.Text.counted`) are nobody's cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from rewrite.arms.batches import Batch, losses_of
from rewrite.arms.splice import Bags, Splicer, Written
from rewrite.subject.scoring import losses_from
from rewrite.subject.subject import Subject

CHUNK = 1 << 24
"""Numbers gathered at once while entries are weighed; bounds memory at 64 MiB for each of two factors."""


@dataclass(frozen=True)
class Errors:
    """â − a of the simulated latents at some positions: a constant for each latent, and a sparse rest."""

    constant: Float[Tensor, " latent"]
    rest: csr_array

    @classmethod
    def of(cls, written: Written, splicer: Splicer, simulated: Bool[np.ndarray, " latent"]) -> Errors:
        """The errors of the latents marked `simulated`; the others have none."""
        shape = (len(written.base), len(simulated))
        rest = _to_csr(written.simulated, shape) - _to_csr(written.truth, shape)
        rest.data = rest.data * simulated[rest.indices]
        return cls(splicer.resting * torch.as_tensor(simulated, device=splicer.resting.device), csr_array(rest))

    def at(self, latent: int) -> Float[np.ndarray, " position"]:
        """One latent's error at each position."""
        column: np.ndarray = self.rest[:, [latent]].toarray()[:, 0] + float(self.constant[latent])
        return column

    def squares(self) -> Float[np.ndarray, " latent"]:
        """Each latent's squared errors summed over positions."""
        constant = self.constant.cpu().numpy().astype(np.float64)
        own, latents = self.rest.data.astype(np.float64), self.rest.indices
        rest = np.bincount(latents, own * (own + 2 * constant[latents]), len(constant))
        return np.maximum(len(self) * constant**2 + rest, 0.0)

    def __len__(self) -> int:
        return int(self.rest.shape[0])


def _to_csr(bags: Bags, shape: tuple[int, int]) -> csr_array:
    indptr = np.append(bags.offsets.cpu().numpy(), len(bags.latents))
    return csr_array((bags.weights.cpu().numpy(), bags.latents.cpu().numpy(), indptr), shape=shape)


Vectors = Float[Tensor, "counted d"]


def differentiate(subject: Subject, batch: Batch, vectors: Vectors) -> Vectors:
    """The gradient of the batch's summed loss by what is written at each counted position."""
    placed = batch.place(vectors).requires_grad_()
    with torch.enable_grad():
        loss = losses_from(subject, batch.prefix, placed, batch.targets).sum()
        (gradient,) = torch.autograd.grad(loss, placed)
    found: Tensor = gradient[batch.counted].to(vectors.device)
    return found


def integrate(subject: Subject, batch: Batch, begin: Vectors, end: Vectors, steps: int) -> Vectors:
    """The mean gradient along the straight line from `begin` to `end`, by the midpoint rule."""
    mean = torch.zeros_like(begin)
    for step in range(steps):
        mean += differentiate(subject, batch, begin + (step + 0.5) / steps * (end - begin)) / steps
    return mean


def attribute(
    gradient: Vectors,
    errors: Errors,
    decoder: Float[Tensor, "latent d"],
    owners: Int[np.ndarray, " counted"],
    documents: int,
) -> Float[np.ndarray, "document latent"]:
    """Σ error · gradient · decoder row over each document's positions; `owners` says whose each position is."""
    owner = torch.as_tensor(owners, device=gradient.device)
    sums = torch.zeros(documents, gradient.shape[1], dtype=torch.float64, device=gradient.device)
    sums.index_add_(0, owner, gradient.double())
    # A constant error is weighed once for a whole document: its gradients, summed.
    total: np.ndarray = ((sums.float() @ decoder.T) * errors.constant).cpu().numpy().astype(np.float64)
    latents, entries = len(decoder), len(errors.rest.data)
    rows = np.repeat(np.arange(len(errors)), np.diff(errors.rest.indptr))
    products = np.empty(entries)
    for begin in range(0, entries, step := max(1, CHUNK // decoder.shape[1])):
        part = slice(begin, begin + step)
        row = torch.as_tensor(rows[part], device=gradient.device)
        latent = torch.as_tensor(errors.rest.indices[part].astype(np.int64), device=gradient.device)
        products[part] = (gradient[row] * decoder[latent]).sum(1).cpu().numpy()
    places = owners[rows] * latents + errors.rest.indices
    weighed = np.bincount(places, products * errors.rest.data, documents * latents)
    return total + weighed.reshape(documents, latents)


def alone_losses(
    subject: Subject,
    batch: Batch,
    begin: Vectors,
    errors: Errors,
    decoder: Float[Tensor, "latent d"],
    latent: int,
) -> Float[np.ndarray, " window"] | None:
    """The loss of each window with this latent simulated and all others true; None where it errs nowhere.

    `begin` is what the coder arm writes. What one latent changes is its error times its decoder row.
    """
    error = errors.at(latent)
    if not error.any():
        return None
    column = torch.as_tensor(error.astype(np.float32), device=begin.device)
    return losses_of(subject, batch, begin + column[:, None] * decoder[latent])
