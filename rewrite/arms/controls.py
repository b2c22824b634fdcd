"""Controls: activations and strengths made to show which part of a simulation fails.

Arms of one fixed vector (`mean`, `zero`, ...) are cases of `Splicer.vectors` in `rewrite.arms.splice`, also those that
`evaluate.controls` names.

1. When does a simulation fire? Where its simulator says at least 1 of 9 (half rounds up) and the calibrator lifts that
   above rest, its value at strength 0 (`fires`). So an expectation of 0.1 at every token fires nowhere, though it be
   calibrated as 1 is, and what a calibrator has found to mean nothing is no firing. Strengths that are activations
   already (the `identity` calibrator) fire above 0, as latents do. A prediction that is missing fires nowhere.
2. With a the true activations, â the calibrated ones, m a latent's mean when active on the calibrate split:

       quantised         level · maximum / 9, the level a whole number from 0 to 9 next to 9 a / maximum
       true_active       a fires: â where the simulation fires too, m where it does not
       simulated_active  the simulation fires: a where a fires too, m where it does not
       matched           a fires: â where the simulation fires too, a where it does not
       hits              both fire: â

   A latent rests at 0 where none of these places it. m is 0 for a latent that never fires on the calibrate split.
3. What the simulation lost (the loss of `simulated` minus that of `coder`) telescopes along coder → matched → hits →
   simulated (`SPLIT`): *magnitude*, strengths that are wrong where both fire; *sensitivity*, firings that it misses;
   *specificity*, firings that it adds, and what it writes at rest. `true_active` is not on that path: the mean that it
   puts where a firing was missed would be booked as an error of magnitude.
4. Strengths of nobody: `Shuffled`, every latent reads another's explanation; `Random`, draws with the density and
   values of the latent's own strengths; `Unread`, what a tuned reader says of a latent whose explanation it is not
   told. All must be calibrated anew.

The names of the parts are Paulo & Belrose's (2025), who lacked specificity without a calibrator and sensitivity with
one; the mixtures and the telescoping are our own.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array, vstack

from rewrite.arms.calibrate import CHUNK, LEVELS, Calibrator, Scaled, Tally
from rewrite.config import UserError
from rewrite.simulators.strengths import Simulations

TOP = 9
SPLIT = (("magnitude", "coder", "matched"), ("sensitivity", "matched", "hits"), ("specificity", "hits", "simulated"))
MIXTURES = ("quantised", "true_active", "simulated_active", "matched", "hits")


@dataclass(frozen=True)
class Threshold:
    """What a calibrated activation must exceed, and the strength reach, to be a firing."""

    rest: Float[np.ndarray, " latent"]
    """The latent's activation at strength 0."""
    least: float
    """The strength that is half of 1 on the scale of 0 to 9; 0 where strengths are activations."""


def find_threshold(calibrator: Calibrator, scale: float, latents: int) -> Threshold:
    """The threshold of each latent under a calibrator for strengths on this scale."""
    every = np.arange(latents)
    rest = calibrator.apply(np.zeros(latents, dtype=np.float32), every)
    exact = isinstance(calibrator, Scaled) and bool((calibrator.factor == 1).all())
    return Threshold(rest, 0.0 if exact else scale / TOP / 2)


def fires(
    strengths: Float[np.ndarray, " entry"],
    activations: Float[np.ndarray, " entry"],
    latents: Int[np.ndarray, " entry"],
    threshold: Threshold,
) -> Bool[np.ndarray, " entry"]:
    """Whether each strength, with its calibrated activation, is a firing of its latent; what is missing (NaN) is none.

    The strength itself is looked at: where a calibrator is flat, 0.1 has the activation of 1.
    """
    firing: np.ndarray = (activations > threshold.rest[latents]) & (strengths >= threshold.least)
    return firing


def calibrate_firings(strengths: csr_array, calibrator: Calibrator, threshold: Threshold) -> csr_array:
    """The calibrated activations of a simulation where it fires, nothing elsewhere."""
    said, latents = strengths.data.astype(np.float32), strengths.indices
    activations = calibrator.apply(said, latents)
    kept = np.where(fires(said, activations, latents, threshold), activations, 0).astype(np.float32)
    fired = csr_array((kept, strengths.indices.copy(), strengths.indptr.copy()), shape=strengths.shape)
    fired.eliminate_zeros()
    return fired


def mean_when_active(tally: Tally) -> Float[np.ndarray, " latent"]:
    """Each latent's mean over the positions of the calibrate split where it fires; 0 where it never does."""
    return (tally.mean / np.where(tally.density > 0, tally.density, 1)).astype(np.float32)


def quantise(truth: csr_array, maximum: Float[np.ndarray, " latent"]) -> csr_array:
    """True activations in 10 levels from 0 to the latent's maximum."""
    most = maximum[truth.indices]
    share = truth.data / np.where(most > 0, most, 1)
    level = np.where(most > 0, np.clip(np.rint(TOP * share), 0, TOP), 0)
    return csr_array(((level * most / TOP).astype(np.float32), truth.indices, truth.indptr), shape=truth.shape)


def mix(name: str, truth: csr_array, fired: csr_array, tally: Tally) -> csr_array:
    """The activations of one of `MIXTURES`; `fired` is what `calibrate_firings` gives."""
    if name == "quantised":
        return quantise(truth, tally.maximum)
    hits = csr_array(fired.multiply(truth > 0))
    if name == "hits":
        return hits
    means = mean_when_active(tally)
    if name == "simulated_active":
        return csr_array(truth.multiply(fired > 0) + _place(_without(fired, hits), means))
    missed = _without(truth, csr_array(truth.multiply(fired > 0)))
    if name == "true_active":
        return csr_array(hits + _place(missed, means))
    if name == "matched":
        return csr_array(hits + missed)
    raise ValueError(f"{name} is none of {', '.join(MIXTURES)}")


