"""The audit's arms: what asking about everything, instead of what a screen lets through, does to the loss.

A simulator that screens is asked about some documents of the calibrate and the test split in full
(`rewrite.text.sampling.draw_full`). On those, and nowhere else, stand two arms:

    asked_by_screen    what the screen held back is strength 0, as in `simulated`
    asked_in_full      it is what the simulator says of it

Each has a calibrator fitted on the calibrate split's audited documents with strengths of its kind, for what a strength
is worth depends on which pairs are asked. So their difference, document by document, is what a run without a screen on
those documents would have changed; as the documents are drawn at random, it is unbiased for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import csr_array

from rewrite.arms.batches import fit_pairs, splice, walk_shards
from rewrite.arms.calibrate import Pair
from rewrite.arms.controls import AUDITED
from rewrite.arms.plan import Control, PlannedArm
from rewrite.arms.splice import Arm
from rewrite.coder.activations import ActivationStore, Split
from rewrite.coder.coder import Coder
from rewrite.config import Config, UserError
from rewrite.simulators.base import Screened
from rewrite.simulators.strengths import Simulations


@dataclass(frozen=True)
class Asked:
    """The simulator's strengths where it was asked in full, with what the screen held back or without."""

    simulations: Simulations
    full: bool

    def strengths(self, shard: str, strengths: csr_array, counted: Bool[np.ndarray, " position"]) -> csr_array:
        """Those of a shard; elsewhere they are the simulator's own."""
        screened = find_screened(self.simulations, shard, len(counted))
        return csr_array(strengths + screened.audit) if self.full else strengths

    def pairs(self, split: Split) -> Iterator[Pair]:
        """Truth and these strengths where the simulator was asked in full."""
        for name, shard in walk_shards(split, self.simulations):
            counted = shard.text.counted()
            strengths = self.strengths(name, self.simulations.strengths(name, len(counted)), counted)
            rows = find_screened(self.simulations, name, len(counted)).full & counted
            yield Pair(shard.activations[rows], strengths[rows])


def find_screened(simulations: Simulations, shard: str, positions: int) -> Screened:
    """What a screen did with a shard. Raises UserError for a shard without one."""
    found = simulations.screened(shard, positions)
    if found is None:
        raise UserError(f"{simulations.folder}: {shard} has no screen, and others have; simulate again")
    return found


def plan_audit(
    config: Config,
    store: ActivationStore,
    simulations: Simulations,
    coder: Coder,
    absent: Bool[np.ndarray, " latent"],
    simulated: Bool[np.ndarray, " latent"],
) -> list[PlannedArm]:
    """Both arms, on the test split's audited documents; none where no screen was used."""
    if simulations.screen(store.test.shards[0]) is None:
        return []
    calibrate, test, arms = store.calibrate, store.test, []
    documents = list_documents(test, simulations)
    for name in AUDITED:
        source = Asked(simulations, full=name == "asked_in_full")
        own = fit_pairs(config, calibrate, simulations, source.pairs(calibrate))
        control = Control(source, splice(config, own, simulations, coder, absent))
        arms.append(PlannedArm(Arm(name), simulated, control, documents))
    return arms


def list_documents(split: Split, simulations: Simulations) -> Int[np.ndarray, " audited"]:
    """The documents of a split about which the simulator was asked in full and that have a simulated position."""
    found = [np.zeros(0, dtype=np.int64)]
    for name, shard in walk_shards(split, simulations):
        full = find_screened(simulations, name, len(shard.text.ids)).full & shard.text.counted()
        found.append(shard.owners[full].astype(np.int64))
    return np.unique(np.concatenate(found))
