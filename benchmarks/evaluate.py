"""What one arm costs beside one plain forward pass over the same windows."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks import seconds
from benchmarks.setting import config
from rewrite.subject import load_subject


def bench() -> Iterator[str]:
    """Layers up to the hookpoint run once a text; an arm runs what comes after it."""
    names = load_subject(config()).hookpoints()
    for hookpoint in [name for name in names if name.endswith(".mlp")]:
        subject = load_subject(config(f"hookpoint={hookpoint}"))
        ids = torch.randint(0, 4000, (16, 128), generator=torch.Generator().manual_seed(0))
        prefix = subject.run_to(ids)
        plain = seconds(lambda s=subject: s.logits(ids), repeats=7)  # type: ignore[misc]
        arm = seconds(lambda s=subject, p=prefix: s.run_from(p, p.output), repeats=7)  # type: ignore[misc]
        once = seconds(lambda s=subject: s.run_to(ids), repeats=7)  # type: ignore[misc]
        yield f"{hookpoint}: an arm takes {arm / plain:.2f} of a plain forward pass (the prefix, once: {once / plain:.2f})"
