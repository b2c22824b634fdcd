"""An engine for faults and counts that no real one makes on demand; its digits are a hash of what precedes a slot."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rewrite.engines.base import VOCABULARY, Abilities, Answer, Branches, Fault, Question, Reading
from rewrite.engines.ledger import Spent

ALL = Abilities(chat=True, logprobs=VOCABULARY, begun=True, prompt_logprobs=True, prefix_reuse=True, schema=True)


def digits_of(text: str) -> np.ndarray:
    """Ten probabilities that sum to less than 1, from a text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).dirichlet(np.ones(11))[:10].astype(np.float32)


def before_branches(request: Branches) -> list[str]:
    """What stands before each digit."""
    text, found = "\n".join(f"{m.role}: {m.content}" for m in request.messages) + "\nassistant: ", []
    for number, piece in enumerate(request.pieces):
        text += piece
        if number not in request.silent:
            found.append(text + request.branch)
    return found


@dataclass
class FakeEngine:
    """Answers in reverse order; `fail` may put a fault in an answer's place, `answer` writes the texts."""

    can: Abilities = ALL
    fail: Callable[[int], Fault | None] = lambda number: None
    answer: Callable[[Question], str] = lambda question: "an answer"
    asked: list[Branches | Question] = field(default_factory=list)

    @property
    def identity(self) -> Mapping[str, str]:
        return {"engine": "fake", "model": "fake"}

    def estimate(self, request: Branches | Question) -> Spent:
        return Spent(1, 100, 1 if isinstance(request, Branches) else request.max_tokens)

    def read(self, requests: Sequence[Branches]) -> Iterator[tuple[int, Reading | Fault]]:
        for number in reversed(range(len(requests))):
            request = requests[number]
            self.asked.append(request)
            reading = Reading(np.stack([digits_of(text) for text in before_branches(request)]), Spent(1, 100, 1, 100))
            yield number, self.fail(len(self.asked)) or reading

    def generate(self, requests: Sequence[Question]) -> Iterator[tuple[int, Answer | Fault]]:
        for number in reversed(range(len(requests))):
            self.asked.append(requests[number])
            answer = Answer(self.answer(requests[number]), True, Spent(1, 100, 10, 100))
            yield number, self.fail(len(self.asked)) or answer
