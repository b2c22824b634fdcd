"""How the seconds and the memory of each stage grow with tokens, latents and documents.

Each size is a run of the bundled subject, a process a stage; seconds are those of the CPU, which other work on the
machine changes little.

1. From a common size one of tokens, latents and documents is raised twice by the same factor m. Tokens are those of the
   train split; documents are calibrate and test documents, each of as many windows as before.
2. A stage that takes f whatever the size (its libraries, the corpus) and c · size^p beside has seconds t₁, t₂, t₃ with
   (t₃ − t₂) / (t₂ − t₁) = m^p: the slope p needs no guess of f. 1 is in proportion, 0 not at all. A stage that takes
   less than `LEAST` seconds more at the largest size than at the first has no slope.
3. Memory at the largest size of each beside that at the common one, stage by stage, and the highest of all stages.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from math import log
from pathlib import Path

from benchmarks.stages import STAGES, Taken, measure_stages

LEAST = 1.0
"""CPU seconds more at the largest size than at the first, below which a stage's growth is not told [s]."""
TIMES = 10**0.5
"""By what a size is raised, twice."""
FIXED = (
    "corpus.train=100",
    "coder.k=16",
    "diagnose.documents=0",
    "corpus.max_windows=4",
    "evaluate.random_seeds=0",
    "evaluate.fractions=[1.0]",
    "evaluate.control_seeds=1",
    "cost.check=4",
    "cost.documents=0",
    "analyse.resamples=999",
)


@dataclass(frozen=True)
class Size:
    """The sizes of a run."""

    tokens: int = 40_000
    """Tokens of the train split that are kept, and that a coder is trained for."""
    latents: int = 128
    documents: int = 8
    """Documents of the calibrate split, and as many of the test split."""

    def settings(self) -> list[str]:
        """A run of this size."""
        return [
            *FIXED,
            f"coder.tokens={self.tokens}",
            f"collect.train_tokens={self.tokens}",
            f"coder.latents={self.latents}",
            f"corpus.calibrate={self.documents}",
            f"corpus.test={self.documents}",
        ]


COMMON = Size()


def raise_size(name: str, steps: int) -> Size:
    """The common size with one of its sizes raised so often."""
    return replace(COMMON, **{name: round(getattr(COMMON, name) * TIMES**steps)})


Stages = dict[str, Taken]
"""What each stage of a run took."""


def measure_run(size: Size) -> Stages:
    """Make a run of a size."""
    with tempfile.TemporaryDirectory(prefix="rewrite-bench-") as temporary:
        return dict(measure_stages(Path(temporary) / "run", size.settings()))


def slope(seconds: tuple[float, float, float]) -> float | None:
    """The power with which seconds grow at sizes `TIMES` apart; None where they hardly do, or not steadily."""
    first, second, third = seconds
    if third - first < LEAST or not first < second < third:
        return None
    return log((third - second) / (second - first)) / log(TIMES)


def bench() -> Iterator[str]:
    """The slopes, a line a stage; then memory at the largest sizes."""
    names = [one.name for one in fields(Size)]
    common = measure_run(COMMON)
    raised = {name: (common, *(measure_run(raise_size(name, steps)) for steps in (1, 2))) for name in names}
    at_first = f"{COMMON.tokens:,} tokens, {COMMON.latents} latents, {COMMON.documents} documents of both splits"
    yield f"log-log slope of CPU seconds with {', '.join(names)}; at first {at_first}"
    for stage in STAGES:
        told = [f"{name} {tell_slope([run[stage].cpu for run in raised[name]])}" for name in names]
        yield f"{stage}: {', '.join(told)}"
    for name in names:
        yield from tell_memory(name, common, raised[name][-1])


def tell_slope(seconds: Sequence[float]) -> str:
    """A slope and the seconds that it is of."""
    found = slope((seconds[0], seconds[1], seconds[2]))
    taken = ", ".join(f"{took:.1f}" for took in seconds)
    return f"{'–' if found is None else f'{found:.2f}'} ({taken} s)"


def tell_memory(name: str, first: Stages, last: Stages) -> Iterator[str]:
    """Peak memory of each stage at ten times a size beside that at the common one."""
    yield f"peak memory at ten times the {name}, all stages {_ratio(_highest(first), _highest(last))}"
    yield "; ".join(f"{stage} {_ratio(first[stage].peak, last[stage].peak)}" for stage in STAGES)


def _highest(run: Stages) -> int:
    return max(taken.peak for taken in run.values())


def _ratio(first: int, last: int) -> str:
    return f"{last / first:.2f} ({first / 1024:,.0f} to {last / 1024:,.0f} MiB)"
