"""What an engine is: a place where a language model runs. Explainers and simulators know nothing else of it.

Two things are asked of an engine:

- `read` a trunk with branches: the probability of each digit 0 to 9 as the next token at the end of every branch;
- `generate` an answer to a question.

A backend is one module here with `class Settings(Section)` and

    build(model, settings) -> Engine

where `model` is a folder or a hub name. One that can tune a model takes a third argument, the folder or hub name of an
adapter, and has `learn(model, settings, rank, seed) -> Learner`; one that shows what a model holds of a text has
`read_states(model, settings, layers) -> States`. Nothing heavy is loaded before the first request, but a wrong
setting, a model that is not there or digits that are not single tokens raise UserError on the first use, in one line.

An engine never raises for a request that failed: it returns a `Fault`, so that what was answered is kept. It answers
in the order in which the answers arrive, each with the index of its request, so that they can be kept one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from rewrite.engines.ledger import Spent
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
    """Goes on from the beginning of an answer that it is given. Branches within an answer need it."""
    prompt_logprobs: bool
    """Reads all slots of a prompt in one pass (else one request a slot)."""
    prefix_reuse: bool
    """Computes what prompts begin with only once."""
    schema: bool
    """Holds an answer to a JSON schema."""


@dataclass(frozen=True)
class Branches:
    """A trunk and, after each of its `pieces` that is not `silent`, a branch at whose end a digit is expected.

    What branch i reads is exactly the messages, pieces[0] ... pieces[i], and the branch: no later piece sees a branch,
    and no branch another. So it is the same as a prompt of its own, and every engine gives the same numbers, be it in
    one pass or in as many as there are branches. Pieces and branch are tokenized one by one: a token never spans their
    edges.

    The trunk goes on where the answer begins or, with `turn`, where the last message ends; there the branch begins with
    what the model's chat template puts between that message and the answer, so that each is a turn of its own. An
    engine that is not `begun` serves one empty piece with an empty branch only.
    """

    messages: tuple[Message, ...]
    pieces: tuple[str, ...] = ("",)
    branch: str = ""
    turn: bool = False
    silent: tuple[int, ...] = ()
    """Numbers of the pieces that have no branch: what is read after the others is the same as if they had."""


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
class Reading:
    """The answer to `Branches`: the probability of each digit at each branch, as the model gives it at temperature 1.

    Rows sum to less than 1; the rest is the mass outside the digits.
    """

    digits: Float[np.ndarray, "branch 10"]
    spent: Spent = field(default=Spent(), compare=False)
    instead: tuple[str, ...] = field(default=(), compare=False)
    """Tokens that are more probable than any digit, where the engine can say so and the answer is not from the
    cache."""


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
    passing: bool = field(default=False, compare=False)
    """It may be gone another time, so that a rerun asks again."""

    @property
    def why(self) -> str:
        """The kind and the detail in one line."""
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


@runtime_checkable
class Engine(Protocol):
    """A language model that reads branches and generates answers."""

    @property
    def can(self) -> Abilities:
        """What it can do. May load a tokenizer, never weights."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """Everything but the request that its answers depend on: engine, model, revision, precision. Part of the
        cache's key, so never an address or a key."""
        ...

    def read(self, requests: Sequence[Branches]) -> Iterator[tuple[int, Reading | Fault]]:
        """The digits' probabilities at the branches of each request, with its index, as they arrive."""
        ...

    def generate(self, requests: Sequence[Question]) -> Iterator[tuple[int, Answer | Fault]]:
        """The answer to each request, with its index, as they arrive."""
        ...

    def estimate(self, request: Branches | Question) -> Spent:
        """What a request would cost at most, without running it."""
        ...


@runtime_checkable
class OpenEngine(Protocol):
    """Opens the run's engine with a model, every call of it cached, counted and held to the budget."""

    def __call__(self, model: str, adapter: str = "") -> Engine:
        """The engine with a model and, where one is named, an adapter: a folder or a hub name."""
        ...


@dataclass(frozen=True)
class Lesson:
    """Branches, and the digit that should be read at each; one between two digits is shared out between them."""

    request: Branches
    strengths: Float[np.ndarray, " branch"]


@runtime_checkable
class Learner(Protocol):
    """A model that learns to answer, branches with digits or questions in words (`learn` of an engine that tunes)."""

    @property
    def identity(self) -> Mapping[str, str]:
        """As `Engine.identity`, of the engine that would read with it, but for the adapter."""
        ...

    def learn(self, groups: Sequence[Sequence[Lesson]], rate: float) -> float:
        """One step on lessons in groups that begin alike, and its loss before it: the mean cross-entropy over the whole
        vocabulary [nats]."""
        ...

    def read(self, groups: Sequence[Sequence[Branches]]) -> list[list[Float[np.ndarray, "branch 10"]]]:
        """The digits' probabilities as the model is now."""
        ...

    def learn_answers(self, wanted: Sequence[tuple[Question, str]], rate: float) -> float:
        """One step on questions and what goes on from the beginning of each answer, and its loss before it: the mean
        cross-entropy over the answers' tokens, the end of the answer among them [nats]."""
        ...

    def judge_answers(self, wanted: Sequence[tuple[Question, str]]) -> float:
        """That loss as the model is now [nats]."""
        ...

    @property
    def tokens(self) -> int:
        """What went through the model in learning [tokens]."""
        ...

    def save(self, folder: Path) -> None:
        """Write what was learned, as `OpenEngine` reads it."""
        ...

    def keep(self, file: Path, told: Mapping[str, Any]) -> None:
        """Write all that learning needs to go on as if it had never stopped, with what the caller wants to know."""
        ...

    def go_on(self, file: Path) -> dict[str, Any]:
        """Go on from what `keep` wrote, and what the caller wanted to know."""
        ...


@runtime_checkable
class States(Protocol):
    """What a model holds of texts: the hidden states of some of its layers, side by side (`read_states` of an engine
    that shows them)."""

    @property
    def width(self) -> int:
        """Numbers at a place."""
        ...

    def of_pieces(self, texts: Sequence[Sequence[str]]) -> Iterator[Float[np.ndarray, "piece width"]]:
        """At the end of each piece, float16, text by text."""
        ...

    def of_tokens(self, texts: Sequence[str]) -> list[Float[np.ndarray, "token width"]]:
        """At every token, float16, text by text."""
        ...


def strip_thought(answer: Answer) -> Answer:
    """What an answer says after its thought; one that ends within it was cut."""
    _, thought, said = answer.text.rpartition("</think>")
    if thought:
        return replace(answer, text=said.lstrip())
    return replace(answer, text="", whole=False) if "<think>" in answer.text else answer


def join(parts: Sequence[Reading | Fault]) -> Reading | Fault:
    """A request of its branches: it fails where one of them does, since a reading holds them all."""
    spent = sum((part.spent for part in parts), Spent())
    faults = [part for part in parts if isinstance(part, Fault)]
    if faults:
        return replace(faults[0], spent=spent)
    readings = [part for part in parts if isinstance(part, Reading)]
    instead = tuple(dict.fromkeys(token for reading in readings for token in reading.instead))
    return Reading(np.concatenate([reading.digits for reading in readings]), spent, instead)
