"""A language model reads an explanation and a text and rates every token 0 to 9, on any engine.

1. The scheme (`rewrite.simulators.schemes`) is the one the config names, or the best that the engine can serve:
   all_at_once where it goes on from the beginning of an answer, else last_token where it gives log-probabilities, else
   ratings_list. One that it cannot serve is refused before the first call.
2. Windows go latent by latent, so that prompts that begin alike stand together and engines can compute that beginning
   once; answers come back in any order.
3. Every asked position of every explained latent gets a strength, with the probability of 0 and of no digit at all, or
   is missing, counted by the kind of failure.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int
from pydantic import Field
from scipy.sparse import csr_array

from rewrite.config import Place, Section, UserError
from rewrite.engines.base import Answer, Branches, Engine, Fault, OpenEngine, Question, Reading
from rewrite.explainers.base import Explanation
from rewrite.simulators.base import Peek, Strengths
from rewrite.simulators.schemes import AllAtOnce, Item, LastToken, Ratings, RatingsList, Scheme
from rewrite.text.windows import Text

TOGETHER = 4096
"""Requests handed to the engine at a time [requests]."""
PROBED = 32
"""Predictions that are read before all others."""


class Settings(Section):
    """Settings under `simulators.llm`."""

    model: Place = ""
    """The language model: a folder, a GGUF file or a hub name, or the name that a server knows it by."""
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


@dataclass(frozen=True)
class _Window:
    """A window with something to rate: its tokens, which are asked, and where the asked ones stand among all asked
    positions of the text."""

    tokens: list[str]
    asked: Bool[np.ndarray, " position"]
    rows: Int[np.ndarray, " position"]


@dataclass(frozen=True)
class _Placed:
    """An item with the rows and the column that its answer fills."""

    item: Item
    rows: Int[np.ndarray, " place"]
    column: int


class _Page:
    """Strengths of the asked positions × explained latents, filled in as answers arrive; unknown until then."""

    def __init__(self, rows: int, columns: int) -> None:
        self.strengths, self.zero, self.outside = (np.full((rows, columns), np.nan, np.float32) for _ in range(3))
        self.faults: Counter[str] = Counter()

    def fill(self, place: _Placed, ratings: Ratings) -> None:
        for array, values in (
            (self.strengths, ratings.strengths),
            (self.zero, ratings.zero),
            (self.outside, ratings.outside),
        ):
            array[place.rows, place.column] = values
        self.faults.update(ratings.faults)


class LanguageModelSimulator:
    """Asks an engine for every strength."""

    scale = 9.0

    def __init__(
        self, explanations: Sequence[Explanation], latents: int, scheme: Scheme, engine: Engine, least_mass: float = 0.0
    ) -> None:
        self.latents, self.scheme, self.engine, self.least_mass = latents, scheme, engine, least_mass
        given = [e for e in explanations if 0 <= e.latent < latents]
        self.texts = {e.latent: e.text for e in sorted(given, key=lambda e: e.latent) if e.text is not None}
        self.missing = {latent: "no explanation" for latent in range(latents) if latent not in self.texts}
        self.missing |= {e.latent: e.why or "no explanation" for e in given if e.text is None}

    def simulate(self, text: Text) -> Strengths:
        """See `Simulator.simulate`."""
        counted = text.counted()
        windows = list(_windows(text, counted))
        page = _Page(int(counted.sum()), len(self.texts))
        placed = chain.from_iterable(self._ask(column, windows) for column in range(len(self.texts)))
        first = list(_take_first(placed)) if self.least_mass else []
        while batch := first or list(islice(placed, TOGETHER)):
            replies = list(self._answers(batch)) if first else self._answers(batch)
            if first:
                self._check_mass([reply for _, reply in replies if isinstance(reply, Reading)])
                first = []
            for number, reply in replies:
                place = batch[number]
                if isinstance(reply, Fault):
                    page.fill(place, Ratings.none(len(place.rows), reply.kind))
                else:
                    page.fill(place, self.scheme.read(place.item, reply))
        return self._strengths(counted, page)

    def _check_mass(self, readings: Sequence[Reading]) -> None:
        """Raise UserError, with the tokens that the model would rather say, where it does not answer with digits."""
        least, self.least_mass = self.least_mass, 0.0
        masses = [mass for reading in readings for mass in reading.digits.sum(1).tolist()]
        median = float(np.median(masses)) if masses else 1.0
        if median < least:
            wanted = dict.fromkeys(token for reading in readings for token in reading.instead)
            said = f"; it would say {', '.join(map(json.dumps, list(wanted)[:5]))}" if wanted else ""
            raise UserError(
                f"simulators.llm: where ratings are read the model gives the ten digits together a probability of "
                f"{median:.2g} (median of {len(masses)} predictions, at least {least:g} is wanted){said}; set "
                "simulators.llm.scheme to another or simulators.llm.model to one that answers with digits, or "
                "simulators.llm.least_mass = 0 to go on"
            )

    def _ask(self, column: int, windows: Sequence[_Window]) -> Iterator[_Placed]:
        text = list(self.texts.values())[column]
        for window in windows:
            for item in self.scheme.ask(text, window.tokens, window.asked):
                yield _Placed(item, window.rows[item.places], column)

    def _answers(self, batch: Sequence[_Placed]) -> Iterator[tuple[int, Reading | Answer | Fault]]:
        """The engine's answers to a batch of one kind of request."""
        requests = [place.item.request for place in batch]
        slots = [request for request in requests if isinstance(request, Branches)]
        if slots:
            yield from self.engine.read(slots)
        else:
            yield from self.engine.generate([request for request in requests if isinstance(request, Question)])

    def _strengths(self, counted: Bool[np.ndarray, " position"], page: _Page) -> Strengths:
        """Every prediction as an entry, zeros and unknown ones too."""
        columns = np.array(list(self.texts), dtype=np.int32)
        ends = np.concatenate([[0], np.cumsum(counted * len(columns))])
        indices = np.tile(columns, int(counted.sum()))
        values = csr_array((page.strengths.ravel(), indices, ends), shape=(len(counted), self.latents))
        return Strengths(values, dict(self.missing), dict(page.faults), page.zero.ravel(), page.outside.ravel())


