"""Any causal model of the transformers library, in this process.

Reading: prompts are sorted by their token ids within a window of requests, so that those with the longest beginnings in
common stand together; `trunk.py` computes each shared beginning once and reads all slots of a prompt in one pass, as in
Bills et al. (2023), Language models can explain neurons in language models.

Generating: `writer.py` writes the answers to a batch of questions; questions of like length stand together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from rewrite.config import Section
from rewrite.engines.base import VOCABULARY, Abilities, Answer, Fault, Question, Reading, Slots, Spent
from rewrite.engines.encoding import Encoder, fingerprint_model
from rewrite.engines.transformers.trunk import Reader, Row, can_cut_back, plan_batches
from rewrite.engines.transformers.writer import Asked, Writer
from rewrite.subject.loading import check_device, check_folder, first_line, load_network, load_part

WINDOW = 32
"""Batches' worth of requests that are sorted together."""


class Settings(Section):
    """Settings under `engines.transformers`."""

    operational: ClassVar[frozenset[str]] = frozenset({"batch"})

    revision: str = "main"
    """Revision of a model on the hub; a folder has none."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of weights and activations."""
    batch: int = Field(8, ge=1)
    """Prompts in one forward pass [prompts]; lower it where memory runs out."""


class TransformersEngine:
    """See the module."""

    def __init__(self, model: str, settings: Settings) -> None:
        self.model, self.settings = model, settings

    @cached_property
    def can(self) -> Abilities:
        """See `Engine.can`."""
        return Abilities(
            chat=self._encoder.chat,
            logprobs=VOCABULARY,
            begun=True,
            prompt_logprobs=True,
            prefix_reuse=can_cut_back(self._config),
            schema=False,
        )

    @cached_property
    def identity(self) -> dict[str, str]:
        """See `Engine.identity`."""
        settings = {k: str(v) for k, v in self.settings if k not in self.settings.operational}
        model = fingerprint_model(self.model, self.settings.revision)
        return {"engine": "transformers", "model": model, **settings}

    def estimate(self, request: Slots | Question) -> Spent:
        """See `Engine.estimate`."""
        if isinstance(request, Question):
            prompt = len(self._encoder.question(request))
            return Spent(1, prompt, request.max_tokens, prompt)
        prompt = len(self._encoder.slots(request).ids)
        return Spent(1, prompt, 0, prompt)

    def forget(self) -> None:
        """Drop what is kept of earlier prompts; the next is computed whole."""
        self._reader.forget()

    def read(self, requests: Sequence[Slots]) -> Iterator[tuple[int, Reading | Fault]]:
        """See `Engine.read`."""
        reader, window = self._reader, WINDOW * self.settings.batch
        for first in range(0, len(requests), window):
            rows = []
            for number, request in enumerate(requests[first : first + window], start=first):
                encoded = self._encoder.slots(request)
                fault = self._misfit(len(encoded.ids))
                if fault is not None:
                    yield number, fault
                else:
                    last = int(encoded.ends[0]) - 1 if reader.reuse else 0
                    rows.append(Row(number, encoded.ids, encoded.ends, last))
            rows.sort(key=lambda row: row.ids.astype(">u4").tobytes())
            for batch in plan_batches(rows, self.settings.batch, reader.ids):
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
                ids = self._encoder.question(request)
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
    def _encoder(self) -> Encoder:
        return Encoder(self.model, self.settings.revision)

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        check_folder(self.model, self.model)
        return load_part(self.model, AutoConfig, self.model, self.settings.revision)

    @cached_property
    def _network(self) -> Any:
        """The model itself, on its device."""
        device = check_device("engines.transformers.device", self.settings.device)
        check_folder(self.model, self.model)
        model = load_network(self.model, self.model, self.settings.revision, self.settings.dtype)
        return model.train(False).requires_grad_(False).to(device)

    @cached_property
    def _reader(self) -> Reader:
        digits = self._encoder.digits  # Before the weights: a model whose digits are no tokens is refused at once.
        return Reader(self._network, digits, self.can.prefix_reuse)

    @cached_property
    def _writer(self) -> Writer:
        return Writer(self._network, self._encoder)


def _fault(error: Exception) -> Fault:
    """What went wrong in the model, as the request's fault."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return Fault("server error", "out of memory; lower engines.transformers.batch or the prompt's length")
    return Fault("server error", first_line(error))


def build(model: str, settings: Settings) -> TransformersEngine:
    """The engine; model and tokenizer are loaded on the first use."""
    return TransformersEngine(model, settings)
