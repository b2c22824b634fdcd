"""What an engine is: a place where a language model runs. Explainers and simulators know nothing else of it.

Two things are asked of an engine:

- `read` a prompt with slots: the probability of each digit 0 to 9 as the next token at every slot;
- `generate` an answer to a question.

A backend is one module here with `class Settings(Section)` and

    build(model, settings) -> Engine

where `model` is a folder or a hub name. Nothing heavy is loaded before the first request, but a wrong setting, a model
that is not there or digits that are not single tokens raise UserError on the first use, in one line.

An engine never raises for a request that failed: it returns a `Fault`, so that what was answered is kept. It answers
in the order in which the answers arrive, each with the index of its request, so that they can be kept one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from rewrite.engines.prompting import Message

DIGITS = "0123456789"
VOCABULARY = 1 << 30
"""`Abilities.logprobs` of an engine that can give the log-probability of every token."""

Kind = Literal[
    "refusal",
    "timeout",
    "truncated",
    "malformed",
    "wrong count",
    "no log-probabilities",
    "too long",
    "server error",
    "not run",
]


@dataclass(frozen=True)
class Abilities:
    """What an engine can do with its model."""

    chat: bool
    """The model was trained to chat: messages go through its chat template (else they are joined as plain text)."""
    logprobs: int
    """Log-probabilities given for a generated token: 0 is none, `VOCABULARY` all."""
    begun: bool
    """Goes on from the beginning of an answer that it is given. Slots within an answer need it."""
    prompt_logprobs: bool
    """Reads all slots of a prompt in one pass (else one request a slot)."""
    prefix_reuse: bool
    """Computes what prompts begin with only once."""
    schema: bool
    """Holds an answer to a JSON schema."""


@dataclass(frozen=True)
class Slots:
    """A prompt whose answer is begun, with a slot after each of `pieces`; a digit is expected at each slot.

    What stands before slot i is the messages, then pieces[0] placeholder pieces[1] placeholder ... pieces[i]: every
    slot is filled with the same placeholder, so that no slot sees another's answer. Pieces and placeholders are
    tokenized one by one: a token never spans a slot's edge. An engine that is not `begun` serves one empty piece only.
    """

    messages: tuple[Message, ...]
    pieces: tuple[str, ...] = ("",)
    placeholder: str = ""
    """What stands in a slot: nothing costs nothing, and says nothing of any answer."""


@dataclass(frozen=True)
class Question:
    """A prompt to be answered in text."""

    messages: tuple[Message, ...]
    max_tokens: int
    """Longest answer [tokens]; one that is cut there is still an answer, and says so (`Answer.whole`)."""
    answer: str = ""
    """How the answer begins; given to engines that are `begun`, left out by others."""
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""
    schema: str = ""
    """A JSON schema, as JSON, that an engine which can holds the answer to."""


@dataclass(frozen=True)
class Spent:
    """What requests cost; sums with +."""

    calls: int = 0
    """Requests as a server or a user counts them: one prompt, one call."""
    tokens_in: int = 0
    """Prompt tokens as they are billed."""
    tokens_out: int = 0
    processed: int = 0
    """Prompt tokens that the model really went through: fewer than `tokens_in` where prefixes are reused."""
    retried: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.calls + other.calls,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.processed + other.processed,
            self.retried + other.retried,
        )


@dataclass(frozen=True)
class Reading:
    """The answer to `Slots`: the probability of each digit at each slot, as the model gives it at temperature 1.

    Rows sum to less than 1; the rest is the mass outside the digits.
    """

    digits: Float[np.ndarray, "slot 10"]
    spent: Spent = field(default=Spent(), compare=False)


@dataclass(frozen=True)
class Answer:
    """The answer to a `Question`, without its given beginning. `whole` is False where it was cut at max_tokens."""

    text: str
    whole: bool = True
    spent: Spent = field(default=Spent(), compare=False)


@dataclass(frozen=True)
class Fault:
    """Why there is no answer: a kind to count by, and the detail to read. Never holds a key."""

    kind: Kind
    detail: str
    spent: Spent = field(default=Spent(), compare=False)

    @property
    def why(self) -> str:
        """The kind and the detail in one line."""
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


@runtime_checkable
class Engine(Protocol):
    """A language model that reads slots and generates answers."""

    @property
    def can(self) -> Abilities:
        """What it can do. May load a tokenizer, never weights."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """Everything but the request that its answers depend on: engine, model, revision, precision. Part of the
        cache's key, so never an address or a key."""
        ...

    def read(self, requests: Sequence[Slots]) -> Iterator[tuple[int, Reading | Fault]]:
        """The digits' probabilities at the slots of each request, with its index, as they arrive."""
        ...

    def generate(self, requests: Sequence[Question]) -> Iterator[tuple[int, Answer | Fault]]:
        """The answer to each request, with its index, as they arrive."""
        ...

    def estimate(self, request: Slots | Question) -> Spent:
        """What a request would cost at most, without running it."""
        ...


OpenEngine = Callable[[str], Engine]
"""Opens the run's engine with a model, every call of it cached, counted and held to the budget."""
