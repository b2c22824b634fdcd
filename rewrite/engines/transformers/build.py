"""The engine: batches of prompts, each failure kept with its own request."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from rewrite.config import UserError
from rewrite.engines.base import (
    VOCABULARY,
    Abilities,
    Answer,
    Branches,
    Fault,
    Learner,
    Question,
    Reading,
    States,
    join,
)
from rewrite.engines.encoding import Encoder
from rewrite.engines.fingerprints import fingerprint_model
from rewrite.engines.ledger import Spent
from rewrite.engines.transformers import Settings
from rewrite.engines.transformers.trunk import Reader, Row, can_branch, can_cut_back, plan_batches
from rewrite.engines.transformers.writer import Asked, Writer
from rewrite.subject.loading import check_device, check_folder, first_line, load_network, load_part

WINDOW = 32
"""Batches' worth of requests that are sorted together."""


class TransformersEngine:
    """See the package."""

    def __init__(self, model: str, settings: Settings, adapter: str = "") -> None:
        self.model, self.settings, self.adapter = model, settings, adapter

    @cached_property
    def can(self) -> Abilities:
        """See `Engine.can`."""
        return Abilities(
            chat=self.encoder.chat,
            logprobs=VOCABULARY,
            begun=True,
            prompt_logprobs=can_branch(self._config),
            prefix_reuse=can_cut_back(self._config),
            schema=False,
        )

    @cached_property
    def identity(self) -> dict[str, str]:
        """See `Engine.identity`."""
        aside = {*self.settings.operational, "template"}  # The prompts are rendered by the time they are keyed.
        settings = {k: str(v) for k, v in self.settings if k not in aside}
        model = fingerprint_model(self.model, self.settings.revision)
        adapter = {"adapter": fingerprint_model(self.adapter)} if self.adapter else {}
        return {"engine": "transformers", "model": model, **adapter, **settings, **self.encoder.marks}

    def estimate(self, request: Branches | Question) -> Spent:
        """See `Engine.estimate`."""
        if isinstance(request, Question):
            prompt = len(self.encoder.question(request))
            return Spent(1, prompt, request.max_tokens, prompt)
        return sum((Spent(1, row.length, 0, row.length) for row in self._rows(request)), Spent())

    def forget(self) -> None:
        """Drop what is kept of earlier prompts; the next is computed whole."""
        self._reader.forget()

    def read(self, requests: Sequence[Branches]) -> Iterator[tuple[int, Reading | Fault]]:
        """See `Engine.read`."""
        window = WINDOW * self.settings.batch
        for first in range(0, len(requests), window):
            rows: list[Row] = []
            parts: dict[int, tuple[int, int]] = {}  # of each request: its first row, and behind its last
            for number, request in enumerate(requests[first : first + window], start=first):
                own = self._rows(request)
                fault = self._misfit(max(int(row.ends[-1]) + len(row.branch) for row in own))
                if fault is not None:
                    yield number, fault
                else:
                    parts[number] = len(rows), len(rows) + len(own)
                    rows += [replace(row, number=len(rows) + place) for place, row in enumerate(own)]
            yield from _gather(parts, self._read_rows(rows))

    def _rows(self, request: Branches) -> list[Row]:
        """A request in as many rows as the model needs: one, or where it takes no mask, one a branch."""
        encoded = self.encoder.branches(request)
        if self.can.prompt_logprobs or not len(encoded.branch):
            return [Row(0, encoded.trunk, encoded.ends, encoded.branch)]
        _say_separate(self.model)
        none = np.zeros(0, dtype=np.int64)
        return [Row(0, ids, np.array([len(ids)]), none) for ids in encoded.prompts()]

    def _read_rows(self, rows: Sequence[Row]) -> Iterator[tuple[int, Reading | Fault]]:
        rows = sorted(rows, key=lambda row: row.ids.astype(">u4").tobytes())
        reader, most = self._reader, self.settings.batch
        for batch in plan_batches(rows, most, reader.ids, reader.reuse):
            yield from self._read(rows[batch.begin : batch.end], batch.shared)

    def _read(self, rows: Sequence[Row], shared: int) -> Iterator[tuple[int, Reading | Fault]]:
        """A batch; where it fails each half by itself, so that a failure stays with its own request."""
        try:
            readings = self._reader.read(rows, shared)
        except Exception as error:  # whatever a model raises belongs to its request, not to the run
            self.forget()
            if len(rows) == 1:
                yield rows[0].number, _fault(error)
                return
            half = len(rows) // 2
            yield from self._read(rows[:half], 0)
            yield from self._read(rows[half:], 0)
            return
        for row, reading in zip(rows, readings, strict=True):
            if np.isfinite(reading.digits).all():
                yield row.number, reading
            else:
                yield row.number, Fault("no log-probabilities", "the model's logits are not numbers", reading.spent)

    def generate(self, requests: Sequence[Question]) -> Iterator[tuple[int, Answer | Fault]]:
        """See `Engine.generate`."""
        window = WINDOW * self.settings.batch
        for first in range(0, len(requests), window):
            asked = []
            for number, request in enumerate(requests[first : first + window], start=first):
                ids = self.encoder.question(request)
                fault = self._misfit(len(ids) + request.max_tokens)
                if fault is None:
                    asked.append(Asked(number, request, ids))
                else:
                    yield number, fault
            asked.sort(key=lambda one: len(one.ids) + one.question.max_tokens)
            for begin in range(0, len(asked), self.settings.batch):
                yield from self._generate(asked[begin : begin + self.settings.batch])

    def _generate(self, asked: Sequence[Asked]) -> Iterator[tuple[int, Answer | Fault]]:
        """A batch; where it fails each half by itself."""
        try:
            answers = self._writer.write(asked)
        except Exception as error:  # as above
            if len(asked) == 1:
                yield asked[0].number, _fault(error)
                return
            half = len(asked) // 2
            yield from self._generate(asked[:half])
            yield from self._generate(asked[half:])
            return
        for one, answer in zip(asked, answers, strict=True):
            yield one.number, answer

    def _misfit(self, tokens: int) -> Fault | None:
        """The fault of a request that is longer than the model reads; None for one that fits."""
        limit = getattr(self._config.get_text_config(), "max_position_embeddings", None)
        if limit and tokens > limit:
            return Fault("too long", f"{tokens:,} tokens; {self.model} reads at most {limit:,}")
        return None

    @cached_property
    def encoder(self) -> Encoder:
        """The model's tokenizer."""
        return Encoder(self.model, self.settings.revision, self.settings.template)

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        check_folder(self.model, self.model)
        return load_part(self.model, AutoConfig, self.model, self.settings.revision)

    @cached_property
    def network(self) -> Any:
        """The model itself, on its device."""
        device = check_device("engines.transformers.device", self.settings.device)
        check_folder(self.model, self.model)
        model = load_network(self.model, self.model, self.settings.revision, self.settings.dtype)
        if self.adapter:
            from rewrite.engines.transformers.learner import merge_adapter

            model = merge_adapter(model, self.adapter, self.adapter)
        return model.train(False).requires_grad_(False).to(device)

    @cached_property
    def _reader(self) -> Reader:
        digits = self.encoder.digits  # Before the weights: a model whose digits are no tokens is refused at once.
        return Reader(self.network, digits, self.can.prefix_reuse, self.encoder.decode)

    @cached_property
    def _writer(self) -> Writer:
        return Writer(self.network, self.encoder)


