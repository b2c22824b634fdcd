"""Ridge regression (Hoerl & Kennard 1970) from sums alone: counts, sums and products of features and targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import linalg


@dataclass
class Inputs:
    """Counts, sums and products of the features x of some positions."""

    n: float
    x: Float[np.ndarray, " feature"]
    xx: Float[np.ndarray, "feature feature"]

    @classmethod
    def empty(cls, features: int) -> Inputs:
        """Nothing yet."""
        return cls(0.0, np.zeros(features), np.zeros((features, features)))

    def __add__(self, other: Inputs) -> Inputs:
        return Inputs(self.n + other.n, self.x + other.x, self.xx + other.xx)


@dataclass
class Targets:
    """Sums of the targets y of the same positions, and their products with the features."""

    y: Float[np.ndarray, " latent"]
    xy: Float[np.ndarray, "feature latent"]
    yy: float

    @classmethod
    def empty(cls, features: int, latents: int) -> Targets:
        """Nothing yet."""
        return cls(np.zeros(latents), np.zeros((features, latents)), 0.0)

    def __add__(self, other: Targets) -> Targets:
        return Targets(self.y + other.y, self.xy + other.xy, self.yy + other.yy)


@dataclass(frozen=True)
class Sums:
    """What least squares needs to know of some positions."""

    inputs: Inputs
    targets: Targets

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.inputs + other.inputs, self.targets + other.targets)


@dataclass(frozen=True)
class Line:
    """A linear map with a constant."""

    weights: Float[np.ndarray, "feature latent"]
    bias: Float[np.ndarray, " latent"]


@dataclass(frozen=True)
class Pulled:
    """What some latents need to be solved for: their means, and n times their covariances with the features."""

    y: Float[np.ndarray, " latent"]
    xy: Float[np.ndarray, "feature latent"]

    @classmethod
    def of(cls, sums: Sums, dtype: type = np.float64) -> Pulled:
        """Of these positions; the covariances are kept as a type of float."""
        inputs, targets = sums.inputs, sums.targets
        y = targets.y / inputs.n
        return cls(y, _centre(targets.xy, inputs.n, inputs.x / inputs.n, y).astype(dtype, copy=False))

    def solve(self, inputs: Inputs, ridge: float) -> Line:
        """The least of squared error plus ridge · mean variance · n · |weights|²; the constant is not shrunk."""
        x = inputs.x / inputs.n
        covariance = _centre(inputs.xx, inputs.n, x, x)
        size = max(float(np.trace(covariance)) / len(x), np.finfo(float).tiny)
        covariance[np.diag_indices_from(covariance)] += ridge * size
        products = self.xy.astype(np.float64, copy=False)
        weights = linalg.solve(covariance, products, overwrite_a=True, assume_a="pos")
        return Line(weights, self.y - x @ weights)


def _centre(products: np.ndarray, n: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sums of products without n times those of the means, in one matrix: several would not fit beside each other."""
    centred = np.outer(x, y)
    centred *= -n
    centred += products
    return centred


def squared_error(line: Line, sums: Sums) -> float:
    """Σ (y − x·weights − bias)² over the positions and latents of the sums."""
    w, b, inputs, targets = line.weights, line.bias, sums.inputs, sums.targets
    quadratic = float((w * (inputs.xx @ w)).sum()) + inputs.n * float(b @ b) + 2 * float(inputs.x @ w @ b)
    return quadratic + targets.yy - 2 * float((w * targets.xy).sum()) - 2 * float(targets.y @ b)
