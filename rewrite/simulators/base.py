"""What a simulator is: it reads explanations and a text, and predicts a strength at each position for each latent.

A backend is one module here with `class Settings(Section)` and

    build(explanations, latents, settings, peek, open_engine) -> Simulator

- `explanations`: those there are, in any order; a latent without one, or whose text is None, is missing.
- `latents`: how many there are, the width of the matrices.
- `peek`: shows the true activations (`rewrite.records.Peek`). Only controls such as the oracle may look: every other
  simulator sees the explanations and the text, nothing else.
- `open_engine`: `open_engine(model)` gives a language model to those that need one (`rewrite.engines.base.Engine`).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from rewrite.records import Strengths, Text


@runtime_checkable
class Simulator(Protocol):
    """Predicts strengths; the same for a window whatever other windows stand beside it."""

    @property
    def scale(self) -> float:
        """Top of the scale of strengths, which starts at 0."""
        ...

    def simulate(self, text: Text) -> Strengths:
        """Strengths at the counted positions of `text`, positions × latents; what failed is named as missing."""
        ...
