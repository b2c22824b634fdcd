"""How a language model is asked for the strengths of a window: a scheme lays out requests and reads the answers.

`last_token`    Paulo & Belrose (2025): one request for each position; the text ends at the token, which is marked; the
                answer's first token is a digit, and the strength is the expectation over the digits' probabilities.
`all_at_once`   the answer is the text itself, as running text, and after each of its tokens a branch asks for the
                digit. No branch is seen by another or by what follows, so it is a prompt a token, which an engine in
                this process reads in one pass. (Bills et al. (2023) list tokens and leave slots empty, where models
                expect no digit.) The digits are read as in `last_token`.
`ratings_list`  for chat models without log-probabilities: a JSON list of [token, rating], checked token by token.

A scheme works on one window at a time. Positions are those of the window; `asked` marks the ones to rate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from rewrite.engines.base import Abilities, Answer, Branches, Question, Reading, strip_thought
from rewrite.engines.prompting import Message, fill, make_text, mark

Request = Branches | Question
Wanted = Bool[np.ndarray, " position"] | None
"""Of the asked positions of a window those that are to be rated; None is all."""

BRANCH = " => "
"""What asks for a digit after a token of running text: the worked examples have it too."""


@dataclass(frozen=True)
class Item:
    """A request, and the positions that its answer rates."""

    request: Request
    places: Int[np.ndarray, " place"]


@dataclass(frozen=True)
class Ratings:
    """Strengths on the scale 0 to 9, NaN where one is missing, counted by kind in `faults`; with each the probability
    of 0 and of no digit at all, NaN where the scheme does not know them."""

    strengths: Float[np.ndarray, " place"]
    zero: Float[np.ndarray, " place"]
    outside: Float[np.ndarray, " place"]
    faults: dict[str, int]

    @classmethod
    def none(cls, places: int, kind: str) -> Ratings:
        """Nothing is known of any place, for one reason."""
        unknown = np.full(places, np.nan, dtype=np.float32)
        return cls(unknown, unknown, unknown, {kind: places})


@runtime_checkable
class Scheme(Protocol):
    """Lays out a window and reads what comes back."""

    def fits(self, can: Abilities) -> bool:
        """Whether an engine can serve this scheme."""
        ...

    @property
    def whole(self) -> bool:
        """A request rates all of a window: where some is wanted all is."""
        ...

    def ask(
        self, explanation: str, tokens: Sequence[str], asked: Bool[np.ndarray, " position"], wanted: Wanted = None
    ) -> Iterator[Item]:
        """The requests for one window, which together rate every asked position once, or those of them that are
        `wanted`, the same as if all were."""
        ...

    def read(self, item: Item, reply: Reading | Answer) -> Ratings:
        """The strengths at the item's places."""
        ...


def _one_line(explanation: str) -> str:
    return " ".join(explanation.splitlines())


@dataclass(frozen=True)
class _Probabilities:
    """Reads the expectation over the digits' probabilities; `renormalise = False` follows the paper."""

    renormalise: bool

    def read(self, item: Item, reply: Reading | Answer) -> Ratings:
        """See `Scheme.read`. Probabilities that are no probabilities are missing."""
        assert isinstance(reply, Reading), "slots are answered by a reading"
        if reply.digits.shape != (len(item.places), 10):
            return Ratings.none(len(item.places), "wrong count")
        digits = reply.digits.astype(np.float64)
        inside = digits.sum(1)
        sound = np.isfinite(digits).all(1) & (digits >= 0).all(1) & (inside > 0) & (inside < 1.001)
        strengths = digits @ np.arange(10)
        if self.renormalise:
            strengths = strengths / np.where(sound, inside, 1)
        values = np.stack([strengths, digits[:, 0], 1 - np.minimum(inside, 1)])
        known = np.where(sound, values, np.nan).astype(np.float32)
        faults = {"no log-probabilities": int((~sound).sum())} if not sound.all() else {}
        return Ratings(known[0], known[1], known[2], faults)


@dataclass(frozen=True)
class LastToken(_Probabilities):
    """See the module's docstring; `context` is how many tokens are shown, the rated one among them."""

    context: int
    whole: ClassVar[bool] = False

    def fits(self, can: Abilities) -> bool:
        """See `Scheme.fits`."""
        return can.logprobs > 0

    def ask(
        self, explanation: str, tokens: Sequence[str], asked: Bool[np.ndarray, " position"], wanted: Wanted = None
    ) -> Iterator[Item]:
        """See `Scheme.ask`."""
        for place in np.flatnonzero(asked if wanted is None else wanted).tolist():
            shown = tokens[max(0, place + 1 - self.context) : place + 1]
            text = mark(shown, [False] * (len(shown) - 1) + [True])
            messages = fill("simulate_last_token", explanation=_one_line(explanation), text=text)
            yield Item(Branches(messages), np.array([place]))


@dataclass(frozen=True)
class AllAtOnce(_Probabilities):
    """See the module's docstring; the prompt and the branch are others for a reader that was tuned."""

    prompt: str = "simulate_all_at_once"
    branch: str = BRANCH
    whole: ClassVar[bool] = False

    def fits(self, can: Abilities) -> bool:
        """See `Scheme.fits`."""
        return can.logprobs > 0 and can.begun

    def ask(
        self, explanation: str, tokens: Sequence[str], asked: Bool[np.ndarray, " position"], wanted: Wanted = None
    ) -> Iterator[Item]:
        """See `Scheme.ask`. What comes after the last token that is wanted is left out. An asked one that is not wanted
        ends a piece all the same, for tokens never span an edge: the model reads what it would read."""
        every = np.flatnonzero(asked)
        places = every if wanted is None else np.flatnonzero(wanted)
        if len(places):
            pieces = _running(tuple(tokens), tuple(asked.tolist()))[: int(np.searchsorted(every, places[-1])) + 1]
            silent = tuple(np.flatnonzero(~np.isin(every[: len(pieces)], places)).tolist())
            heading = _heading(self.prompt, _one_line(explanation))
            yield Item(Branches(heading, pieces, self.branch, silent=silent), places)


