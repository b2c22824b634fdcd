"""Collect: run the subject over the three splits and keep each latent's true activations.

1. Documents are tokenized, cut into windows, and thinned evenly where the config caps them.
2. Each batch of windows runs up to the hookpoint; the coder encodes every counted position.
3. The module's mean output on the calibrate split is kept for the `mean_layer` arm.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from rewrite.run.files import save_arrays, write_json
from rewrite.run.store import Run
from rewrite.subject.subject import Subject, load_subject
from rewrite.text.corpus import SPLITS, Document, describe_splits, split_documents
from rewrite.text.sources import read_corpus
from rewrite.text.windows import Text, cut_windows, pad_windows, spread_windows, token_pieces, token_strings


def run(config: Config, run: Run) -> None:
    """Write `2_activations`."""
    corpus = read_corpus(config.corpus)
    documents = corpus.documents
    splits = split_documents(documents, config.corpus)
    run.note("corpus", describe_splits(corpus, splits))
    subject = load_subject(config)
    coder = load_coder(run.path("1_coder"), config.hookpoint).to(torch.device(config.device))
    check_fit(coder, subject)
    tokenizer = subject.tokenizer
    assert tokenizer is not None, "load_subject loads a tokenizer"
    with run.writing("2_activations") as folder:
        folder.mkdir()
        collector = Collector(config, subject, tokenizer, coder)
        names: dict[str, list[list[str]]] = {}
        for split in SPLITS:
            names[split] = collector.collect(split, [documents[i] for i in splits[split]], folder)
        save_arrays(folder / "means.safetensors", {"output": collector.mean_output()})
        pieces = {str(i): piece.hex() for i, piece in token_pieces(tokenizer, collector.vocabulary).items()}
        index = {"vocabulary": collector.vocabulary, "pieces": pieces, "latents": coder.latents, "splits": names}
        write_json(folder / "documents.json", index)


class Collector:
    """Encodes documents, shard by shard."""

    def __init__(self, config: Config, subject: Subject, tokenizer: PreTrainedTokenizerBase, coder: Coder):
        self.config, self.subject, self.tokenizer, self.coder = config, subject, tokenizer, coder
        self.vocabulary = token_strings(tokenizer)
        self.output_sum, self.output_count = np.zeros(subject.width), 0

    def mean_output(self) -> np.ndarray:
        """The module's mean output over the counted positions of the calibrate split, [d]."""
        return (self.output_sum / max(self.output_count, 1)).astype(np.float32)

    def collect(self, split: str, documents: Sequence[Document], folder: Path) -> list[list[str]]:
        """Write the shards of a split; returns the names of the documents of each."""
        cut = [cut_windows(d.text, self.tokenizer, self.config.corpus) for d in documents]
        kept = [
            [windows[i] for i in spread_windows(len(windows), limit)] for windows, limit in self._limits(split, cut)
        ]
        size = self.config.collect.shard
        names = []
        progress = bar(what=f"collect {split}", unit="windows", total=sum(map(len, kept)))
        with progress:
            for number, begin in enumerate(range(0, len(documents), size)):
                windows = [(begin + i, w) for i, ws in enumerate(kept[begin : begin + size]) for w in ws]
                save_shard(folder, f"{split}-{number:05d}", self.encode(windows, split == "calibrate"))
                names.append([d.name for d in documents[begin : begin + size]])
                progress.update(len(windows))
        return names

    def _limits(self, split: str, cut: list[list[np.ndarray]]) -> list[tuple[list[np.ndarray], int]]:
        """Each document's windows and how many of them are kept (0: all)."""
        if split != "train":
            return [(windows, self.config.corpus.max_windows) for windows in cut]
        share = self.config.collect.train_tokens / max(sum(len(w) for windows in cut for w in windows), 1)
        return [(windows, 0 if share >= 1 else max(1, round(share * len(windows)))) for windows in cut]

    def encode(self, windows: Sequence[tuple[int, np.ndarray]], add_to_mean: bool = False) -> Shard:
        """Windows, each with the number of its document, and every latent's activations at their counted positions."""
        ids = np.concatenate([np.empty(0, dtype=np.int32), *(w for _, w in windows)])
        starts = np.concatenate([[0], np.cumsum([len(w) for _, w in windows])]).astype(np.int64)
        text = Text(ids, starts, self.vocabulary)
        parts: list[Any] = [csr_array((0, self.coder.latents), dtype=np.float32)]
        batch = self.config.batch
        for begin in range(0, len(windows), batch):
            padded = pad_windows([w for _, w in windows[begin : begin + batch]])
            prefix = self.subject.run_to(torch.as_tensor(padded.ids, device=self.config.device))
            real = torch.as_tensor(padded.real, device=self.config.device)
            output = prefix.output[real].float()
            if not torch.isfinite(output).all():
                raise UserError(
                    f"hookpoint = {self.config.hookpoint}: its output holds NaN or infinite values on this text; set "
                    "dtype to float32 or bfloat16, or take another layer"
                )
            parts.append(self.coder.encode(self.coder.read(prefix.input[real], output)))
            if add_to_mean:
                counted = torch.as_tensor(padded.counted[padded.real], device=self.config.device)
                self.output_sum += output[counted].double().sum(0).cpu().numpy()
                self.output_count += int(counted.sum())
        activations = _drop_rows(vstack(parts, format="csr"), text)
        return Shard(text, np.array([d for d, _ in windows], dtype=np.int32), activations)


def _drop_rows(activations: csr_array, text: Text) -> csr_array:
    """The same with the rows of positions that are not counted empty."""
    rows = np.repeat(text.counted(), np.diff(activations.indptr))
    kept = np.diff(activations.indptr) * text.counted()
    indptr = np.concatenate([[0], np.cumsum(kept)])
    return csr_array((activations.data[rows], activations.indices[rows], indptr), shape=activations.shape)
