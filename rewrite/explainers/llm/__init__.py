"""A language model reads windows of text with a latent's activations and writes one sentence, on any engine.

1. `rewrite.explainers.exemplars` chooses windows: by quantile of their largest activation, the largest, or half of them
   firing and beside each one much like it in which the latent does not fire.
2. `rewrite.explainers.layouts` shows them, as the paper does or shorter for small models. The sentence is what the
   answer has after [EXPLANATION]: in one line. Without a chain of thought an engine that can is given that beginning,
   and stops at the end of the line.
3. A sentence longer than `max_words` is cut there. An answer without a sentence is a missing explanation, with the
   reason and the answer; it is never made up. A latent that never fires on the evidence is said to, without a call.
4. With `candidates` or `rounds` the run's simulator reads every sentence on held-out train windows
   (`rewrite.explainers.trials`): of several candidates, each from windows of its own, the one that fits best is kept,
   and a revision that was shown the reader's errors is kept only where it fits better. All are recorded.

The windows, marks and levels are the paper's. Its temperature is 0.7, where 0 is the default here; the words of the
prompt are ours.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rewrite.config import Place, Section


class Settings(Section):
    """Settings under `explainers.llm`."""

    model: Place = ""
    """The language model: a folder, a GGUF file or a hub name, or the name that a server knows it by."""
    adapter: Place = ""
    """What `rewrite teach` taught it, a folder or a hub name; the engine must run the model in this process."""
    exemplars: Literal["quantile", "top", "contrastive"] = "quantile"
    """Which windows are shown: as many of each quantile of those in which the latent fires, those with the largest
    activation, or half by quantile and beside each one like it in which the latent does not fire."""
    windows: int = Field(40, ge=1)
    """Windows shown for a latent [windows]."""
    window: int = Field(32, ge=4)
    """Length of a window that is shown [tokens]."""
    quantiles: int = Field(10, ge=1)
    """Quantiles that windows are drawn from [quantiles]; no effect on `top`."""
    threshold: float = Field(0.2, ge=0, lt=1)
    """Tokens above this share of their window's largest activation are marked and listed."""
    min_windows: int = Field(1, ge=1)
    """A latent that fires in fewer windows has no explanation [windows]; the paper asks for 200."""
    layout: Literal["windows", "contexts"] = "windows"
    """How windows are shown: whole, as in the paper, or, for small models, the strongest token of each with the few
    before it."""
    few_shot: int = Field(3, ge=0, le=3)
    """Worked examples in the prompt, drawn by `seed` from three [examples]; `contexts` has none."""
    chain_of_thought: bool = False
    """Let the model think before it answers."""
    temperature: float = Field(0.0, ge=0)
    """Temperature of the answers."""
    seed: int = Field(0, ge=0)
    """Names the draws of windows and of worked examples, and of answers at a temperature above 0."""
    candidates: int = Field(1, ge=1)
    """Explanations written for a latent, each from other windows; the simulator chooses among them [explanations]."""
    rounds: int = Field(0, ge=0)
    """Times that an explanation is revised by the simulator's errors, and kept where it fits better [rounds]."""
    trial_windows: int = Field(8, ge=4)
    """Train windows in which the latent fires, drawn from those not shown, half to choose by and half to find errors
    in; as many others beside them [windows]."""
    max_words: int = Field(40, ge=0)
    """Longest explanation [words, as `count_prose` counts them]; asked for, and cut there; 0 is unlimited."""
    max_tokens: int = Field(0, ge=0)
    """Longest answer [tokens]; 0 is 4 for each of `max_words` (400 without a limit), and 1,000 more for a chain of
    thought."""

    @model_validator(mode="after")
    def _at_once(self) -> Settings:
        if self.adapter and self.chain_of_thought:
            raise ValueError("chain_of_thought and adapter are both set; who was taught to explain answers at once")
        return self

    @property
    def tries_out(self) -> bool:
        """Whether the run's simulator reads explanations before one is kept."""
        return self.candidates > 1 or self.rounds > 0

    @property
    def longest(self) -> int:
        """Longest answer [tokens]."""
        return self.max_tokens or (4 * self.max_words or 400) + 1000 * self.chain_of_thought