def _gather(
    parts: dict[int, tuple[int, int]], replies: Iterable[tuple[int, Reading | Fault]]
) -> Iterator[tuple[int, Reading | Fault]]:
    """Each request once all of its rows are there; it fails where one of them does."""
    owner = {row: number for number, (begin, end) in parts.items() for row in range(begin, end)}
    found: dict[int, Reading | Fault] = {}
    for row, reply in replies:
        found[row] = reply
        number = owner[row]
        own = range(*parts[number])
        if all(one in found for one in own):
            yield number, join([found.pop(one) for one in own])


@cache
def _say_separate(model: str) -> None:
    """Once for each model, in the log."""
    logging.getLogger(__name__).warning("%s takes no mask of ours: each branch goes as a prompt of its own", model)


def _fault(error: Exception) -> Fault:
    """What went wrong in the model, as the request's fault."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        detail = "out of memory; lower engines.transformers.batch or the prompt's length"
    else:
        detail = first_line(error)
    return Fault("server error", detail, passing=True)


def build(model: str, settings: Settings, adapter: str = "") -> TransformersEngine:
    """The engine; model and tokenizer are loaded on the first use."""
    return TransformersEngine(model, settings, adapter)


def read_states(model: str, settings: Settings, layers: Sequence[int]) -> States:
    """What the model holds of texts, at some of its layers."""
    from rewrite.engines.transformers.states import HiddenStates

    engine = TransformersEngine(model, settings)
    return HiddenStates(engine.network, engine.encoder, layers, settings.batch)


def learn(model: str, settings: Settings, rank: int, seed: int) -> Learner:
    """The model with a low-rank adapter that learns. Raises UserError for one that reads no branches in one pass."""
    from rewrite.engines.transformers.learner import LowRankLearner

    engine = TransformersEngine(model, settings)
    if not engine.can.prompt_logprobs:
        raise UserError(f"{model}: takes no mask of ours, so it cannot be tuned; choose a model with full attention")
    return LowRankLearner(engine.network, engine.encoder, engine.identity, rank, seed)
