"""A language model reads an explanation and a text and rates every token 0 to 9, on any engine.

1. The scheme (`rewrite.simulators.schemes`) is the one the config names, or the best that the engine can serve:
   all_at_once where it goes on from the beginning of an answer, else last_token where it gives log-probabilities, else
   ratings_list. One that it cannot serve is refused before the first call.
2. Windows go latent by latent, so that prompts that begin alike stand together and engines can compute that beginning
   once; answers come back in any order.
3. A reader that was tuned (`tune`, `adapter`) has a layout of its own and is an engine of its own; where several were
   tuned, each latent is read by the one that has not learned from it. It also reads every text without an explanation
   (`Strengths.unread`).
4. Every asked position of every explained latent gets a strength, with the probability of 0 and of no digit at all, or
   is missing, counted by the kind of failure. With a `screen` that holds for the pairs that it lets through; the others
   are held back and stand for strength 0, but for documents that are asked about in full, for the audit
   (`rewrite.simulators.base.Screened`, `rewrite.statistics.screening`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from rewrite.config import Place, Section


class Settings(Section):
    """Settings under `simulators.llm`."""

    model: Place = ""
    """The language model: a folder, a GGUF file or a hub name, or the name that a server knows it by."""
    tune: bool = False
    """Tune the model, on the train split, to read this run's explanations (`tune`)."""
    adapter: Place = ""
    """Readers that another run tuned: `4_reader` of its folder, `4_reader/fold-0` or a hub name."""
    scheme: Literal["auto", "all_at_once", "last_token", "ratings_list"] = "auto"
    """How the model is asked; `auto` takes the best that the engine can serve."""
    least_mass: float = Field(0.1, ge=0, le=1)
    """Of the first predictions, read before all others, the digits' median probability below which the run stops: the
    model does not answer with digits. 0 never stops."""
    renormalise: bool = True
    """Divide by the probability that the answer is a digit at all; false follows the paper. No effect on
    ratings_list."""
    context: int = Field(32, ge=2)
    """Tokens shown by last_token, the rated one among them [tokens]."""
    held: bool = False
    """Hold the answer of ratings_list, token by token, to a JSON schema where the engine can: vLLM and llama.cpp can,
    OpenAI's own takes no list."""
    temperature: float = Field(0.0, ge=0)
    """Temperature of ratings_list; the other schemes read probabilities."""
    seed: int = 0
    """Names the draws of ratings_list at a temperature above 0."""
    screen: str = "none"
    """Which pairs of a latent and a position the model is asked about, for all others stand for strength 0: `patterns`,
    where a rule that the explanation is applies; `embedding`, where the text is like the explanation; `none`, all."""
    screen_strength: float = Field(1.0, ge=1, le=9)
    """What a pair must reach for the screen `patterns`: the strength that the rules give [1 to 9]."""
    screen_cosine: float = Field(0.5, ge=-1, le=1)
    """What it must reach for the screen `embedding`: the cosine of text and explanation [-1 to 1]."""
    screen_model: Place = ""
    """The language model that the screen `embedding` reads with: a folder or a hub name."""
    audit: float = Field(0.1, gt=0, le=1)
    """Share of each split's documents, at least 8, that are asked about in full where there is a screen: what it
    misses is estimated from them, and nothing of them is written."""
    audit_seed: int = 0
    """Names the draw of those documents."""

    reading: ClassVar[frozenset[str]] = frozenset(
        {"least_mass", "renormalise", "context", "held", "temperature", "seed", "scheme", "screen", "screen_strength"}
        | {"screen_cosine", "screen_model", "audit", "audit_seed"}
    )
    """What matters only when it reads, not when it learns."""

    @property
    def learns(self) -> bool:
        """The run tunes this simulator."""
        return self.tune

    @property
    def on_engine(self) -> bool:
        """The run's engine tunes it, or puts an adapter on its model."""
        return self.tune or bool(self.adapter)

    @property
    def audits(self) -> float:
        """The share of documents to be asked about in full."""
        return self.audit if self.screen != "none" else 0.0

    @model_validator(mode="after")
    def _one_reader(self) -> Settings:
        if self.tune and self.adapter:
            raise ValueError("tune and adapter are both set; tune a reader of this run's own, or read with another's")
        if (self.tune or self.adapter) and self.scheme not in ("auto", "all_at_once"):
            raise ValueError("a tuned reader reads all_at_once; leave scheme = auto")
        return self
