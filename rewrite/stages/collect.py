"""Collect: run the subject over the three splits and keep each latent's true activations.

1. Documents are tokenized, cut into windows, and thinned evenly where the config caps them.
2. Each batch of windows runs up to the hookpoint; the coder encodes every counted position. Shards of documents do not
   depend on each other: several workers make them.
3. The module's mean output on the calibrate split is kept for the `mean_layer` arm.

Several runs that differ in hookpoint and coder alone are one pass over the text, up to the last of their hookpoints
(`run_together`); each writes what it would have written by itself, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array, vstack
from transformers import PreTrainedTokenizerBase

from rewrite.coder.activations import Shard, save_shard
from rewrite.coder.coder import Coder, check_fit
from rewrite.coder.files import load_coder
from rewrite.config import Config, UserError
from rewrite.run.arrays import save_arrays
from rewrite.run.files import hash_value, remove, write_json
from rewrite.run.parts import Arrays, Share
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
    splits = split_documents(corpus.documents, config.corpus)
    for _, run in points:
        run.note("corpus", describe_splits(corpus, splits))
    coders = [load_coder(run.path("1_coder"), own.hookpoint).to(torch.device(config.device)) for own, run in points]
    looker = Looker(config, tuple(own.hookpoint for own, _ in points), coders)
    with ExitStack() as stack:
        folders = [stack.enter_context(run.writing("2_activations", resumable=True)) for _, run in points]
        cut = {split: cut_split(config, split, corpus.documents, splits[split], looker.tokenizer) for split in SPLITS}
        shards = {name: windows for own in cut.values() for name, windows in own.windows.items()}
        sizes = {name: len(windows) for name, windows in shards.items()}
        vocabulary = token_strings(looker.tokenizer)
        # What is there was made for these very runs: a group of others has a folder of another name.
        parts = folders[0] / f".of-{hash_value([str(folder) for folder in folders])[:16]}"
        parts.mkdir(exist_ok=True)
        collector = Collector(looker, shards, vocabulary, folders)
        means = Means.join(Share(config, parts)(collect_shard, collector, sizes, "collect"))
        pieces = {str(i): piece.hex() for i, piece in token_pieces(looker.tokenizer, vocabulary).items()}
        index = {"vocabulary": vocabulary, "pieces": pieces}
        names = {split: own.names for split, own in cut.items()}
        for number, (folder, coder) in enumerate(zip(folders, coders, strict=True)):
            save_arrays(folder / "means.safetensors", {"output": means.of(number)})
            write_json(folder / "documents.json", index | {"latents": coder.latents, "splits": names})
            for left in folder.glob(".of-*"):
                remove(left)


Windows = Sequence[tuple[int, np.ndarray]]
"""Token windows, each with the number of its document in its split."""


@dataclass(frozen=True)
class Cut:
    """A split in windows: those of each shard by its name, and the names of each shard's documents."""

    windows: dict[str, Windows]
    names: list[list[str]]


def cut_split(
    config: Config,
    split: str,
    documents: Sequence[Document],
    chosen: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
) -> Cut:
    """The windows of a split that are kept."""
    own = [documents[i] for i in chosen]
    cut = list(cut_documents(own, tokenizer, config.corpus))
    kept = [
        [(number, windows[i]) for i in spread_windows(len(windows), limit)]
        for number, (windows, limit) in enumerate(limit_windows(config, split, cut))
    ]
    shards, names = dict[str, Windows](), []
    for number, begin in enumerate(range(0, len(own), config.collect.shard)):
        part = slice(begin, begin + config.collect.shard)
        shards[f"{split}-{number:05d}"] = [window for windows in kept[part] for window in windows]
        names.append([document.name for document in own[part]])
    return Cut(shards, names)


def limit_windows(config: Config, split: str, cut: list[list[np.ndarray]]) -> list[tuple[list[np.ndarray], int]]:
    """Each document's windows and how many of them are kept (0: all)."""
    if split != "train":
        return [(windows, config.corpus.max_windows) for windows in cut]
    share = config.collect.train_tokens / max(sum(len(w) for windows in cut for w in windows), 1)
    return [(windows, 0 if share >= 1 else max(1, round(share * len(windows)))) for windows in cut]


