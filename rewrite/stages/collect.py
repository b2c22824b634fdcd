"""Collect: run the subject over the three splits and keep each latent's true activations.

1. Documents are tokenized, cut into windows, and thinned evenly where the config caps them.
2. Each batch of windows runs up to the hookpoint; the coder encodes every counted position.
3. The module's mean output on the calibrate split is kept for the `mean_layer` arm.

Several runs that differ in hookpoint and coder alone are one pass over the text, up to the last of their hookpoints
(`run_together`); each writes what it would have written by itself, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from transformers import PreTrainedTokenizerBase

from rewrite.coder.activations import Shard, save_shard
from rewrite.coder.coder import Coder, check_fit
from rewrite.coder.files import load_coder
from rewrite.config import Config, UserError
from rewrite.display.progress import bar
from rewrite.run.arrays import save_arrays
from rewrite.run.files import write_json
from rewrite.run.store import Run
from rewrite.subject.subject import Seen, Subject, load_subjects, look
from rewrite.text.corpus import SPLITS, cut_documents, describe_splits, split_documents
from rewrite.text.documents import Document
from rewrite.text.sources import read_corpus
from rewrite.text.windows import Padded, Text, pad_windows, spread_windows, token_pieces, token_strings


def run(config: Config, run: Run) -> None:
    """Write `2_activations`."""
    run_together([(config, run)])


def run_together(points: Sequence[tuple[Config, Run]]) -> None:
    """Write `2_activations` of runs whose configs differ in `hookpoint` and `coder` alone."""
    config = points[0][0]
    corpus = read_corpus(config.corpus)
    documents = corpus.documents
    splits = split_documents(documents, config.corpus)
    for _, run in points:
        run.note("corpus", describe_splits(corpus, splits))
    subjects = load_subjects(config, [own.hookpoint for own, _ in points])
    coders = [load_coder(run.path("1_coder"), own.hookpoint).to(torch.device(config.device)) for own, run in points]
    for coder, subject in zip(coders, subjects, strict=True):
        check_fit(coder, subject)
    tokenizer = subjects[0].tokenizer
    assert tokenizer is not None, "load_subjects loads a tokenizer"
    with ExitStack() as stack:
        folders = [stack.enter_context(run.writing("2_activations")) for _, run in points]
        for folder in folders:
            folder.mkdir()
        keepers = [Keeper(*own) for own in zip(subjects, coders, strict=True)]
        collector = Collector(config, tokenizer, keepers)
        names: dict[str, list[list[str]]] = {}
        for split in SPLITS:
            names[split] = collector.collect(split, [documents[i] for i in splits[split]], folders)
        pieces = {str(i): piece.hex() for i, piece in token_pieces(tokenizer, collector.vocabulary).items()}
        for keeper, folder in zip(keepers, folders, strict=True):
            keeper.finish(folder, {"vocabulary": collector.vocabulary, "pieces": pieces}, names)


class Keeper:
    """Encodes what one hookpoint shows."""

    def __init__(self, subject: Subject, coder: Coder):
        self.subject, self.coder = subject, coder
        self.output_sum, self.output_count = np.zeros(subject.width), 0
        self._parts: list[Any] = []

    def mean_output(self) -> np.ndarray:
        """The module's mean output over the counted positions of the calibrate split, [d]."""
        return (self.output_sum / max(self.output_count, 1)).astype(np.float32)

    def add(self, seen: Seen, padded: Padded, add_to_mean: bool) -> None:
        """Encode a batch of windows of the shard that is next."""
        device = seen.output.device
        real = torch.as_tensor(padded.real, device=device)
        output = seen.output[real].float()
        if not torch.isfinite(output).all():
            raise UserError(
                f"hookpoint = {self.subject.hookpoint}: its output holds NaN or infinite values on this text; set "
                "dtype to float32 or bfloat16, or take another layer"
            )
        self._parts.append(self.coder.encode(self.coder.read(seen.input[real], output)))
        if add_to_mean:
            counted = torch.as_tensor(padded.counted[padded.real], device=device)
            self.output_sum += output[counted].double().sum(0).cpu().numpy()
            self.output_count += int(counted.sum())

    def take(self, text: Text, documents: np.ndarray) -> Shard:
        """What was added since the last, as a shard."""
        parts, self._parts = [csr_array((0, self.coder.latents), dtype=np.float32), *self._parts], []
        return Shard(text, documents, _drop_rows(vstack(parts, format="csr"), text))

    def finish(self, folder: Path, index: dict[str, Any], names: dict[str, list[list[str]]]) -> None:
        """Write what stands beside the shards."""
        save_arrays(folder / "means.safetensors", {"output": self.mean_output()})
        write_json(folder / "documents.json", index | {"latents": self.coder.latents, "splits": names})


