"""The simulator: requests to the engine, and strengths from what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np

from rewrite.config import TuneConfig, UserError
from rewrite.engines.base import Answer, Branches, Engine, Fault, Learner, OpenEngine, Question, Reading
from rewrite.explainers.base import Explanation
from rewrite.run import plugins
from rewrite.simulators.base import Peek, Screened, Strengths, Unread, find_missing
from rewrite.simulators.examples import Lessons
from rewrite.simulators.llm import Settings
from rewrite.simulators.pages import Asked, Page, Placed, Window, choose, list_windows, spread, take_first
from rewrite.simulators.readers import (
    LanguageModelPupil,
    Reader,
    check_folds,
    check_reader,
    learned_by,
    list_readers,
    tuned_scheme,
)
from rewrite.simulators.schemes import AllAtOnce, LastToken, Ratings, RatingsList, Scheme
from rewrite.simulators.screens.base import Screen
from rewrite.text.windows import Text

TOGETHER = 4096
"""Requests handed to the engine at a time [requests]."""
PROBED = 32
"""Predictions that are read before all others."""


class LanguageModelSimulator:
    """Asks an engine for every strength."""

    scale = 9.0

    def __init__(
        self,
        explanations: Sequence[Explanation],
        latents: int,
        scheme: Scheme,
        readers: Sequence[Reader],
        least_mass: float = 0.0,
        screening: Settings | None = None,
    ) -> None:
        self.latents, self.scheme, self.readers, self.least_mass = latents, scheme, readers, least_mass
        given = [e for e in explanations if 0 <= e.latent < latents]
        self.texts = {e.latent: e.text for e in sorted(given, key=lambda e: e.latent) if e.text is not None}
        self.missing = find_missing(given, latents)
        self.screen = ""
        if screening is not None and screening.screen != "none":
            self.screen, read = screening.screen, [Explanation(own, told) for own, told in self.texts.items()]
            self._screen: Screen = plugins.load("screens", screening.screen).screen(read, screening)

    def simulate(self, text: Text) -> Strengths:
        """See `Simulator.simulate`."""
        counted = text.counted()
        rows, windows = int(counted.sum()), list(list_windows(text, counted))
        asked = Asked.everything(rows, len(self.texts))
        if self.screen:
            asked = choose(self._screen, text, counted, self.scheme.whole)
        page, unread = Page(asked), []
        for reader in self.readers:
            columns = {column: told for column, (own, told) in enumerate(self.texts.items()) if own in reader.latents}
            self._fill(page, reader, columns, windows)
            if reader.tuned:
                unread.append(Page(Asked.everything(rows, 1)))
                self._fill(unread[-1], reader, {0: ""}, windows)
        return self._strengths(text, page, unread)

    def _fill(self, page: Page, reader: Reader, columns: Mapping[int, str], windows: Sequence[Window]) -> None:
        """Let a reader fill some columns of a page."""
        placed = chain.from_iterable(self._ask(page.asked, one, told, windows) for one, told in columns.items())
        first = list(take_first(placed, PROBED)) if self.least_mass else []
        while batch := first or list(islice(placed, TOGETHER)):
            replies = list(self._answers(reader, batch)) if first else self._answers(reader, batch)
            if first:
                self._check_mass([reply for _, reply in replies if isinstance(reply, Reading)])
                first = []
            for number, reply in replies:
                place = batch[number]
                if isinstance(reply, Fault):
                    page.fill(place, Ratings.none(len(place.rows), reply.kind))
                else:
                    page.fill(place, self.scheme.read(place.item, reply))

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

    def _ask(self, asked: Asked, column: int, text: str, windows: Sequence[Window]) -> Iterator[Placed]:
        """The requests for a column, window by window; windows in which nothing is asked are passed over."""
        rows = asked.of(column)
        ends = np.searchsorted(rows, [0, *(window.rows[-1] + 1 for window in windows)])
        for number in np.flatnonzero(np.diff(ends)).tolist():
            window = windows[number]
            wanted = window.asked & np.isin(window.rows, rows[ends[number] : ends[number + 1]])
            for item in self.scheme.ask(text, window.tokens, window.asked, wanted):
                yield Placed(item, window.rows[item.places], column)

    def _answers(self, reader: Reader, batch: Sequence[Placed]) -> Iterator[tuple[int, Reading | Answer | Fault]]:
        """The engine's answers to a batch of one kind of request."""
        requests = [place.item.request for place in batch]
        slots = [request for request in requests if isinstance(request, Branches)]
        if slots:
            yield from reader.engine.read(slots)
        else:
            yield from reader.engine.generate([request for request in requests if isinstance(request, Question)])

    def _strengths(self, text: Text, page: Page, unread: Sequence[Page]) -> Strengths:
        """Every prediction as an entry, zeros and unknown ones too; what was asked for the audit by itself."""
        counted, passed, latents = text.counted(), page.asked.select(passed=True), list(self.texts)
        alone, screened = None, None
        if unread:
            reader = np.zeros(self.latents, dtype=np.int16)
            for place, one in enumerate(self.readers):
                reader[list(one.latents)] = place
            alone = Unread(np.stack([own.strengths for own in unread], axis=1), reader)
        if self.screen:
            full = counted if text.full is None else counted & text.full
            audit = spread(page.asked.select(passed=False), page.strengths, counted, latents, self.latents)
            screened = Screened(self.screen, int(np.prod(page.asked.shape)), full, audit)
        return Strengths(
            spread(passed, page.strengths, counted, latents, self.latents),
            *(dict(self.missing), dict(page.faults), page.zero[passed.data], page.outside[passed.data]),
            unread=alone,
            screened=screened,
        )


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
    explanations: Sequence[Explanation],
    latents: int,
    settings: Settings,
    peek: Peek,
    open_engine: OpenEngine,
    tuned: Path | None = None,
) -> LanguageModelSimulator:
    """The simulator with its engines open; the truth is not looked at. Where it will be tuned and is not yet, as on a
    dry run, the model itself stands for the readers."""
    if not settings.model:
        raise UserError("simulators.llm.model: not set; name a language model, a folder or a hub name")
    every = frozenset(range(latents))
    if settings.adapter:
        readers = []
        for adapter, own in list_readers(settings.adapter, latents):
            engine = open_engine(settings.model, adapter)
            check_reader("llm", adapter, learned_by(settings.model, engine.identity))
            readers.append(Reader(engine, own, tuned=True))
    elif tuned is not None:
        readers = [
            Reader(open_engine(settings.model, str(place)), own, tuned=True) for place, own in check_folds(tuned)
        ]
    else:
        readers = [Reader(open_engine(settings.model), every, tuned=settings.tune)]
    tuned_one = tuned_scheme(settings.renormalise)
    scheme = tuned_one if readers[0].tuned else choose_scheme(settings, readers[0].engine)
    return LanguageModelSimulator(explanations, latents, scheme, readers, settings.least_mass, settings)


def pupils(
    lessons: Lessons, settings: Settings, config: TuneConfig, open_learner: Callable[[str], Learner]
) -> Callable[[], LanguageModelPupil]:
    """What opens a pupil for each fold (`rewrite.simulators.base`)."""
    return lambda: LanguageModelPupil(settings.model, open_learner(settings.model))
