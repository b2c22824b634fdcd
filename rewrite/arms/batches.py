"""What stands at the hookpoint while a test batch is worked on: the fitted calibrator, and batches of windows.

1. `fit` is given the calibrate split and nothing else: a tally of strengths and true activations, and the calibrator
   made from it.
2. `splice` puts coder, calibrator and means together into the `Splicer` that knows every arm.
3. `walk_shards` shows a split as it was simulated, `read_batches` runs its windows once up to the hookpoint.
4. `losses_of` runs the rest of the model with what an arm writes there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from rewrite.arms.calibrate import CALIBRATORS, Calibrator, Pair, Tally, forget, tally
from rewrite.arms.controls import Source
from rewrite.arms.probes import Reader, list_context
from rewrite.arms.splice import Splicer, Written
from rewrite.coder.activations import Shard, Split
from rewrite.coder.coder import Coder
from rewrite.config import Config
from rewrite.simulators.strengths import Simulations
from rewrite.subject.scoring import losses_from, next_tokens
from rewrite.subject.subject import Prefix, Subject
from rewrite.text.windows import pad_windows


@dataclass(frozen=True)
class Fitted:
    """What the calibrate split says: the tally, the calibrator, and the module's mean output."""

    tally: Tally
    calibrator: Calibrator
    mean_output: Float[np.ndarray, " d"]


def fit(config: Config, calibrate: Split, simulations: Simulations, source: Source | None = None) -> Fitted:
    """Fit the calibrator that the config names on the calibrate split, for a control's strengths if one is given."""
    pairs = walk_pairs(calibrate, simulations, source)
    return fit_pairs(config, calibrate, simulations, pairs, keep=source is None)


def fit_pairs(
    config: Config, calibrate: Split, simulations: Simulations, pairs: Iterable[Pair], keep: bool = False
) -> Fitted:
    """The same for these pairs of the calibrate split. Firings are kept where they are asked for: a control's are those
    of the run."""
    absent = simulations.absent(calibrate.shards)
    keep = keep or config.calibrator == "quantile"
    fitted = tally(pairs, calibrate.latents, simulations.scale, keep)
    fitted = forget(fitted, absent | ~simulations.rewritten)
    return Fitted(fitted, CALIBRATORS[config.calibrator](fitted), calibrate.mean_output())


def leave_out(config: Config, absent: Bool[np.ndarray, " latent"]) -> Bool[np.ndarray, " latent"]:
    """Which of the latents that are `absent`, without a prediction in some shard, leave the comparison: they keep their
    true activation in every arm that rewrites latents."""
    return absent if config.evaluate.missing == "leave_out" else np.zeros_like(absent)


def splice(
    config: Config,
    fitted: Fitted,
    simulations: Simulations,
    coder: Coder,
    absent: Bool[np.ndarray, " latent"],
    readers: Mapping[str, Reader] | None = None,
) -> Splicer:
    """The splicer in which latents that are `absent` rest at their mean, or are not rewritten at all (`leave_out`)."""
    calibrator, rewritten = fitted.calibrator, simulations.rewritten & ~leave_out(config, absent)
    splicer = Splicer(coder, calibrator, fitted.tally, fitted.mean_output, rewritten, readers)
    splicer.replace_missing(absent)
    return splicer


def show_shard(split: Split, simulations: Simulations, name: str) -> Shard:
    """A shard of a split, its text with the positions that were simulated."""
    shard = split.load(name)
    return replace(shard, text=simulations.show(name, shard.text))


def walk_shards(split: Split, simulations: Simulations) -> Iterator[tuple[str, Shard]]:
    """All of them by name."""
    for name in split.shards:
        yield name, show_shard(split, simulations, name)


def walk_pairs(split: Split, simulations: Simulations, source: Source | None = None) -> Iterator[Pair]:
    """Truth and strengths, the simulator's unless a source is given, on each shard's simulated positions."""
    for name, shard in walk_shards(split, simulations):
        counted = shard.text.counted()
        strengths = simulations.strengths(name, len(counted))
        if source is not None:
            strengths = source.strengths(name, strengths, counted)
        yield Pair(shard.activations[counted], strengths[counted])


def document_pairs(split: Split, simulations: Simulations) -> Iterator[Pair]:
    """Truth and strengths on the simulated positions of each document of a split that has some."""
    for name, shard in walk_shards(split, simulations):
        counted = shard.text.counted()
        strengths = simulations.strengths(name, len(counted))
        owner = np.where(counted, shard.owners, -1)
        for document in np.unique(owner[counted]):
            rows = np.flatnonzero(owner == document)
            yield Pair(shard.activations[rows], strengths[rows])


@dataclass(frozen=True)
class Batch:
    """Some test windows at the hookpoint, and all that an arm needs to be written and scored there."""

    prefix: Prefix
    counted: Bool[Tensor, "window position"]
    """Where arms write."""
    targets: Int[Tensor, "window position"]
    """The token after each position that is scored (`rewrite.subject.scoring`)."""
    written: Written
    """Of the counted positions, in order."""
    documents: Int[np.ndarray, " window"]
    """Whose each window is."""
    rows: Int[np.ndarray, " counted"]
    """Where each counted position stands in its shard."""

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

    def place(self, vectors: Float[Tensor, "counted d"]) -> Float[Tensor, "window position d"]:
        """The module's own output with `vectors` where arms write, in float32: the subject casts what it reads."""
        placed = self.prefix.output.detach().float().clone()
        placed[self.counted] = vectors.to(placed.device)
        return placed


def token_losses_of(
    subject: Subject, batch: Batch, vectors: Float[Tensor, "counted d"]
) -> Float[Tensor, "window position"]:
    """The loss [nats] of each scored token where `vectors` are written at the batch's counted positions, else 0."""
    with torch.no_grad():
        return losses_from(subject, batch.prefix, batch.place(vectors), batch.targets)


def losses_of(subject: Subject, batch: Batch, vectors: Float[Tensor, "counted d"]) -> Float[np.ndarray, " window"]:
    """The same, summed over each window."""
    return token_losses_of(subject, batch, vectors).sum(1).cpu().numpy()


def read_batches(
    config: Config,
    subject: Subject,
    splicer: Splicer,
    shard: Shard,
    strengths: csr_array,
    windows: Int[np.ndarray, " chosen"],
) -> Iterator[Batch]:
    """These windows of a shard, `config.batch` at a time."""
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
    context = torch.as_tensor(list_context(shard.text, rows), device=subject.device)
    written = splicer.prepare(x, own, shard.activations[rows], strengths[rows], context)
    targets = next_tokens(ids, counted, torch.as_tensor(padded.real, device=subject.device))
    return Batch(prefix, counted, targets, written, shard.documents[chosen], rows)
