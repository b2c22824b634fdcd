"""How fast this machine is with a subject and a coder: seconds a token, measured on windows of the real text.

The subject runs to the hookpoint and from it; a coder of random weights is trained for some steps, encodes and decodes.
Each is done once to warm up and then for `ENOUGH` seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from rewrite.coder.coder import Coder
from rewrite.subject.scoring import losses_from, next_tokens
from rewrite.subject.subject import Subject
from rewrite.text.windows import pad_windows

ENOUGH = 0.5
"""Shortest time that is measured [s]."""
ROWS = 1024
"""Vectors that a coder is measured on."""


@dataclass(frozen=True)
class Pace:
    """Seconds a token of each part of the work."""

    to: float
    """The subject up to the hookpoint."""
    whole: float
    """From the hookpoint to the loss of the next token."""
    back: float
    """The same with its gradient."""
    train: float
    """A step of the coder's training, without the subject."""
    encode: float
    decode: float


def measure(subject: Subject, windows: Sequence[Int[np.ndarray, " _"]], coder: Coder, batch: int) -> Pace:
    """Measure on windows of the text, `batch` training windows a step."""
    padded = pad_windows(windows)
    ids, real = torch.as_tensor(padded.ids, device=subject.device), torch.as_tensor(padded.real, device=subject.device)
    targets = next_tokens(ids, torch.as_tensor(padded.counted, device=subject.device), real)
    prefix = subject.run_to(ids)
    tokens = int(padded.real.sum())

    def run_from(gradient: bool) -> None:
        vectors = prefix.output.detach().clone().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            loss = losses_from(subject, prefix, vectors, targets).sum()
            if gradient:
                loss.backward()  # type: ignore[no-untyped-call]

    x = coder.read(prefix.input[real], prefix.output[real])
    x = x[torch.arange(ROWS, device=x.device) % len(x)]
    code = coder.encode(x)
    return Pace(
        to=_time(lambda: subject.run_to(ids)) / tokens,
        whole=_time(lambda: run_from(False)) / tokens,
        back=_time(lambda: run_from(True)) / tokens,
        train=_time(_step(coder, x, batch * len(padded.ids[0]))) / (batch * len(padded.ids[0])),
        encode=_time(lambda: coder.encode(x)) / ROWS,
        decode=_time(lambda: coder.reconstruct(code, x)) / ROWS,
    )


def random_coder(subject: Subject, latents: int, k: int, kind: str) -> Coder:
    """A coder of random weights: as slow as a trained one."""
    generator = torch.Generator().manual_seed(0)
    encoder = torch.randn(latents, subject.width, generator=generator).to(subject.device) / subject.width**0.5
    zeros = torch.zeros(latents, device=subject.device), torch.zeros(subject.width, device=subject.device)
    skip = torch.zeros(subject.width, subject.width, device=subject.device) if kind == "skip_transcoder" else None
    return Coder(encoder, zeros[0], encoder.clone(), zeros[1], kind, "topk", k, skip)  # type: ignore[arg-type]


def _step(coder: Coder, x: torch.Tensor, rows: int) -> Callable[[], None]:
    """A step of Adam on `rows` vectors."""
    weights = [w.clone().requires_grad_() for w in (coder.W_enc, coder.b_enc, coder.W_dec, coder.b_dec)]
    optimizer = torch.optim.Adam(weights)
    x = x[torch.arange(rows, device=x.device) % len(x)]

    def step() -> None:
        values, indices = torch.relu(x @ weights[0].mT + weights[1]).topk(coder.k, dim=-1)
        bags = torch.nn.functional.embedding_bag(indices, weights[2], mode="sum", per_sample_weights=values)
        loss = (bags + weights[3] - x).square().sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _time(work: Callable[[], object]) -> float:
    """Seconds that it takes once, in the median."""
    work()
    taken, began = list[float](), time.monotonic()
    while not taken or time.monotonic() - began < ENOUGH:
        before = time.monotonic()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.monotonic() - before)
    return statistics.median(taken)
