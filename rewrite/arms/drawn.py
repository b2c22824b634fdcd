"""Some of the test documents, and what the arms write on them: for what is too dear to measure on all.

Documents are drawn so that a larger number of them holds a smaller one, whoever draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rewrite.arms.batches import (
    Batch,
    Fitted,
    fit,
    leave_out,
    read_batches,
    show_shard,
    simulated_windows,
    splice,
    walk_shards,
)
from rewrite.arms.splice import Arm, Splicer, Written
from rewrite.coder.activations import ActivationStore, Split
from rewrite.coder.coder import Coder
from rewrite.config import Config, UserError
from rewrite.display.progress import bar
from rewrite.simulators.strengths import Simulations
from rewrite.subject.subject import Subject, load_subject
from rewrite.text.windows import Pieces, Text


@dataclass(frozen=True)
class Drawn:
    """The test split of a run, to be drawn from; build one with `open_drawn`."""

    config: Config
    subject: Subject
    splicer: Splicer
    fitted: Fitted
    test: Split
    simulations: Simulations
    simulated: Bool[np.ndarray, " latent"]
    """The latents that `simulated` simulates."""
    absent: Bool[np.ndarray, " latent"]
    """Those without a prediction."""

    @cached_property
    def _text(self) -> Text:
        return next(iter(walk_shards(self.test, self.simulations)))[1].text

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The text of every token id."""
        return self._text.vocabulary

    @property
    def pieces(self) -> Pieces:
        """The bytes of tokens that are pieces of characters."""
        return self._text.pieces

    def documents(self, wanted: int, seed: int) -> Int[np.ndarray, " document"]:
        """So many of the test documents that have a scored token; 0 takes all. Raises UserError where none has."""
        scored = []
        for _, shard in walk_shards(self.test, self.simulations):
            followed = shard.text.counted()
            followed[shard.text.starts[1:] - 1] = False
            scored.append(np.unique(shard.owners[followed]))
        found = np.unique(np.concatenate(scored))
        if not len(found):
            raise UserError("no test document has a position that is simulated and scored; see sample in the config")
        return np.sort(np.random.default_rng([seed, 0]).permutation(found)[: wanted or len(found)])

    def windows(self, documents: Int[np.ndarray, " document"]) -> dict[str, int]:
        """The shards that have simulated windows of these documents, and how many."""
        found = {name: int(np.isin(owners, documents).sum()) for name, owners in self._owners.items()}
        return {name: windows for name, windows in found.items() if windows}

    def own(self, name: str, documents: Int[np.ndarray, " document"]) -> Int[np.ndarray, " own"]:
        """Which of these documents have simulated windows in a shard."""
        return np.intersect1d(documents, self._owners[name])

    @cached_property
    def _owners(self) -> dict[str, Int[np.ndarray, " window"]]:
        """Whose each simulated window of a shard is, found once."""
        walked = walk_shards(self.test, self.simulations)
        return {name: shard.documents[simulated_windows(shard)] for name, shard in walked}

    def batches(self, documents: Int[np.ndarray, " document"], what: str) -> Iterator[Batch]:
        """The windows of some documents, with a bar."""
        windows = self.windows(documents)
        with bar(what=what, unit="windows", total=sum(windows.values())) as progress:
            for name in windows:
                for batch in self.shard_batches(name, documents):
                    yield batch
                    progress.update(len(batch.documents))

    def shard_batches(self, name: str, documents: Int[np.ndarray, " document"]) -> Iterator[Batch]:
        """Those of one shard, `config.batch` at a time."""
        shard = show_shard(self.test, self.simulations, name)
        strengths = self.simulations.strengths(name, len(shard.text.ids))
        windows = simulated_windows(shard)
        windows = windows[np.isin(shard.documents[windows], documents)]
        yield from read_batches(self.config, self.subject, self.splicer, shard, strengths, windows)

    def write(self, batch: Batch, arm: str) -> Float[Tensor, "counted d"]:
        """What an arm writes, `simulated` all that is simulated at once."""
        if arm == "simulated":
            return self.simulate(batch.written)
        with torch.no_grad():
            return self.splicer.vectors(Arm(arm), batch.written)

    @torch.no_grad()
    def simulate(self, written: Written) -> Float[Tensor, "counted d"]:
        """What `simulated` writes with all that is simulated at once."""
        marked = torch.as_tensor(self.simulated, device=self.splicer.resting.device)
        return self.splicer.vectors(Arm("simulated", 1.0, "best"), written, marked)


def open_drawn(config: Config, store: ActivationStore, simulations: Simulations, coder: Coder) -> Drawn:
    """Fit on the calibrate split what the arms write on the test split."""
    fitted = fit(config, store.calibrate, simulations)
    absent = simulations.absent(store.calibrate.shards + store.test.shards)
    simulated = simulations.rewritten & ~leave_out(config, absent)
    splicer = splice(config, fitted, simulations, coder, absent)
    return Drawn(config, load_subject(config), splicer, fitted, store.test, simulations, simulated, absent)
