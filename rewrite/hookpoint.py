"""What stands at the hookpoint while a test batch is worked on: the fitted calibrator, and batches of windows.

1. `fit` reads the calibrate split: a tally of strengths and true activations, and the calibrator made from it.
2. `splice` puts coder, calibrator and means together into the `Splicer` that knows every arm.
3. `walk_batches` walks the simulated windows of the test split, each batch run once up to the hookpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from scipy.sparse import csr_array
from torch import Tensor

from rewrite.activations import ActivationStore, Shard
from rewrite.arms import pair_up
from rewrite.calibrate import CALIBRATORS, Calibrator, Pair, Tally, forget, tally
from rewrite.coder import Coder
from rewrite.config import Config
from rewrite.corpus import pad_windows
from rewrite.scoring import next_tokens
from rewrite.simulations import Simulations
from rewrite.splice import Splicer, Written
from rewrite.subject import Prefix, Subject


@dataclass(frozen=True)
class Fitted:
    """What the calibrate split says: the tally, the calibrator, and the latents without any prediction."""

    tally: Tally
    calibrator: Calibrator
    absent: Bool[np.ndarray, " latent"]


def fit(config: Config, store: ActivationStore, simulations: Simulations) -> Fitted:
    """Fit the calibrator that the config names on the calibrate split."""
    missing = simulations.missing(store.shards("calibrate") + store.shards("test"))
    absent = np.isin(np.arange(store.latents), list(missing))
    fitted = tally(pair_up(store, simulations), store.latents, simulations.scale)
    fitted = forget(fitted, absent | ~simulations.rewritten)
    return Fitted(fitted, CALIBRATORS[config.calibrator](fitted), absent)


def splice(store: ActivationStore, simulations: Simulations, fitted: Fitted, coder: Coder) -> Splicer:
    """The splicer in which latents without a prediction rest at their mean."""
    splicer = Splicer(coder, fitted.calibrator, fitted.tally, store.mean_output(), simulations.rewritten)
    splicer.replace_missing(fitted.absent)
    return splicer


def document_pairs(store: ActivationStore, simulations: Simulations, split: str) -> Iterator[tuple[int, Pair]]:
    """Each document of a split that has simulated positions: its number, and truth and strengths there."""
    for name in store.shards(split):
        shard = store.load(name)
        counted = simulations.show(name, shard.text).counted()
        strengths = simulations.strengths(name, len(counted))
        owner = np.where(counted, np.repeat(shard.documents, np.diff(shard.text.starts)), -1)
        for document in np.unique(owner[counted]):
            rows = np.flatnonzero(owner == document)
            yield int(document), Pair(shard.activations[rows], strengths[rows])


@dataclass(frozen=True)
class Batch:
    """Some test windows at the hookpoint, and all that an arm needs to be written and scored there."""

    prefix: Prefix
    counted: Bool[Tensor, "window position"]
    """Where arms write."""
    targets: Int[Tensor, "window position"]
    """The token after each position that is scored (`rewrite.scoring`)."""
    written: Written
    """Of the counted positions, in order."""
    documents: Int[np.ndarray, " window"]
    """Whose each window is."""

    @property
    def owners(self) -> Int[np.ndarray, " counted"]:
        """Whose each counted position is."""
        windows = torch.nonzero(self.counted)[:, 0].cpu().numpy()
        owners: np.ndarray = self.documents[windows]
        return owners

    @property
    def tokens(self) -> Int[np.ndarray, " window"]:
        """Scored tokens of each window."""
        return (self.targets >= 0).sum(1).cpu().numpy()


def walk_batches(
    config: Config,
    subject: Subject,
    splicer: Splicer,
    store: ActivationStore,
    simulations: Simulations,
    documents: Int[np.ndarray, " chosen"],
) -> Iterator[Batch]:
    """The simulated windows of these test documents, `config.batch` at a time."""
    for name in store.shards("test"):
        shard = store.load(name)
        if not np.isin(shard.documents, documents).any():
            continue
        shard = replace(shard, text=simulations.show(name, shard.text))
        strengths = simulations.strengths(name, len(shard.text.ids))
        windows = simulated_windows(shard)
        windows = windows[np.isin(shard.documents[windows], documents)]
        for begin in range(0, len(windows), config.batch):
            yield read_batch(subject, splicer, shard, strengths, windows[begin : begin + config.batch])


def simulated_windows(shard: Shard) -> Int[np.ndarray, " window"]:
    """The numbers of the windows that have a simulated position."""
    simulated = np.concatenate([[0], np.cumsum(shard.text.counted())])
    return np.flatnonzero(np.diff(simulated[shard.text.starts]))


@torch.no_grad()
def read_batch(
    subject: Subject, splicer: Splicer, shard: Shard, strengths: csr_array, chosen: Int[np.ndarray, " window"]
) -> Batch:
    """Run the chosen windows of a shard up to the hookpoint and prepare what arms write there."""
    starts, simulated = shard.text.starts, shard.text.counted()
    padded = pad_windows([shard.text.ids[starts[w] : starts[w + 1]] for w in chosen])
    rows = np.concatenate([np.arange(starts[w], starts[w + 1]) for w in chosen])
    asked = np.zeros_like(padded.real)
    asked[padded.real] = simulated[rows]
    rows = rows[simulated[rows]]
    ids = torch.as_tensor(padded.ids, device=subject.device)
    counted = torch.as_tensor(asked, device=subject.device)
    prefix = subject.run_to(ids)
    own = prefix.output[counted].float()
    x = splicer.coder.read(prefix.input[counted], own)
    written = splicer.prepare(x, own, shard.activations[rows], strengths[rows])
    targets = next_tokens(ids, counted, torch.as_tensor(padded.real, device=subject.device))
    return Batch(prefix, counted, targets, written, shard.documents[chosen])
