"""Peak memory of the whole pipeline, at one and at ten times the tokens."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.setting import SETTINGS

SCALED = "corpus.train={0}", "coder.tokens={1}", "collect.train_tokens={1}"


def bench() -> Iterator[str]:
    """Each size runs in a process of its own; its peak resident memory is the kernel's figure."""
    one, ten = (peak(documents, tokens) for documents, tokens in ((400, 80_000), (400, 800_000)))
    yield f"{one / 2**20:,.2f} GiB at 80,000 tokens, {ten / one:.2f} times that at 800,000"


def peak(documents: int, tokens: int) -> int:
    """Peak resident memory of a run [KiB]."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [*SETTINGS, *(s.format(documents, tokens) for s in SCALED), "evaluate.random_seeds=0"]
        command = [sys.executable, "-m", "rewrite", "run", "--run", folder]
        process = subprocess.Popen(
            [*command, *(word for s in settings for word in ("--set", s))], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the run at {tokens} tokens failed")
    return usage.ru_maxrss