def _without(whole: csr_array, part: csr_array) -> csr_array:
    """The entries of `whole` that `part` lacks; where it has them the two agree."""
    rest = csr_array(whole - part)
    rest.eliminate_zeros()
    return rest


def _place(where: csr_array, values: Float[np.ndarray, " latent"]) -> csr_array:
    """Each latent's value at its entries."""
    return csr_array((values[where.indices], where.indices, where.indptr), shape=where.shape)


def derange(chosen: Bool[np.ndarray, " latent"], seed: int) -> Int[np.ndarray, " latent"]:
    """Whose strengths each latent reads: a chosen one another chosen one's, the others their own.

    Permutations are drawn until one has no fixed point, so every derangement is as likely as any other; one in e has
    none (de Montmort 1713). Needs at least two chosen latents.
    """
    latents = np.flatnonzero(chosen)
    if len(latents) < 2:
        raise ValueError("a derangement needs at least two latents")
    generator = np.random.default_rng([seed, 2])
    drawn = generator.permutation(latents)
    while (drawn == latents).any():
        drawn = generator.permutation(latents)
    source = np.arange(len(chosen))
    source[latents] = drawn
    return source


@dataclass(frozen=True)
class Shuffled:
    """Strengths whose columns changed places: latent j has those of `source[j]`."""

    source: Int[np.ndarray, " latent"]

    def strengths(self, shard: str, strengths: csr_array, counted: Bool[np.ndarray, " position"]) -> csr_array:
        """The shard's strengths with their columns moved; what is missing moves along."""
        target = np.argsort(self.source).astype(strengths.indices.dtype)
        # Copies, for sorting works in place and the simulator's own strengths are still to be read.
        parts = (strengths.data.copy(), target[strengths.indices], strengths.indptr.copy())
        moved = csr_array(parts, shape=strengths.shape)
        moved.sort_indices()
        return moved


@dataclass(frozen=True)
class Random:
    """Strengths drawn by each position and latent alone, as often and as high as the tally's, in its levels."""

    tally: Tally
    seed: int

    def strengths(self, shard: str, strengths: csr_array, counted: Bool[np.ndarray, " position"]) -> csr_array:
        """Draws for the shard's counted positions; shard and seed name them, so batches do not matter."""
        generator = np.random.default_rng([self.seed, 3, zlib.crc32(shard.encode())])
        positions, latents = strengths.shape
        rows = max(1, CHUNK // latents)
        parts: list[Any] = [csr_array((0, latents), dtype=np.float32)]
        for begin in range(0, positions, rows):
            parts.append(self._draw(generator, counted[begin : begin + rows]))
        return csr_array(vstack(parts, format="csr"))

    def _draw(self, generator: np.random.Generator, counted: Bool[np.ndarray, " position"]) -> csr_array:
        count = self.tally.count
        known = count.sum(1)
        density = 1 - count[:, 0] / np.maximum(known, 1)
        uniform = generator.random((int(counted.sum()), len(known)), dtype=np.float32)
        place, latent = np.nonzero(uniform < np.where(known > 0, density, 0))
        # One sorted line holds every latent's distribution over its levels above 0: latent + share at or below.
        above = np.cumsum(count[:, 1:], axis=1) / np.maximum(count[:, 1:].sum(1, keepdims=True), 1)
        line = (np.arange(len(known))[:, None] + above).ravel()
        level = np.searchsorted(line, latent + generator.random(len(latent)), side="right") - latent * (LEVELS - 1) + 1
        values = np.clip(level, 1, LEVELS - 1) * self.tally.scale / (LEVELS - 1)
        shape = (len(counted), len(known))
        return csr_array((values.astype(np.float32), (np.flatnonzero(counted)[place], latent)), shape=shape)


@dataclass(frozen=True)
class Unread:
    """What a tuned simulator said where it was told no explanation, for the latents of which it has one."""

    simulations: Simulations
    known: Bool[np.ndarray, " latent"]

    def strengths(self, shard: str, strengths: csr_array, counted: Bool[np.ndarray, " position"]) -> csr_array:
        """The same at a position for all latents that one reader reads. Raises UserError where it was not asked."""
        said = self.simulations.unread(shard)
        if said is None:
            raise UserError(f"{self.simulations.folder}: {shard} says nothing without explanations; simulate again")
        latents = np.flatnonzero(self.known)
        values = said.strengths[:, said.reader[latents]].astype(np.float32)
        ends = np.concatenate([[0], np.cumsum(counted * len(latents))])
        indices = np.tile(latents.astype(np.int32), len(values))
        return csr_array((values.ravel(), indices, ends), shape=strengths.shape)


@runtime_checkable
class Source(Protocol):
    """Whose strengths an arm reads where not the simulator's own."""

    def strengths(self, shard: str, strengths: csr_array, counted: Bool[np.ndarray, " position"]) -> csr_array:
        """Those of a shard, from the simulator's own, positions × latents."""
        ...


NEEDED = ("clean", "coder", "zero")
"""Arms without which nothing can be told of the others."""


DRAWN = ("shuffled", "random")
"""Controls of which there is one a seed."""


AUDITED = ("asked_by_screen", "asked_in_full")
"""Arms of a simulator that screens, on the documents that it was asked about in full (`rewrite.arms.audit`)."""