# The same heading stands before every window of a latent, and the same text after every latent's heading.
@lru_cache(maxsize=64)
def _heading(prompt: str, explanation: str) -> tuple[Message, ...]:
    return fill(prompt, explanation=explanation)


@lru_cache(maxsize=1024)
def _running(tokens: tuple[str, ...], asked: tuple[bool, ...]) -> tuple[str, ...]:
    """The text up to each token that is asked for, from the one before it on."""
    pieces, begun = [], ""
    for token, is_asked in zip(tokens, asked, strict=True):
        begun += make_text(token)
        if is_asked:
            pieces.append(begun)
            begun = ""
    return tuple(pieces)


@dataclass(frozen=True)
class RatingsList:
    """See the module's docstring; `held` holds the answer to a JSON schema on engines that can."""

    temperature: float
    seed: int
    held: bool
    tokens_each: int = 24
    """Room in the answer for one pair [tokens]."""
    whole: ClassVar[bool] = True

    def fits(self, can: Abilities) -> bool:
        """See `Scheme.fits`."""
        return True

    def ask(
        self, explanation: str, tokens: Sequence[str], asked: Bool[np.ndarray, " position"], wanted: Wanted = None
    ) -> Iterator[Item]:
        """See `Scheme.ask`. All tokens up to the last asked one are rated, those that were not asked for nothing."""
        places = np.flatnonzero(asked)
        if not len(places) or (wanted is not None and not wanted.any()):
            return
        shown = [make_text(token) for token in tokens[: int(places[-1]) + 1]]
        listed = json.dumps(shown, ensure_ascii=False)
        messages = fill("simulate_ratings_list", explanation=_one_line(explanation), tokens=listed)
        room = 64 + self.tokens_each * len(shown)
        schema = json.dumps(_schema(shown)) if self.held else ""
        question = Question(messages, room, temperature=self.temperature, seed=self.seed, schema=schema)
        yield Item(question, places)

    def read(self, item: Item, reply: Reading | Answer) -> Ratings:
        """See `Scheme.read`. A list of another length is no answer; a pair that is not about its token, or whose rating
        is none, is missing by itself."""
        assert isinstance(reply, Answer) and isinstance(item.request, Question), "a question gets an answer"
        count = len(item.places)
        reply = strip_thought(reply)
        if not reply.whole:
            return Ratings.none(count, "truncated")
        pairs = _find_list(reply.text)
        tokens = _tokens_of(item.request)
        if pairs is None:
            return Ratings.none(count, "malformed")
        if len(pairs) != len(tokens):
            return Ratings.none(count, "wrong count")
        # Pairs are aligned as a sequence: where one is about another token, what follows may have slipped by one and
        # match a repeated token by chance.
        if any(_is_beside(pair, tokens, place) for place, pair in enumerate(pairs)):
            return Ratings.none(count, "malformed")
        rated = np.array([_rating(pairs[place], tokens[place]) for place in item.places], dtype=np.float32)
        unknown = np.full(count, np.nan, dtype=np.float32)
        lost = int(np.isnan(rated).sum())
        return Ratings(rated, unknown, unknown, {"malformed": lost} if lost else {})


def _schema(tokens: Sequence[str]) -> dict[str, object]:
    rating = {"type": "integer", "enum": list(range(10))}
    pairs = [
        {"type": "array", "prefixItems": [{"const": token}, rating], "minItems": 2, "maxItems": 2} for token in tokens
    ]
    return {"type": "array", "prefixItems": pairs, "minItems": len(tokens), "maxItems": len(tokens)}


def _tokens_of(request: Question) -> list[str]:
    """The tokens that a question asks about, as its prompt lists them."""
    tokens: list[str] = json.loads(request.messages[-1].content.rpartition("\n\nTokens: ")[2])
    return tokens


def _is_beside(pair: object, tokens: Sequence[str], place: int) -> bool:
    """Whether the pair at a place is about the token before or after it, and not about its own."""
    said = pair[0] if isinstance(pair, list) and pair else None
    return said in (*tokens[max(place - 1, 0) : place], *tokens[place + 1 : place + 2]) and said != tokens[place]


def _rating(pair: object, token: str) -> float:
    """The rating of a pair that is about this token, a whole number from 0 to 9 also as 5.0 or "5"; NaN for any
    other."""
    if not (isinstance(pair, list) and len(pair) == 2 and pair[0] == token):
        return float("nan")
    rating = pair[1]
    if isinstance(rating, str) and re.fullmatch(r"\s*[0-9](?:\.0*)?\s*", rating):
        rating = float(rating)
    if isinstance(rating, bool) or not isinstance(rating, int | float) or rating not in range(10):
        return float("nan")
    return float(rating)


def _find_list(text: str) -> list[object] | None:
    """The list in an answer: prose and code fences around it and a comma before its end are forgiven."""
    begin, end = text.find("["), text.rfind("]")
    if not 0 <= begin < end:
        return None
    inside = re.sub(r",(\s*\])", r"\1", text[begin : end + 1])
    for candidate in (text[begin : end + 1], inside):
        try:
            found = json.loads(candidate)
        except (ValueError, RecursionError):  # also for a number of thousands of digits
            continue
        return found if isinstance(found, list) else None
    return None
