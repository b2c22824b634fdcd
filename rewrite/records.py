"""What flows between the stages: texts as a simulator sees them, activations, explanations, strengths.

Activations and strengths are `scipy.sparse` arrays of positions × latents; a position is one token of one window, and
positions run through all windows of a `Text` in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array


@dataclass(frozen=True)
class Text:
    """Token windows and nothing else: all that a simulator may know of a text.

    `vocabulary[ids[p]]` is the text of position p's token, its leading space included. Window w holds the positions
    `starts[w]` to `starts[w + 1]`. The first position of a window is context only: it is never simulated. Where not all
    of the others are simulated either, `asked` says which are (`rewrite.sampling`).
    """

    ids: Int[np.ndarray, " position"]
    starts: Int[np.ndarray, " window_and_end"]
    vocabulary: tuple[str, ...]
    asked: Bool[np.ndarray, " position"] | None = None

    def windows(self) -> Iterator[list[str]]:
        """The token strings of each window."""
        for begin, end in zip(self.starts[:-1], self.starts[1:], strict=True):
            yield [self.vocabulary[i] for i in self.ids[begin:end]]

    def counted(self) -> Bool[np.ndarray, " position"]:
        """True at every position that is simulated: of those that are asked, all but the first of each window."""
        mask = np.ones(len(self.ids), dtype=bool) if self.asked is None else self.asked.copy()
        mask[self.starts[:-1]] = False
        return mask


@dataclass(frozen=True)
class Evidence:
    """What an explainer may see: the train split's text and the true activations on it.

    `activations` is positions × latents by column, so that one latent's firings are one slice; rows of positions that
    are not counted are empty.
    """

    text: Text
    activations: csc_array


@dataclass(frozen=True)
class Explanation:
    """The text that stands for one latent; `text` is None where the explainer failed, and `why` says how.

    `answer` is what a language model said where `text` is not all of it: for the reader, never for a simulator.
    """

    latent: int
    text: str | None
    why: str = ""
    answer: str = ""


@dataclass(frozen=True)
class Strengths:
    """A simulator's raw output for a `Text`: positions × latents on its own scale, 0 where nothing is stored.

    `missing` names the latents that could not be predicted anywhere, with the reason: their columns are empty and mean
    "not known", never zero. A value that is missing at one position only is stored as NaN, and `faults` counts such
    values by the kind of failure.

    A simulator that reads probabilities stores every prediction, zeros too, and beside each entry of `values` what a
    calibrator may want to know of it: `zero`, the probability of strength 0, and `outside`, the probability of an
    answer that is no strength at all.
    """

    values: csr_array
    missing: dict[int, str] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    zero: Float[np.ndarray, " entry"] | None = None
    outside: Float[np.ndarray, " entry"] | None = None


@runtime_checkable
class Peek(Protocol):
    """The true activations, for controls such as the oracle; no simulator that reads explanations may look."""

    @property
    def maximum(self) -> Float[np.ndarray, " latent"]:
        """Each latent's largest activation on the train split."""
        ...

    def __call__(self, text: Text) -> csr_array:
        """The true activations of a text, positions × latents."""
        ...
