"""Sizes for a run, from the largest to the smallest: of coder, text and arms, as the machine and the text allow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from rewrite.commands.new.estimate import Amounts
from rewrite.config import Config, UserError
from rewrite.run.configs import change_config
from rewrite.subject.loading import check_device
from rewrite.subject.subject import Subject
from rewrite.text.sources import read_corpus
from rewrite.text.windows import cut_windows, spread_windows

LOOKED_AT = 64
"""Documents that lengths are taken from [documents]."""
MEASURED = 8
"""Windows that speeds are measured on [windows]."""
LEAST = 80
"""Fewest documents that leave 8 for a split [documents]."""


@dataclass(frozen=True)
class Level:
    """One size of everything."""

    tokens: int
    """That the coder learns from."""
    evidence: int
    """Tokens that explanations are made from."""
    documents: int
    """Of the calibrate split, and as many of the test split."""
    windows: int
    """Of one of them."""
    fine: bool
    """All fractions and draws, or a few."""
    width: int
    """Latents of the coder for each number of the layer's vectors."""


LEVELS = (
    Level(10_000_000, 3_000_000, 500, 16, True, 8),
    Level(5_000_000, 1_000_000, 250, 8, True, 8),
    Level(2_000_000, 500_000, 120, 8, True, 8),
    Level(1_000_000, 500_000, 100, 8, False, 8),
    Level(600_000, 300_000, 60, 8, False, 4),
    Level(300_000, 150_000, 40, 4, False, 4),
    Level(100_000, 60_000, 20, 4, False, 2),
)
FEW = {"evaluate.fractions": [0.1, 0.5, 1.0], "evaluate.random_seeds": 2, "evaluate.control_seeds": 2}


@dataclass(frozen=True)
class Machine:
    """What there is to compute on."""

    device: str
    memory: int
    """Free on the device [bytes]."""

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.device}, {os.cpu_count()} cores, {self.memory / 2**30:.0f} GiB free"

    def latents(self, width: int, each: int = 8) -> int:
        """A power of two, about `each` a number of the vectors; its training fits into a quarter of the memory."""
        wanted = int(np.clip(2 ** round(np.log2(each * width)), 128, 2**15))
        while wanted > 128 and 8 * 4 * wanted * width > self.memory / 4:
            wanted //= 2
        return wanted

    def batch(self, window: int, vocabulary: int) -> int:
        """Windows in a forward pass: three copies of their logits fit into a quarter of the memory."""
        most = 16 if self.device == "cpu" else 64
        fits = self.memory / 4 / (3 * 4 * window * vocabulary)
        return int(2 ** np.floor(np.log2(np.clip(fits, 1, most))))


def look(device: str) -> Machine:
    """The device that is wanted, else CUDA's first, else the CPU, and its free memory; where the system does not say
    what is free, as macOS, all of it. Raises UserError for a device that is not there."""
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device("--device", name)
    if name.startswith("cuda"):
        return Machine(name, torch.cuda.mem_get_info(torch.device(name))[0])
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return Machine(name, os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE"))


@dataclass(frozen=True)
class Sample:
    """What some documents tell of the text."""

    documents: int | None
    """In all; None where a stream has as many as are asked for."""
    lengths: tuple[int, ...]
    """Of the documents that were looked at [tokens]."""
    windows: Sequence[Int[np.ndarray, " _"]]
    """Some windows of them."""

    def amounts(self, config: Config) -> Amounts:
        """Tokens of the splits that a config makes."""
        corpus = config.corpus
        total = min(filter(None, (self.documents, corpus.max_documents)), default=0)
        counts = [n if isinstance(n, int) else round(total * n) for n in (corpus.train, corpus.calibrate)]
        test = corpus.test if isinstance(corpus.test, int) else total - sum(counts)
        capped = [self._capped(length, corpus.window, corpus.max_windows) for length in self.lengths]
        each = float(np.mean(capped))
        train = int(counts[0] * np.mean(self.lengths))
        return Amounts(train, int(counts[1] * each), int(test * each), test)

    def _capped(self, length: int, window: int, limit: int) -> int:
        windows = -(-length // window)
        return sum(min(window, length - window * i) for i in spread_windows(windows, limit))


def read_sample(config: Config, subject: Subject) -> Sample:
    """Look at the text. Raises UserError where it has too few documents for three splits."""
    assert subject.tokenizer is not None
    streamed = is_streamed(config.corpus.source)
    if streamed:
        config = change_config(config, {"corpus.stream": True, "corpus.max_documents": LOOKED_AT})
    documents = read_corpus(config.corpus).documents
    if not streamed and len(documents) < LEAST:
        raise UserError(
            f"{config.corpus.source}: {len(documents)} documents; three splits need {LEAST}: give a larger text, or "
            "cut it finer (`rewrite help corpus.separator`)"
        )
    spread = [documents[i] for i in spread_windows(len(documents), LOOKED_AT)]
    cut = [cut_windows(document.text, subject.tokenizer, config.corpus) for document in spread]
    windows = [window for own in cut for window in own]
    longest = sorted(windows, key=len, reverse=True)[:MEASURED]
    lengths = tuple(sum(len(window) for window in own) for own in cut)
    return Sample(None if streamed else len(documents), lengths, longest)


def is_streamed(source: str) -> bool:
    """Whether the text is a dataset of the hub."""
    return source != "stdlib" and not Path(source).exists()


def choose(
    subject: Subject, machine: Machine, sample: Sample, start: dict[str, Any], preset: str
) -> Iterator[dict[str, Any]]:
    """Settings from the largest to the smallest; one alone where the preset sets the sizes."""
    limit = getattr(subject.model.config.get_text_config(), "max_position_embeddings", None) or 128
    window = int(min(start.get("corpus.window", 128), limit))
    vocabulary = subject.model.get_input_embeddings().weight.shape[0]  # type: ignore[index]
    common = start | {"corpus.window": window, "batch": machine.batch(window, int(vocabulary))}
    if "coder.tokens" in start:
        latents = machine.latents(subject.width)
        yield common | {"coder.latents": start.get("coder.latents", latents), "coder.k": start.get("coder.k", 16)}
        return
    for level in LEVELS:
        latents = machine.latents(subject.width, level.width)
        sizes = {"coder.latents": latents, "coder.k": 32 if latents > 4096 else 16, "coder.tokens": level.tokens}
        sizes |= {"collect.train_tokens": level.evidence, "corpus.max_windows": level.windows}
        yield common | sizes | _split(sample, level, window) | ({} if level.fine or preset else FEW)


def _split(sample: Sample, level: Level, window: int) -> dict[str, Any]:
    """How many documents are in which split."""
    if sample.documents is not None:
        held = min(level.documents, sample.documents // 10)
        return {"corpus.train": 0.75, "corpus.calibrate": held, "corpus.test": held}
    train = int(max(level.tokens, level.evidence) / max(float(np.mean(sample.lengths)), 1)) + 1
    splits = {"corpus.train": train, "corpus.calibrate": level.documents, "corpus.test": level.documents}
    # Copies are left out of the splits, so some more are read.
    return {"corpus.stream": True, "corpus.max_documents": int(1.1 * sum(splits.values())) + 10} | splits
