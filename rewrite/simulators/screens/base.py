"""What a screen is: it reads explanations and a text, costs little, and says where a language model is worth asking.

A screen is a file in this folder, named as `simulators.llm.screen` chooses it, that defines

    screen(explanations, settings) -> Screen

- `explanations`: those that there are to read, none of them missing; they are the columns.
- `settings`: those under `simulators.llm`, of which `screen_strength`, `screen_cosine`, `screen_model` are for screens.

It knows of a latent what any simulator knows, its explanation. It lets through what it cannot judge: what it holds back
is written as strength 0 (`rewrite.simulators.llm`).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from scipy.sparse import csr_array

from rewrite.text.windows import Text


@runtime_checkable
class Screen(Protocol):
    """Judges pairs; the same for a window whatever other windows stand beside it."""

    def passes(self, text: Text) -> csr_array:
        """Positions × explanations of a text, other than 0 where a pair passes; only counted positions matter."""
        ...


@runtime_checkable
class Told(Protocol):
    """What a screen is told by the settings."""

    @property
    def screen_strength(self) -> float:
        """What a pair must reach where rules say how strong it is, 1 to 9."""
        ...

    @property
    def screen_cosine(self) -> float:
        """What it must reach where it is a likeness, -1 to 1."""
        ...

    @property
    def screen_model(self) -> str:
        """A language model, a folder or a hub name."""
        ...
