"""What an explainer is: from true activations on the train split it writes one text for each latent.

A backend is one module here with `class Settings(Section)` and `build(settings, open_engine) -> Explainer`, where
`open_engine(model)` gives a language model to those that need one (`rewrite.engines.base.Engine`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from rewrite.records import Evidence, Explanation


@runtime_checkable
class Explainer(Protocol):
    """Writes explanations; a latent that it fails on gets text None and the reason, never a made-up sentence."""

    def explain(self, evidence: Evidence, latents: Sequence[int]) -> Iterator[Explanation]:
        """One explanation for each of `latents`, in that order."""
        ...
