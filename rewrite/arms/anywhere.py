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
from rewrite.coder.coder import Coder
from rewrite.subject.subject import Prefix
from rewrite.text.windows import Text, Windows

Simulate = Callable[[Text], csr_array]
"""Strengths of every latent at the counted positions of a text, the rows of the others empty."""
Simulated = Callable[[Windows, Float[Tensor, "counted d"], Float[Tensor, "counted d"], csr_array], Tensor]
"""What `simulated` writes at the counted positions of windows, given what the coder reads there, the module's own
output and the true activations, [counted d]."""


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
    """The arms of a coder, and `simulated` where a simulator is given (`simulate_with`)."""

    coder: Coder
    rewritten: Bool[np.ndarray, " latent"]
    simulated: Simulated | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of how much they take away."""
        return ("clean", "coder", *(("simulated",) if self.simulated else ()), "zero")

    @torch.no_grad()
    def write(self, prefix: Prefix, counted: Bool[Tensor, "window position"], windows: Windows) -> Writing:
        """What the arms write at the counted positions of these windows, which are all but the first of each."""
        own = prefix.output[counted].float()
        x = self.coder.read(prefix.input[counted], own)
        code = self.coder.encode(x)
        vectors = {"clean": own, "coder": self.coder.reconstruct(code, x)}
        if self.simulated:
            vectors["simulated"] = self.simulated(windows, x, own, code)
        vectors["zero"] = self.coder.reconstruct(csr_array(code.multiply(~self.rewritten)), x)
        return Writing(prefix, counted, vectors, self.coder.base(x))


def simulate_with(drawn: Drawn, simulate: Simulate) -> Simulated:
    """What the run's `simulated` arm writes on texts that no stage has seen, with all that is simulated at once."""

    def simulated(
        windows: Windows, x: Float[Tensor, "counted d"], own: Float[Tensor, "counted d"], code: csr_array
    ) -> Float[Tensor, "counted d"]:
        starts = np.cumsum([0, *(len(window) for window in windows)])
        text = Text(np.concatenate(windows).astype(np.int32), starts, drawn.vocabulary, pieces=drawn.pieces)
        return drawn.simulate(drawn.splicer.prepare(x, own, code, simulate(text)[text.counted()]))

    return simulated
