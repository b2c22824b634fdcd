"""Mass: the probability of the ten digits together where a rating was read; what is left of it is noise if it is small.

A simulator that reads probabilities keeps, beside every strength, the probability of an answer that is no digit
(`rewrite.simulators.base.Strengths`). Strengths are expectations over the digits alone, so where the model had no mind
to say a digit they are renormalised noise, and no prediction looks missing. Counted on the test split's predictions, by
latent and by where a token stands in its window; a prediction that is missing has no mass.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rewrite.coder.activations import Split
from rewrite.simulators.strengths import Simulations

Row = dict[str, Any]
BINS, COARSE = 1000, 100
"""Equal bins of the mass over the whole run, and of each latent: quantiles are known to a thousandth and a
hundredth."""
PLACES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Where bins of positions in a window begin [tokens]; the first token is context and never rated."""


@dataclass(frozen=True)
class Mass:
    """Of the test split's predictions."""

    whole: Int[np.ndarray, " bin"]
    places: Int[np.ndarray, "place bin"]
    latents: Int[np.ndarray, "latent coarse_bin"]
    total: float

    @property
    def medians(self) -> Float[np.ndarray, " latent"]:
        """Of each latent; NaN for one without any prediction."""
        return np.array([quantile(counts, 0.5) for counts in self.latents])

    def describe(self) -> Row:
        """{"predictions", "mean", "median", "p10", "positions": [{"low", "high", "predictions", "median"}]}, as
        JSON."""
        ends = [*PLACES[1:], None]
        rows = [
            {"low": low, "high": high, "predictions": int(counts.sum()), "median": quantile(counts, 0.5)}
            for low, high, counts in zip(PLACES, ends, self.places, strict=True)
            if counts.any()
        ]
        number = int(self.whole.sum())
        known = {"mean": self.total / number, "median": quantile(self.whole, 0.5), "p10": quantile(self.whole, 0.1)}
        return {"predictions": number} | known | {"positions": rows}


def quantile(counts: Int[np.ndarray, " bin"], share: float) -> float:
    """The middle of the bin in which this share of the counts is reached; NaN without any."""
    if not counts.any():
        return float("nan")
    number = int(np.searchsorted(np.cumsum(counts), share * counts.sum()))
    return round((number + 0.5) / len(counts), 4)


def measure_mass(test: Split, simulations: Simulations) -> Mass | None:
    """Walk the test split once; None where the simulator reads no probabilities, or every prediction is missing."""
    whole, places = np.zeros(BINS, dtype=np.int64), np.zeros((len(PLACES), BINS), dtype=np.int64)
    latents, total = np.zeros((test.latents, COARSE), dtype=np.int64), 0.0
    for name in test.shards:
        outside = simulations.outside(name)
        if outside is None:
            return None
        text = test.load(name).text
        said = simulations.strengths(name, len(text.ids))
        position = np.arange(len(text.ids)) - np.repeat(text.starts[:-1], np.diff(text.starts))
        known = ~np.isnan(outside)
        row = np.repeat(np.arange(said.shape[0]), np.diff(said.indptr))[known]
        mass = np.clip(1 - outside[known].astype(np.float64), 0, 1)
        fine, coarse = (np.minimum((mass * bins).astype(np.int64), bins - 1) for bins in (BINS, COARSE))
        whole += np.bincount(fine, minlength=BINS)
        np.add.at(places, (np.searchsorted(PLACES, position[row], side="right") - 1, fine), 1)
        np.add.at(latents, (said.indices[known], coarse), 1)
        total += float(mass.sum())
    return Mass(whole, places, latents, total) if whole.any() else None


def pack(mass: Mass | None) -> str:
    """What the run's table of latents says of the whole, as JSON; empty where there is none."""
    return "" if mass is None else json.dumps(mass.describe())


def unpack(text: str) -> Row | None:
    """What `pack` packed."""
    return json.loads(text) if text else None
