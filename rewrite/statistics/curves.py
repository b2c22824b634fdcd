"""What the calibrator says and how it holds on the test split: `5_calibration.safetensors`.

1. `Curves` has the calibrator itself, the mean that stands for a missing prediction, and when a prediction is a
   firing, so that whoever shows a simulation calibrates it as it was scored.
2. `measure` walks the test split once. Strengths fall into ten groups, 0 to 9 of the simulator's scale, a calibrator's
   levels rounded, halves up; in each group stand the number of predictions, and the sums of the true and of the
   calibrated activations there. A calibrator that holds has the same two sums (a reliability diagram: Murphy & Winkler,
   J. R. Stat. Soc. C 26 (1977) 41).

A prediction that is missing is counted nowhere; where nothing is stored the strength is 0. Latents that are not
rewritten, or have no prediction at all, have no counts.

5_calibration.safetensors       scale; `values` or `factor` of the calibrator; mean; count, truth and predicted
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from rewrite.arms.calibrate import LEVELS, Calibrator, Pair, Scaled, Table, to_levels
from rewrite.arms.controls import TOP, Threshold, find_threshold
from rewrite.config import UserError
from rewrite.run.arrays import load_arrays, save_arrays

Row = dict[str, Any]

GROUPS = TOP + 1
STEP = (LEVELS - 1) // TOP


@dataclass(frozen=True)
class Reliability:
    """Predictions of the test split by strength, in groups 0 to 9 of the simulator's scale."""

    count: Int[np.ndarray, "latent group"]
    """Positions with a prediction in that group."""
    truth: Float[np.ndarray, "latent group"]
    """Sum of the true activations there."""
    predicted: Float[np.ndarray, "latent group"]
    """Sum of the calibrated activations there."""


@dataclass(frozen=True)
class Measured:
    """The test split, walked once; `positions` counts those that were simulated."""

    positions: int
    test: Reliability

    @property
    def missing_shares(self) -> Float[np.ndarray, " latent"]:
        """The share of each latent's predictions that are missing: all of them where nothing is counted."""
        shares: np.ndarray = (self.positions - self.test.count.sum(1)) / max(self.positions, 1)
        return shares


@dataclass(frozen=True)
class Curves:
    """A run's calibration, a row for each latent of the coder."""

    scale: float
    """The top of the simulator's scale."""
    calibrator: Calibrator
    threshold: Threshold
    """When a prediction is a firing (`rewrite.arms.controls`)."""
    mean: Float[np.ndarray, " latent"]
    """What stands for a missing prediction: the latent's mean on the calibrate split."""
    test: Reliability


def measure(
    pairs: Iterable[Pair], calibrator: Calibrator, scale: float, known: Bool[np.ndarray, " latent"]
) -> Measured:
    """Walk truth and strengths once; `known` latents are rewritten and have predictions."""
    latents, positions = len(known), 0
    size = latents * GROUPS
    count, truth, predicted = np.zeros(size, dtype=np.int64), np.zeros(size), np.zeros(size)
    silent = np.zeros(latents, dtype=np.int64)
    for pair in pairs:
        positions += pair.truth.shape[0]
        strength, latent = pair.strengths.data.astype(np.float32), pair.strengths.indices
        group = _group(strength, scale)
        place, said = _place(latent, group)
        count += np.bincount(place, minlength=size)
        predicted += np.bincount(place, calibrator.apply(strength[said], latent[said]), size)
        silent += pair.truth.shape[0] - np.bincount(latent, minlength=latents)
        place, said = _place(pair.truth.indices, _look_up(pair.truth, pair.strengths, group))
        truth += np.bincount(place, pair.truth.data[said], size)
    # Where no strength was stored it is 0, and the activation is the one that the calibrator gives to 0.
    count[::GROUPS] += silent
    predicted[::GROUPS] += silent * calibrator.apply(np.zeros(latents, dtype=np.float32), np.arange(latents))
    sums = (np.where(known[:, None], sums.reshape(latents, GROUPS), 0) for sums in (count, truth, predicted))
    return Measured(positions, Reliability(*sums))


