"""Train: get a sparse coder for the hookpoint, and measure it on documents that nothing was fitted to.

1. A coder named by `coder.path` is read, checked against the subject, and copied.
2. Otherwise EleutherAI's sparsify trains one through its Python API: Adam with a linear warm-up and decay on the FVU
   of the train split's counted positions, repeated in a new order until `coder.tokens` of them were seen. It is given
   the subject's base model cut off after the hookpoint, so that nothing is computed in vain.
3. On the calibrate split: FVU with one mean over the whole set, the number of latents active at a position, the share
   that never fires, and the loss with the module's own output, the coder's, and the coder's with every latent 0.

sparsify can leave out positions by their token only. A position that does not count (padding, the first of a window)
is therefore given its token's id plus the size of the vocabulary, which the model's input hook takes off again.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from rewrite.coder import Coder, check_fit, find_coder, load_coder
from rewrite.config import CoderConfig, Config, UserError
from rewrite.corpus import Document, cut_windows, pad_windows, read_documents, split_documents, spread_windows
from rewrite.scoring import NONE, next_tokens, window_losses
from rewrite.store import Run, write_json
from rewrite.subject import Subject, load_subject

Windows = Sequence[Int[np.ndarray, " _"]]


def run(config: Config, run: Run) -> None:
    """Write `1_coder`: the coder in a folder named after the hookpoint, and metrics.json."""
    subject = load_subject(config)
    check_settings(config)
    given = load_given(config, subject) if config.coder.path else None
    documents = read_documents(config.corpus)
    splits = split_documents(documents, config.corpus)
    with run.writing("1_coder") as folder:
        place = folder / config.hookpoint
        place.mkdir(parents=True)
        if given is None:
            windows = training_windows([documents[i] for i in splits["train"]], subject, config)
            train_coder(config.coder, subject, windows, config.corpus.window, folder).save(place)
        elif given.fits_sparsify:
            given.save(place)
        else:
            copy_files(config, place)
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
    coder = load_coder(Path(config.coder.path or ""), config.hookpoint)
    check_fit(coder, subject)
    return coder


def copy_files(config: Config, place: Path) -> None:
    """Copy a given coder's files as they are: those that sparsify's layout has no words for."""
    source = find_coder(Path(config.coder.path or ""), config.hookpoint)
    for file in source.iterdir():
        if file.name == "cfg.json" or file.suffix == ".safetensors":
            shutil.copyfile(file, place / file.name)


def training_windows(documents: Sequence[Document], subject: Subject, config: Config) -> Windows:
    """Windows of the train split's documents, in an order drawn by the coder's seed, up to `coder.tokens`."""
    generator = torch.Generator().manual_seed(config.coder.seed)
    windows: list[Int[np.ndarray, " _"]] = []
    tokens = 0
    for i in torch.randperm(len(documents), generator=generator).tolist():
        cut = _cut(documents[i], subject, config)
        windows += cut
        tokens += sum(len(window) - 1 for window in cut)
        if tokens >= config.coder.tokens:
            break
    return _not_empty(windows, config)


def held_out_windows(documents: Sequence[Document], subject: Subject, config: Config) -> Windows:
    """Windows of the calibrate split's documents, at most `corpus.max_windows` of each where that is not 0."""
    windows: list[Int[np.ndarray, " _"]] = []
    for document in documents:
        cut = _cut(document, subject, config)
        windows += [cut[i] for i in spread_windows(len(cut), config.corpus.max_windows)]
    return _not_empty(windows, config)


def _cut(document: Document, subject: Subject, config: Config) -> list[np.ndarray]:
    assert subject.tokenizer is not None
    return cut_windows(document.text, subject.tokenizer, config.corpus.window)


def _not_empty(windows: Windows, config: Config) -> Windows:
    if not windows:
        raise UserError(f"{config.corpus.source}: a split has no document of 3 tokens; give a larger corpus")
    return windows


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
        with _quiet(), _torch_as_it_was(), subject.cut(), _hooks(subject, batches.offset):
            trainer: Any = Trainer(settings, batches, subject.model.base_model)
            for coder in trainer.saes.values():
                coder.register_forward_pre_hook(_to_float32, with_kwargs=True)
            trainer.fit()
        return load_coder(Path(folder) / "coder", subject.module_path)