@dataclass
class Means:
    """Sums of what modules returned, over so many positions, from which their mean is; one for each hookpoint."""

    sums: list[Float[np.ndarray, " d"]]
    count: int

    @classmethod
    def join(cls, parts: Iterable[Arrays]) -> Means:
        """Those of parts of the text together."""
        first, *others = parts
        joined = {name: first[name] + sum(part[name] for part in others) for name in first}
        count = int(joined.pop("count").sum())
        return cls([joined[str(number)] for number in range(len(joined))], count)

    def of(self, number: int) -> Float[np.ndarray, " d"]:
        """The mean output at one of the hookpoints."""
        return (self.sums[number] / max(self.count, 1)).astype(np.float32)


@dataclass(frozen=True)
class Looker:
    """Shows windows to the subject, and what each hookpoint shows to its coder. Sent elsewhere it loads the subject
    anew."""

    config: Config
    hookpoints: tuple[str, ...]
    coders: Sequence[Coder]

    def __reduce__(self) -> tuple[type[Looker], tuple[Config, tuple[str, ...], Sequence[Coder]]]:
        return type(self), (self.config, self.hookpoints, self.coders)

    @cached_property
    def subjects(self) -> list[Subject]:
        """The subject at each of the hookpoints. Raises UserError where a coder does not fit it."""
        subjects = load_subjects(self.config, self.hookpoints)
        for coder, subject in zip(self.coders, subjects, strict=True):
            check_fit(coder, subject)
        return subjects

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The subject's."""
        tokenizer = self.subjects[0].tokenizer
        assert tokenizer is not None, "load_subjects loads a tokenizer"
        return tokenizer

    def encode(self, windows: Windows, vocabulary: tuple[str, ...]) -> tuple[list[Shard], Means]:
        """Every latent's activations at the counted positions of some windows, as each hookpoint shows them, and the
        sums of what it returned there."""
        ids = np.concatenate([np.empty(0, dtype=np.int32), *(w for _, w in windows)])
        starts = np.concatenate([[0], np.cumsum([len(w) for _, w in windows])]).astype(np.int64)
        text, documents = Text(ids, starts, vocabulary), np.array([d for d, _ in windows], dtype=np.int32)
        kept: list[list[Any]] = [[csr_array((0, coder.latents), dtype=np.float32)] for coder in self.coders]
        means = Means([np.zeros(subject.width) for subject in self.subjects], int(text.counted().sum()))
        for begin in range(0, len(windows), self.config.batch):
            padded = pad_windows([w for _, w in windows[begin : begin + self.config.batch]])
            every = look(self.subjects, torch.as_tensor(padded.ids))
            for number, seen in enumerate(every):
                activations, output = self._keep(number, seen, padded)
                kept[number].append(activations)
                means.sums[number] += output
        shards = [Shard(text, documents, _drop_rows(vstack(parts, format="csr"), text)) for parts in kept]
        return shards, means

    def _keep(self, number: int, seen: Seen, padded: Padded) -> tuple[csr_array, Float[np.ndarray, " d"]]:
        """The activations of a batch of windows at a hookpoint, and the sum of what was returned where it counts."""
        coder, device = self.coders[number], seen.output.device
        real = torch.as_tensor(padded.real, device=device)
        output = seen.output[real].float()
        if not torch.isfinite(output).all():
            raise UserError(
                f"hookpoint = {self.hookpoints[number]}: its output holds NaN or infinite values on this text; set "
                "dtype to float32 or bfloat16, or take another layer"
            )
        counted = torch.as_tensor(padded.counted[padded.real], device=device)
        return coder.encode(coder.read(seen.input[real], output)), output[counted].double().sum(0).cpu().numpy()


@dataclass(frozen=True)
class Collector:
    """Shards of windows by name, and a folder for each hookpoint."""

    looker: Looker
    windows: Mapping[str, Windows]
    vocabulary: tuple[str, ...]
    folders: Sequence[Path]


def collect_shard(collector: Collector, name: str) -> Arrays:
    """Write a shard into each folder. Of the calibrate split it gives the sums from which the means are."""
    shards, means = collector.looker.encode(collector.windows[name], collector.vocabulary)
    for folder, shard in zip(collector.folders, shards, strict=True):
        save_shard(folder, name, shard)
    counts = name.startswith("calibrate-")
    sums = {str(number): own * counts for number, own in enumerate(means.sums)}
    return sums | {"count": np.array([means.count * counts])}


def _drop_rows(activations: csr_array, text: Text) -> csr_array:
    """The same with the rows of positions that are not counted empty."""
    rows = np.repeat(text.counted(), np.diff(activations.indptr))
    kept = np.diff(activations.indptr) * text.counted()
    indptr = np.concatenate([[0], np.cumsum(kept)])
    return csr_array((activations.data[rows], activations.indices[rows], indptr), shape=activations.shape)
