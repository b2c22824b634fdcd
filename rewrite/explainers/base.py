"""What an explainer is: from true activations on the train split it writes one text for each latent.

A backend is one module here with `class Settings(Section)` and `build(settings, open_engine, simulate) -> Explainer`:

- `open_engine(model)` gives a language model to those that need one (`rewrite.engines.base.Engine`);
- `simulate(texts, text)` lets the run's own simulator read candidates, for those that choose among them (`Simulate`);
  their settings say so by a property `tries_out`, for then the explanations depend on the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from rewrite.coder.evidence import Evidence
from rewrite.text.windows import Text

Simulate = Callable[[Sequence[str], Text], Float[np.ndarray, "counted text"]]
"""The strengths, 0 to 1, that the run's simulator predicts from each of some explanations at the counted positions of a
text; NaN where it predicts none."""


@runtime_checkable
class Explainer(Protocol):
    """Writes explanations; a latent that it fails on gets text None and the reason, never a made-up sentence."""

    def explain(self, evidence: Evidence, latents: Sequence[int]) -> Iterator[Explanation]:
        """One explanation for each of `latents`, in that order."""
        ...


@dataclass(frozen=True)
class Explanation:
    """The text that stands for one latent; `text` is None where the explainer failed, and `why` says how.

    `answer` is what a language model said where `text` is not all of it: for the reader, never for a simulator. `tried`
    are all that were written where one was chosen.
    """

    latent: int
    text: str | None
    why: str = ""
    answer: str = ""
    tried: tuple[Tried, ...] = ()


@dataclass(frozen=True)
class Tried:
    """An explanation that was written, or why it is none, and how well it fits (Pearson's r; None: not known)."""

    text: str | None
    why: str
    fit: float | None


TOKENS_A_WORD = 4
"""A word of an explanation is at most so long, in nearly all of them [tokens]."""


def suppose_text(max_words: int, name: str) -> str:
    """What a dry run takes for an explanation that is not written yet: as long as it may be (100 words without a
    limit), and unlike any of another name."""
    return " ".join([name, *["word"] * (TOKENS_A_WORD * (max_words or 100))])