def pool(test: Reliability, maximum: Float[np.ndarray, " latent"]) -> list[Row]:
    """`calibration` of 6_stats.json: mean activations by strength, over all latents in units of their maxima.

    Latents whose maximum is not above 0 have no such unit and are left out.
    """
    alive = maximum > 0
    unit = np.where(alive, maximum, 1)[:, None]
    count = (test.count * alive[:, None]).sum(0)
    sums = [(values / unit * alive[:, None]).sum(0) for values in (test.predicted, test.truth)]
    return [
        {
            "strength": group,
            "predictions": int(number),
            "predicted": float(sums[0][group] / number) if number else None,
            "true": float(sums[1][group] / number) if number else None,
        }
        for group, number in enumerate(count)
    ]


def _group(strengths: Float[np.ndarray, " entry"], scale: float) -> Int[np.ndarray, " entry"]:
    """The group of each strength, -1 for one that is missing."""
    known = ~np.isnan(strengths)
    levels = to_levels(np.where(known, strengths, 0), scale)
    return np.where(known, (levels + STEP // 2) // STEP, -1)


def _place(
    latents: Int[np.ndarray, " entry"], groups: Int[np.ndarray, " entry"]
) -> tuple[Int[np.ndarray, " said"], Bool[np.ndarray, " entry"]]:
    """Where the entries that have a group stand among all latents' groups, and which they are."""
    said = groups >= 0
    return latents[said].astype(np.int64) * GROUPS + groups[said], said


def _look_up(truth: csr_array, strengths: csr_array, groups: Int[np.ndarray, " entry"]) -> Int[np.ndarray, " firing"]:
    """The group of the strength at each entry of `truth`; 0 where no strength is stored."""
    said, wanted = _keys(strengths), _keys(truth)
    if not len(said):
        return np.zeros(len(wanted), dtype=np.int64)
    order = np.arange(len(said)) if strengths.has_sorted_indices else np.argsort(said)
    place = order[np.minimum(np.searchsorted(said, wanted, sorter=order), len(said) - 1)]
    return np.where(said[place] == wanted, groups[place], 0)


def _keys(matrix: csr_array) -> Int[np.ndarray, " entry"]:
    """A number for each entry's position and latent."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return rows * matrix.shape[1] + matrix.indices


def save_curves(path: Path, curves: Curves) -> None:
    """Write a run's calibration."""
    match curves.calibrator:
        case Table():
            own = {"values": curves.calibrator.values}
        case Scaled():
            own = {"factor": curves.calibrator.factor}
        case other:
            raise TypeError(f"a calibrator is a Table or Scaled, not {type(other).__name__}")
    arrays = {"scale": np.array([curves.scale]), "mean": curves.mean, **own, **vars(curves.test)}
    save_arrays(path, arrays)


def load_curves(path: Path) -> Curves:
    """Read a run's calibration. Raises UserError naming the file where it is absent, damaged or not one."""
    arrays = load_arrays(path)
    latents = len(arrays.get("mean", ()))
    shapes = {"scale": (1,), "mean": (latents,)} | dict.fromkeys(("count", "truth", "predicted"), (latents, GROUPS))
    shapes |= {"factor": (latents,)} if "factor" in arrays else {"values": (latents, LEVELS)}
    for name, shape in shapes.items():
        if name not in arrays or arrays[name].shape != shape:
            found = arrays[name].shape if name in arrays else "absent"
            raise UserError(f"{path}: {name} is {found}, not {shape}; delete it to compute it again")
    scale = float(arrays["scale"][0])
    calibrator: Calibrator = Scaled(arrays["factor"]) if "factor" in arrays else Table(scale, arrays["values"])
    test = Reliability(arrays["count"], arrays["truth"], arrays["predicted"])
    return Curves(scale, calibrator, find_threshold(calibrator, scale, latents), arrays["mean"], test)