def _take_first(placed: Iterator[_Placed]) -> Iterator[_Placed]:
    """As many items as hold the predictions that are read before all others."""
    count = 0
    while count < PROBED and (place := next(placed, None)):
        count += len(place.rows)
        yield place


def _windows(text: Text, counted: Bool[np.ndarray, " position"]) -> Iterator[_Window]:
    row = np.cumsum(counted) - 1
    for tokens, begin, end in zip(text.windows(), text.starts[:-1], text.starts[1:], strict=True):
        if counted[begin:end].any():
            yield _Window(tokens, counted[begin:end], row[begin:end])


def choose_scheme(settings: Settings, engine: Engine) -> Scheme:
    """The scheme that the settings name. Raises UserError for one that the engine cannot serve, naming those it can."""
    schemes: dict[str, Scheme] = {
        "all_at_once": AllAtOnce(settings.renormalise),
        "last_token": LastToken(settings.renormalise, settings.context),
        "ratings_list": RatingsList(settings.temperature, settings.seed, settings.held),
    }
    able = [name for name, scheme in schemes.items() if scheme.fits(engine.can)]
    name = able[0] if settings.scheme == "auto" else settings.scheme
    if name not in able:
        raise UserError(
            f"simulators.llm.scheme = {name}: the engine {engine.identity.get('engine', '')} cannot serve it with this "
            f"model; it can serve: {', '.join(able)}"
        )
    return schemes[name]


def build(
    explanations: Sequence[Explanation], latents: int, settings: Settings, peek: Peek, open_engine: OpenEngine
) -> LanguageModelSimulator:
    """The simulator with its engine open; the truth is not looked at."""
    if not settings.model:
        raise UserError("simulators.llm.model: not set; name a language model, a folder or a hub name")
    engine = open_engine(settings.model)
    return LanguageModelSimulator(explanations, latents, choose_scheme(settings, engine), engine, settings.least_mass)
