"""What one arm costs beside one plain forward pass over the same windows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks import seconds
from benchmarks.setting import config
from rewrite.subject.subject import load_subject


def bench() -> Iterator[str]:
    """Layers up to the hookpoint run once a text; an arm runs what comes after it."""
    ids = torch.randint(0, 1000, (16, 128), generator=torch.Generator().manual_seed(0))
    names = load_subject(config()).hookpoints()
    for hookpoint in [name for name in names if name.endswith(".mlp")]:
        subject = load_subject(config(f"hookpoint={hookpoint}"))
        prefix = subject.run_to(ids)
        plain = seconds(partial(subject.logits, ids), repeats=7)
        arm = seconds(partial(subject.run_from, prefix, prefix.output), repeats=7)
        once = seconds(partial(subject.run_to, ids), repeats=7)
        ratios = f"{arm / plain:.2f} of a plain forward pass; the prefix, once, {once / plain:.2f}"
        yield f"{hookpoint}: an arm takes {ratios}"
