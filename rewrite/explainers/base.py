"""What an explainer is: from true activations on the train split it writes one text for each latent.

A backend is one module here with `class Settings(Section)` and `build(settings, open_engine) -> Explainer`, where
`open_engine(model)` gives a language model to those that need one (`rewrite.engines.base.Engine`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rewrite.coder.activations import Evidence


@runtime_checkable
class Explainer(Protocol):
    """Writes explanations; a latent that it fails on gets text None and the reason, never a made-up sentence."""

    def explain(self, evidence: Evidence, latents: Sequence[int]) -> Iterator[Explanation]:
        """One explanation for each of `latents`, in that order."""
        ...


@dataclass(frozen=True)
class Explanation:
    """The text that stands for one latent; `text` is None where the explainer failed, and `why` says how.

    `answer` is what a language model said where `text` is not all of it: for the reader, never for a simulator.
    """

    latent: int
    text: str | None
    why: str = ""
    answer: str = ""