class Collector:
    """Reads documents, shard by shard, and shows each hookpoint to its keeper."""

    def __init__(self, config: Config, tokenizer: PreTrainedTokenizerBase, keepers: Sequence[Keeper]):
        self.config, self.tokenizer, self.keepers = config, tokenizer, keepers
        self.vocabulary = token_strings(tokenizer)

    def collect(self, split: str, documents: Sequence[Document], folders: Sequence[Path]) -> list[list[str]]:
        """Write the shards of a split, into a folder for each keeper; returns the names of the documents of each."""
        cut = list(cut_documents(documents, self.tokenizer, self.config.corpus))
        kept = [
            [windows[i] for i in spread_windows(len(windows), limit)] for windows, limit in self._limits(split, cut)
        ]
        size = self.config.collect.shard
        names = []
        progress = bar(what=f"collect {split}", unit="windows", total=sum(map(len, kept)))
        with progress:
            for number, begin in enumerate(range(0, len(documents), size)):
                windows = [(begin + i, w) for i, ws in enumerate(kept[begin : begin + size]) for w in ws]
                shards = self.encode(windows, split == "calibrate")
                for folder, shard in zip(folders, shards, strict=True):
                    save_shard(folder, f"{split}-{number:05d}", shard)
                names.append([d.name for d in documents[begin : begin + size]])
                progress.update(len(windows))
        return names

    def _limits(self, split: str, cut: list[list[np.ndarray]]) -> list[tuple[list[np.ndarray], int]]:
        """Each document's windows and how many of them are kept (0: all)."""
        if split != "train":
            return [(windows, self.config.corpus.max_windows) for windows in cut]
        share = self.config.collect.train_tokens / max(sum(len(w) for windows in cut for w in windows), 1)
        return [(windows, 0 if share >= 1 else max(1, round(share * len(windows)))) for windows in cut]

    def encode(self, windows: Sequence[tuple[int, np.ndarray]], add_to_mean: bool = False) -> list[Shard]:
        """Windows, each with the number of its document, and every latent's activations at their counted positions, as
        each hookpoint shows them."""
        ids = np.concatenate([np.empty(0, dtype=np.int32), *(w for _, w in windows)])
        starts = np.concatenate([[0], np.cumsum([len(w) for _, w in windows])]).astype(np.int64)
        text, documents = Text(ids, starts, self.vocabulary), np.array([d for d, _ in windows], dtype=np.int32)
        batch = self.config.batch
        for begin in range(0, len(windows), batch):
            padded = pad_windows([w for _, w in windows[begin : begin + batch]])
            every = look([keeper.subject for keeper in self.keepers], torch.as_tensor(padded.ids))
            for keeper, seen in zip(self.keepers, every, strict=True):
                keeper.add(seen, padded, add_to_mean)
        return [keeper.take(text, documents) for keeper in self.keepers]


def _drop_rows(activations: csr_array, text: Text) -> csr_array:
    """The same with the rows of positions that are not counted empty."""
    rows = np.repeat(text.counted(), np.diff(activations.indptr))
    kept = np.diff(activations.indptr) * text.counted()
    indptr = np.concatenate([[0], np.cumsum(kept)])
    return csr_array((activations.data[rows], activations.indices[rows], indptr), shape=activations.shape)
