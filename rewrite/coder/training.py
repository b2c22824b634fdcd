"""EleutherAI's sparsify trains a coder through its Python API.

1. Adam with a linear warm-up and decay on the FVU of the train split's counted positions, repeated in a new order until
   `coder.tokens` of them were seen.
2. It is given the subject's base model cut off after the hookpoint, so that nothing is computed in vain.

sparsify can leave out positions by their token only. A position that does not count (padding, the first of a window)
is therefore given its token's id plus the size of the vocabulary, which the model's input hook takes off again."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from rewrite.coder.coder import Coder
from rewrite.coder.files import load_coder
from rewrite.config import CoderConfig
from rewrite.display.progress import bar
from rewrite.subject.subject import Subject
from rewrite.text.windows import Windows


@dataclass(frozen=True)
class Batches(Dataset[dict[str, Tensor]]):
    """Windows in training order, as sparsify wants them; ids of positions that do not count are raised by `offset`."""

    ids: Int[Tensor, "window position"]
    order: Int[Tensor, " step"]
    offset: int

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.ids[self.order[index]].long()}

    def excluded(self) -> list[int]:
        """The ids, as raised, that are not trained on."""
        found: list[int] = torch.unique(self.ids[self.ids >= self.offset]).tolist()
        return found


def order_windows(windows: Windows, config: CoderConfig, length: int, offset: int) -> Batches:
    """Repeat the windows, each time in a new order, until `config.tokens` positions that count; whole batches only."""
    ids = torch.zeros(len(windows), length, dtype=torch.int32)
    for row, window in zip(ids, windows, strict=True):
        row[: len(window)] = torch.as_tensor(window)
    lengths = torch.tensor([len(window) for window in windows])
    place = torch.arange(length)
    counted = (place > 0) & (place < lengths[:, None])
    each = counted.sum(1)
    generator = torch.Generator().manual_seed(config.seed)
    epochs = config.tokens // int(each.sum()) + 1 + config.batch // len(windows) + 1
    order = torch.cat([torch.randperm(len(windows), generator=generator) for _ in range(epochs)])
    needed = int((each[order].cumsum(0) < config.tokens).sum()) + 1
    steps = -(-needed // config.batch)
    return Batches(torch.where(counted, ids, ids + offset), order[: steps * config.batch], offset)


def train_coder(config: CoderConfig, subject: Subject, windows: Windows, length: int, scratch: Path) -> Coder:
    """Let sparsify train a coder on the windows, none of them longer than `length`; `scratch` is left as it was."""
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    with redirect_stdout(None):
        from sparsify import SparseCoderConfig, TrainConfig, Trainer
    embeddings: Any = subject.model.get_input_embeddings()
    batches = order_windows(windows, config, length, len(embeddings.weight))
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        settings = TrainConfig(
            SparseCoderConfig(
                num_latents=config.latents,
                k=config.k,
                transcode=config.kind != "sae",
                skip_connection=config.kind == "skip_transcoder",
            ),
            batch_size=config.batch,
            optimizer="adam",
            lr=config.learning_rate,
            lr_warmup_steps=config.warmup,
            exclude_tokens=batches.excluded(),
            hookpoints=[subject.module_path],
            init_seeds=[config.seed],
            save_every=len(batches) + 1,
            save_dir=folder,
            run_name="coder",
            log_to_wandb=False,
        )
        # Opened before all is quiet, so that it is heard.
        progress = bar(what="train", unit="steps", total=len(batches) // config.batch)
        with progress, _quiet(), _torch_as_it_was(), subject.cut(), _hooks(subject, batches.offset, progress.update):
            trainer: Any = Trainer(settings, batches, subject.model.base_model)
            for coder in trainer.saes.values():
                coder.register_forward_pre_hook(_to_float32, with_kwargs=True)
            progress.reset()  # It has run the model once to learn its widths.
            trainer.fit()
        return load_coder(Path(folder) / "coder", subject.module_path)


def _to_float32(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A coder's input hook: sparsify hands it the subject's own precision, in which only CUDA would take it."""
    return args, {
        name: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v for name, v in kwargs.items()
    }


@contextmanager
def _hooks(subject: Subject, offset: int, told: Callable[[], object]) -> Iterator[None]:
    """The base model's input hook while sparsify drives it: true ids, and no cache of keys and values; `told` is called
    at each step."""

    def prepare(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        told()
        return tuple(ids % offset for ids in args), kwargs | {"use_cache": False}

    handle = subject.model.base_model.register_forward_pre_hook(prepare, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _torch_as_it_was() -> Iterator[None]:
    """Undo what sparsify sets for the whole process: the random state and the precision of matrix products."""
    precision = torch.get_float32_matmul_precision()
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


@contextmanager
def _quiet() -> Iterator[None]:
    """sparsify prints what it does, and a progress bar of its own."""
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(nowhere))
        stack.enter_context(redirect_stderr(nowhere))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield
