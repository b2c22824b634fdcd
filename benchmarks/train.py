"""Training a coder, in tokens a second, beside sparsify called directly on the whole model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from datasets import Dataset

from benchmarks import seconds
from benchmarks.setting import config
from rewrite.coder.training import train_coder
from rewrite.stages.train import training_windows
from rewrite.subject.subject import Subject, load_subject
from rewrite.text.corpus import split_documents
from rewrite.text.sources import read_corpus


def bench() -> Iterator[str]:
    """The same coder, batches and optimizer; ours stops at the hookpoint and leaves out what does not count."""
    settings = config("coder.tokens=40_000")
    subject = load_subject(settings)
    documents = read_corpus(settings.corpus).documents
    chosen = [documents[i] for i in split_documents(documents, settings.corpus)["train"]]
    windows = training_windows(chosen, subject, settings)
    whole = [w.tolist() for w in windows if len(w) == settings.corpus.window]
    whole = whole[: settings.coder.tokens // settings.corpus.window]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train_coder(settings.coder, subject, windows, settings.corpus.window, Path(folder))

    direct_seconds = seconds(lambda: direct(subject, whole, settings.coder.batch), repeats=2)
    ours_rate = settings.coder.tokens / seconds(ours, repeats=2)
    direct_rate = len(whole) * settings.corpus.window / direct_seconds
    ratio = ours_rate / direct_rate
    yield f"{ours_rate:,.0f} tokens a second, {ratio:.2f} times sparsify called directly ({direct_rate:,.0f})"


def direct(subject: Subject, windows: list[list[int]], batch: int) -> None:
    """sparsify as its own documentation calls it: the causal model, a dataset of ids."""
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    from sparsify import SparseCoderConfig, TrainConfig, Trainer

    data = Dataset.from_dict({"input_ids": windows}).with_format("torch")
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        settings = TrainConfig(
            SparseCoderConfig(num_latents=1024, k=16, transcode=True),
            batch_size=batch,
            optimizer="adam",
            lr=5e-3,
            lr_warmup_steps=50,
            hookpoints=[subject.module_path],
            save_dir=folder,
            run_name="coder",
            log_to_wandb=False,
        )
        with redirect_stdout(nowhere), redirect_stderr(nowhere), torch.enable_grad():
            Trainer(settings, data, subject.model).fit()
