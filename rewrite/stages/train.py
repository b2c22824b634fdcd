"""Train: get a sparse coder for the hookpoint, and measure it on documents that nothing was fitted to.

1. A coder named by `coder.path` is read, checked against the subject, and written in a layout that is known here.
2. Otherwise EleutherAI's sparsify trains one through its Python API: Adam with a linear warm-up and decay on the FVU
   of the train split's counted positions, repeated in a new order until `coder.tokens` of them were seen. It is given
   the subject's base model cut off after the hookpoint, so that nothing is computed in vain.
3. On the calibrate split: FVU with one mean over the whole set, the number of latents active at a position, the share
   that never fires, and the loss with the module's own output, the coder's, and the coder's with every latent 0.

sparsify can leave out positions by their token only. A position that does not count (padding, the first of a window)
is therefore given its token's id plus the size of the vocabulary, which the model's input hook takes off again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import torch
from jaxtyping import Int

from rewrite.coder.coder import Coder, check_fit
from rewrite.coder.files import load_coder, save_coder
from rewrite.coder.hub import fetch_coder
from rewrite.coder.metrics import hold_out_metrics
from rewrite.coder.normed import fold_norm
from rewrite.coder.training import train_coder
from rewrite.config import Config, UserError
from rewrite.run.files import write_json
from rewrite.run.store import Run
from rewrite.subject.subject import Subject, load_subject
from rewrite.text.corpus import cut_documents, split_documents
from rewrite.text.documents import Document
from rewrite.text.sources import read_corpus
from rewrite.text.windows import Windows, spread_windows


def run(config: Config, run: Run) -> None:
    """Write `1_coder`: the coder in a folder named after the hookpoint, and metrics.json."""
    subject = load_subject(config)
    check_settings(config)
    given = load_given(config, subject) if config.coder.path else None
    documents = read_corpus(config.corpus).documents
    splits = split_documents(documents, config.corpus)
    with run.writing("1_coder") as folder:
        place = folder / config.hookpoint
        place.mkdir(parents=True)
        if given is None:
            windows = training_windows([documents[i] for i in splits["train"]], subject, config)
            given = train_coder(config.coder, subject, windows, config.corpus.window, folder)
        save_coder(given, place, config.hookpoint)
        coder = load_coder(folder, config.hookpoint).to(subject.device)
        windows = held_out_windows([documents[i] for i in splits["calibrate"]], subject, config)
        write_json(folder / "metrics.json", asdict(hold_out_metrics(subject, coder, windows, config.batch)))


def check_settings(config: Config) -> None:
    """Refuse, before any work, settings of a coder to train that do not go together."""
    coder = config.coder
    if coder.path is None and coder.k > coder.latents:
        raise UserError(f"coder.k = {coder.k}: more than coder.latents = {coder.latents}; set less")
    if coder.path is None and coder.kind != "sae" and not config.hookpoint.endswith(".mlp"):
        raise UserError(f"coder.kind = {coder.kind}: stands at an MLP; set coder.kind=sae for {config.hookpoint}")


def load_given(config: Config, subject: Subject) -> Coder:
    """The coder that `coder.path` names. Raises UserError where it does not fit the subject."""
    coder = load_coder(fetch_coder(config.coder.path or "", config.hookpoint, config.coder.revision), config.hookpoint)
    check_fit(coder, subject)
    return fold_norm(coder, subject)


def training_windows(documents: Sequence[Document], subject: Subject, config: Config) -> Windows:
    """Windows of the train split's documents, in an order drawn by the coder's seed, up to `coder.tokens`."""
    generator = torch.Generator().manual_seed(config.coder.seed)
    order = torch.randperm(len(documents), generator=generator).tolist()
    windows: list[Int[np.ndarray, " _"]] = []
    tokens = 0
    for cut in _cut([documents[i] for i in order], subject, config):
        windows += cut
        tokens += sum(len(window) - 1 for window in cut)
        if tokens >= config.coder.tokens:
            break
    return _not_empty(windows, config)


def held_out_windows(documents: Sequence[Document], subject: Subject, config: Config) -> Windows:
    """Windows of the calibrate split's documents, at most `corpus.max_windows` of each where that is not 0."""
    windows: list[Int[np.ndarray, " _"]] = []
    for cut in _cut(documents, subject, config):
        windows += [cut[i] for i in spread_windows(len(cut), config.corpus.max_windows)]
    return _not_empty(windows, config)


def _cut(documents: Sequence[Document], subject: Subject, config: Config) -> Iterator[list[np.ndarray]]:
    assert subject.tokenizer is not None
    return cut_documents(documents, subject.tokenizer, config.corpus)


def _not_empty(windows: Windows, config: Config) -> Windows:
    if not windows:
        raise UserError(f"{config.corpus.source}: a split has no document of 3 tokens; give a larger corpus")
    return windows
