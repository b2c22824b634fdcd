"""What the arms write on any text, one that no stage has seen: random tokens, the items of a task.

True activations are the coder's own there. `simulated` is among the arms where the run's simulator reads new texts for
nothing, as those do that ask no language model; its strengths are calibrated as on the test split, and latents that are
not rewritten keep their true activations in every arm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from torch import Tensor

from rewrite.arms.drawn import Drawn
from rewrite.arms.splice import Arm
from rewrite.coder.coder import Coder
from rewrite.subject.subject import Prefix
from rewrite.text.windows import Text, Windows

Simulate = Callable[[Text], csr_array]
"""Strengths of every latent at the counted positions of a text, the rows of the others empty."""


@dataclass(frozen=True)
class Writing:
    """What each arm writes at the counted positions of some windows."""

    prefix: Prefix
    counted: Bool[Tensor, "window position"]
    vectors: dict[str, Float[Tensor, "counted d"]]
    base: Float[Tensor, "counted d"]
    """The coder's output with every latent 0."""

    def place(self, vectors: Float[Tensor, "counted d"]) -> Float[Tensor, "window position d"]:
        """The module's own output with `vectors` where arms write, in float32."""
        placed = self.prefix.output.float().clone()
        placed[self.counted] = vectors.to(placed)
        return placed


@dataclass(frozen=True)
class Anywhere:
    """The arms of a coder; with a simulator, those of a run."""

    coder: Coder
    rewritten: Bool[np.ndarray, " latent"]
    drawn: Drawn | None = None
    simulate: Simulate | None = None
    """Needs `drawn`, which knows how strengths are calibrated."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of how much they take away."""
        return ("clean", "coder", *(("simulated",) if self.simulate else ()), "zero")

    @torch.no_grad()
    def write(self, prefix: Prefix, counted: Bool[Tensor, "window position"], windows: Windows) -> Writing:
        """What the arms write at the counted positions of these windows, which are all but the first of each."""
        own = prefix.output[counted].float()
        x = self.coder.read(prefix.input[counted], own)
        code = self.coder.encode(x)
        vectors = {"clean": own, "coder": self.coder.reconstruct(code, x)}
        if self.simulate:
            vectors["simulated"] = self._simulated(windows, x, own, code)
        vectors["zero"] = self.coder.reconstruct(csr_array(code.multiply(~self.rewritten)), x)
        return Writing(prefix, counted, vectors, self.coder.base(x))

    def _simulated(
        self, windows: Windows, x: Float[Tensor, "counted d"], own: Float[Tensor, "counted d"], code: csr_array
    ) -> Float[Tensor, "counted d"]:
        assert self.drawn is not None and self.simulate is not None
        text = lay_out(windows, self.drawn)
        written = self.drawn.splicer.prepare(x, own, code, self.simulate(text)[text.counted()])
        marked = torch.as_tensor(self.drawn.simulated, device=self.drawn.splicer.resting.device)
        return self.drawn.splicer.vectors(Arm("simulated", 1.0, "best"), written, marked)


def lay_out(windows: Windows, drawn: Drawn) -> Text:
    """Windows of token ids as a simulator is shown them."""
    starts = np.cumsum([0, *(len(window) for window in windows)])
    return Text(np.concatenate(windows).astype(np.int32), starts, drawn.vocabulary, pieces=drawn.pieces)