def _to_float32(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A coder's input hook: sparsify hands it the subject's own precision, in which only CUDA would take it."""
    return args, {
        name: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v for name, v in kwargs.items()
    }


@contextmanager
def _hooks(subject: Subject, offset: int) -> Iterator[None]:
    """The base model's input hook while sparsify drives it: true ids, and no cache of keys and values."""

    def prepare(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
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
    """sparsify prints what it does, and its progress bar even where that is no terminal."""
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(nowhere))
        if not sys.stderr.isatty():
            stack.enter_context(redirect_stderr(nowhere))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Metrics:
    """What a coder is worth on held-out text."""

    fvu: float
    """Fraction of the output's variance left unexplained: Σ‖y−ŷ‖² / Σ‖y−ȳ‖², one mean over the whole set."""
    l0: float
    """Latents active at a position, on average [latents]."""
    dead: float
    """Share of the latents that never fire here."""
    loss_clean: float
    """Loss with the module's own output [nats per token]."""
    loss_coder: float
    """Loss with the coder's output [nats per token]."""
    loss_zero: float
    """Loss with the coder's output when every latent is 0 [nats per token]."""
    recovered: float | None
    """(zero − coder) / (zero − clean), the share of the module's effect on the loss that the coder keeps; None where
    the module has no effect."""
    positions: int
    """Positions measured [tokens]."""
    tokens: int
    """Tokens whose loss is counted [tokens]."""


class Tally:
    """Sums over counted positions, in float64."""

    def __init__(self, width: int, latents: int) -> None:
        self.error = self.squares = 0.0
        self.sum = np.zeros(width)
        self.positions = self.active = self.tokens = 0
        self.fired = np.zeros(latents, dtype=bool)
        self.losses = {"clean": 0.0, "coder": 0.0, "zero": 0.0}

    def add(self, truth: Tensor, written: Tensor) -> None:
        """Take in the module's outputs and the coder's at some positions, [position, d] each."""
        y, guess = truth.double(), written.double()
        self.error += float((y - guess).square().sum())
        self.squares += float(y.square().sum())
        self.sum += y.sum(0).cpu().numpy()
        self.positions += len(y)

    def metrics(self) -> Metrics:
        """The means. Raises UserError where nothing was taken in that has a mean."""
        variance = self.squares - float(self.sum @ self.sum) / max(self.positions, 1)
        if self.tokens == 0 or variance <= 0:
            raise UserError("corpus.calibrate: its documents hold too few tokens to measure a coder on; ask for more")
        clean, coder, zero = (self.losses[arm] / self.tokens for arm in ("clean", "coder", "zero"))
        return Metrics(
            fvu=self.error / variance,
            l0=self.active / self.positions,
            dead=1 - float(self.fired.mean()),
            loss_clean=clean,
            loss_coder=coder,
            loss_zero=zero,
            recovered=(zero - coder) / (zero - clean) if zero != clean else None,
            positions=self.positions,
            tokens=self.tokens,
        )


def hold_out_metrics(subject: Subject, coder: Coder, windows: Windows, batch: int) -> Metrics:
    """Measure a coder on token windows, `batch` of them in a forward pass."""
    tally = Tally(coder.W_dec.shape[1], coder.latents)
    # Windows of like length together: less padding.
    windows = sorted(windows, key=len)
    with tqdm(total=len(windows), desc="measure", unit=" windows", disable=None) as progress, torch.no_grad():
        for begin in range(0, len(windows), batch):
            padded = pad_windows(windows[begin : begin + batch])
            ids, counted = (torch.from_numpy(array).to(subject.device) for array in (padded.ids, padded.counted))
            _measure(subject, coder, ids, counted, tally)
            progress.update(len(padded.ids))
    return tally.metrics()


def _measure(
    subject: Subject,
    coder: Coder,
    ids: Int[Tensor, "window position"],
    counted: Bool[Tensor, "window position"],
    tally: Tally,
) -> None:
    """Add one batch to the tally."""
    prefix = subject.run_to(ids)
    x = coder.read(prefix.input[counted], prefix.output[counted])
    activations = coder.encode(x)
    written = {"coder": coder.reconstruct(activations, x), "zero": coder.base(x)}
    tally.add(prefix.output[counted], written["coder"])
    tally.active += activations.nnz
    tally.fired[activations.indices] = True
    targets = next_tokens(ids, counted, real=counted)  # All that is real counts here, but for a first position.
    tally.tokens += int((targets != NONE).sum())
    for arm in tally.losses:
        vectors = prefix.output.clone()
        if arm in written:
            vectors[counted] = written[arm].to(vectors.dtype)
        tally.losses[arm] += float(window_losses(subject.run_from(prefix, vectors), targets).sum())
