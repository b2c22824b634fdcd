"""A reader in two parts: a language model reads each text and each explanation once, and a small head joins them.

1. The model is left as it is. Of a text it gives the hidden states of some layers at each position, of an explanation
   those at each of its tokens (`rewrite.engines.base.States`).
2. The head (`rewrite.simulators.towers.head`) is tuned on the train split with the same folds as any reader, by
   cross-entropy against activation / maximum (`rewrite.simulators.towers.learning`).
3. A prediction costs no token: all latents at all positions of a text are a product of two matrices. Strengths below
   half a level of the calibrators (`rewrite.arms.calibrate.LEVELS`) are stored as 0.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rewrite.config import Place, Section


class Settings(Section):
    """Settings under `simulators.towers`."""

    model: Place = ""
    """The language model that reads: a folder, a GGUF file or a hub name."""
    adapter: Place = ""
    """Heads that another run tuned: `4_reader` of its folder, `4_reader/fold-0` or a hub name; none is tuned then."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 4, 10), min_length=1)
    """Layers whose hidden states are read, side by side: 0 is the embedding, n what the n-th block writes."""
    device: str = "cpu"
    """Where the model and the head run: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the model; the head is float32."""
    hidden: int = Field(192, ge=4, multiple_of=4)
    """Width of the head's blocks of attention."""
    rank: int = Field(128, ge=1)
    """Length of queries and keys."""
    steps: int = Field(700, ge=1)
    """Steps of tuning, in place of `tune.tokens` [steps]."""
    latents: int = Field(32, ge=1)
    """Latents in a step [latents]."""
    firings: int = Field(24, ge=1)
    """Positions at which each of them fires [positions]."""
    others: int = Field(384, ge=1)
    """Positions drawn from all [positions]."""
    dropped: float = Field(0.15, ge=0, lt=1)
    """Share of an explanation's tokens that is left out as the head learns."""

    calls: ClassVar[bool] = False
    """It asks no engine of the run, so a dry run has nothing to count."""

    @property
    def learns(self) -> bool:
        """The run tunes this simulator."""
        return not self.adapter
