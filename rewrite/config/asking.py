"""Who writes and reads explanations: calls of language models, readers that are tuned, judges."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rewrite.config.base import MaybeFile, MaybePlace, Place, Section


class ExplainConfig(Section):
    """Explanations that are given instead of written."""

    file: MaybePlace = None
    """Explanations to use instead of writing them: a JSONL file with `latent` and `text`, maybe edited by hand."""


class TuneConfig(Section):
    """How a reader of explanations is tuned, on the train split, for simulators that learn (`simulators.llm.tune`)."""

    latents: int = Field(0, ge=0)
    """Latents that are explained to learn from, beside those that are rewritten [latents]; 0 takes all others."""
    folds: int = Field(2, ge=1)
    """Readers that are tuned: the rewritten latents are dealt out among them, and each is read by the one that learned
    from all others. With 1, a reader learns only from latents that are not rewritten [readers]."""
    tokens: int = Field(150_000, ge=0)
    """Tokens that go through the language model in tuning one reader of `simulators.llm` [tokens]; 0 is no limit."""
    minutes: float = Field(0, ge=0)
    """Longest time for tuning one reader [minutes]; 0 is no limit. What a reader learns then depends on the machine."""
    rank: int = Field(16, ge=1)
    """Rank of the matrices that are added to every linear layer of `simulators.llm`."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW; it rises over the first 20 steps and falls to a tenth over the budget."""
    window: int = Field(32, ge=4)
    """Length of a window that is learned from [tokens]."""
    positions: int = Field(12, ge=2)
    """Positions of a window that are learned from: where the latent fires, and others drawn to make up the number
    [positions]."""
    windows: int = Field(4, ge=2)
    """Windows of one latent in a step: half of them with a firing, one with a token on which it fires elsewhere, the
    others drawn [windows]."""
    batch: int = Field(2, ge=1)
    """Latents in a step of `simulators.llm` [latents]."""
    unread: float = Field(0.05, ge=0, lt=1)
    """Share of the examples whose explanation is left blank, so that a reader knows what to say without one (the arm
    `unread`)."""
    held_out: int = Field(40, ge=0)
    """Latents that a reader must not learn from on which it is judged as it learns [latents]."""
    every: int = Field(20, ge=1)
    """Steps between two judgements, and between two states that a killed run goes on from [steps]."""
    seed: int = 0
    """Names the folds, the examples and the initial weights."""


class CallsConfig(Section):
    """Calls of language models: the cache, what they cost and how much may be spent."""

    cache: MaybeFile = None
    """The cache of all calls, a SQLite file that several runs may share; where none is named, `calls.sqlite` beside the
    run folder."""
    max_calls: int = Field(0, ge=0)
    """Stop the run before it has made more calls than this [calls]; 0 is no limit."""
    max_tokens: int = Field(0, ge=0)
    """Stop the run before it has used more prompt and answer tokens than this [tokens]; 0 is no limit."""
    max_cost: float = Field(0, ge=0)
    """Stop the run before it has spent more than this [dollars, by the prices below, which must then be set]; 0 is no
    limit."""
    price_in: float = Field(0, ge=0)
    """Price of prompt tokens [dollars a million tokens]."""
    price_out: float = Field(0, ge=0)
    """Price of answer tokens [dollars a million tokens]."""


class TrackConfig(Section):
    """Numbers of a run, sent to a tracker as its stages end."""

    to: Literal["none", "trackio", "wandb", "tensorboard"] = "none"
    """Where they go: nowhere, Trackio, Weights & Biases, or TensorBoard's files in `track/` of the run folder."""
    project: str = "rewrite"
    """The project there that the run is listed under."""
    name: str = ""
    """The run's name there; empty for that of its folder."""


class ScoreConfig(Section):
    """A language model that judges the explanations, beside the scores that cost nothing."""

    scorers: tuple[Literal["detection", "fuzz"], ...] = ()
    """Scores that a language model gives each explanation on held-out windows, beside the correlation of the
    simulation, which costs nothing."""
    model: Place = ""
    """The language model that judges: a folder, a GGUF file or a hub name."""
    windows: int = Field(100, ge=1)
    """Windows shown in which the latent is active, and as many others [windows]."""
    window: int = Field(32, ge=4)
    """Length of a window that is judged [tokens]."""
    together: int = Field(5, ge=1)
    """Windows judged in one prompt [windows]."""
    max_tokens: int = Field(100, ge=8)
    """Longest answer [tokens]."""
    temperature: float = Field(0.0, ge=0)
    """Temperature of the judge."""
    seed: int = 0
    """Names the draw of the windows."""
