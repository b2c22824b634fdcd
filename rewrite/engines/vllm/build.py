"""The engine: requests as vLLM takes them, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rewrite import DISTRIBUTION
from rewrite.config import UserError
from rewrite.engines.base import DIGITS, VOCABULARY, Abilities, Answer, Branches, Fault, Question, Reading
from rewrite.engines.encoding import Encoder
from rewrite.engines.fingerprints import fingerprint_model
from rewrite.engines.ledger import Spent
from rewrite.engines.vllm import Settings
from rewrite.engines.vllm.loading import Launch, load, read_reason, unload
from rewrite.subject.loading import is_gguf


def build(model: str, settings: Settings) -> VllmEngine:
    """See `rewrite.engines.base`. Raises UserError where vLLM is not installed."""
    if find_spec("vllm") is None:
        raise UserError(f"engine = vllm: needs vllm; install it: pip install '{DISTRIBUTION}[vllm]'")
    if is_gguf(model):
        raise UserError(f"engine = vllm: {model}: GGUF files are for the engine transformers, or llama.cpp's server")
    return VllmEngine(model, settings)


@dataclass(frozen=True)
class _Prompt:
    """Token ids to go on from, and vLLM's SamplingParams."""

    ids: list[int]
    params: Any


@dataclass(frozen=True)
class _Done:
    """What vLLM made of a prompt."""

    output: Any
    spent: Spent


class VllmEngine:
    """A model on vLLM, loaded by the first request."""

    def __init__(self, model: str, settings: Settings) -> None:
        self.model, self.settings = model, settings

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.model, self.settings.revision, self.settings.template)

    @cached_property
    def can(self) -> Abilities:
        """See `Engine.can`; the module's docstring says why `prompt_logprobs` is False."""
        return Abilities(
            chat=self._encoder.chat,
            logprobs=VOCABULARY,
            begun=True,
            prompt_logprobs=False,
            prefix_reuse=self.settings.prefix_reuse,
            schema=True,
        )

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """See `Engine.identity`."""
        return {
            "engine": "vllm",
            "model": fingerprint_model(self.model, self.settings.revision),
            "dtype": self.settings.dtype,
            "max_model_len": str(self.settings.max_model_len),
        } | self._encoder.marks

    def estimate(self, request: Branches | Question) -> Spent:
        """See `Engine.estimate`: nothing reused, answers as long as they may be."""
        if isinstance(request, Question):
            length = len(self._encoder.question(request))
            return Spent(1, length, request.max_tokens, length)
        lengths = self._encoder.branches(request).lengths
        return Spent(len(lengths), int(lengths.sum()), len(lengths), int(lengths.sum()))

    def read(self, requests: Sequence[Branches]) -> Iterator[tuple[int, Reading | Fault]]:
        """See `Engine.read`."""
        digits = self._encoder.digits.tolist()
        encoded = [self._encoder.branches(request) for request in requests]
        longest = [np.concatenate([item.trunk, item.branch]) for item in encoded]
        fits, faults = self._sort_out(longest, [1] * len(encoded))
        yield from faults
        for numbers in _lists(fits, [len(item.ends) for item in encoded], self.settings.batch):
            params = _one_token(digits)
            prompts = [
                _Prompt(ids.tolist(), params) for number in numbers for ids in reversed(list(encoded[number].prompts()))
            ]
            done = self._run(prompts)
            for number in numbers:
                slots = len(encoded[number].ends)
                yield number, _reading(done[:slots][::-1], digits)
                done = done[slots:]

    def generate(self, requests: Sequence[Question]) -> Iterator[tuple[int, Answer | Fault]]:
        """See `Engine.generate`."""
        ids = [self._encoder.question(request) for request in requests]
        fits, faults = self._sort_out(ids, [request.max_tokens for request in requests])
        yield from faults
        for numbers in _lists(fits, [1] * len(ids), self.settings.batch):
            prompts = [_Prompt(ids[number].tolist(), _answering(requests[number])) for number in numbers]
            for number, done in zip(numbers, self._run(prompts), strict=True):
                yield number, done if isinstance(done, Fault) else _answer(done)

    def _sort_out(
        self, prompts: Sequence[Int[np.ndarray, " _"]], answers: Sequence[int]
    ) -> tuple[list[int], list[tuple[int, Fault]]]:
        """The prompts that fit into the model with their answers, in the order of their ids; the others as faults. vLLM
        itself would refuse a whole list for one of them."""
        if not prompts:
            return [], []
        limit = self._llm().model_config.max_model_len
        fits, faults = [], []
        for number, (ids, room) in enumerate(zip(prompts, answers, strict=True)):
            if len(ids) + room <= limit:
                fits.append(number)
            else:
                detail = f"{len(ids) + room:,} tokens with the answer; {self.model} takes at most {limit:,}"
                faults.append((number, Fault("too long", detail)))
        # Big-endian bytes compare as the ids do.
        return sorted(fits, key=lambda number: prompts[number].astype(">u4").tobytes()), faults

    def _run(self, prompts: Sequence[_Prompt]) -> list[_Done | Fault]:
        """One list through vLLM, in its order. A prompt that vLLM refuses fails alone."""
        llm = self._llm()
        try:
            outputs = llm.generate(
                [{"prompt_token_ids": prompt.ids} for prompt in prompts],
                [prompt.params for prompt in prompts],
                use_tqdm=False,
            )
        except Exception as error:
            if len(prompts) > 1 and not llm.llm_engine.has_unfinished_requests():
                return [self._run([prompt])[0] for prompt in prompts]
            return [Fault("server error", read_reason(error), passing=True) for _ in prompts]
        finally:
            if llm.llm_engine.has_unfinished_requests():
                unload()  # It broke at work: what it has begun would come back with the next list.
        return [_Done(output, _spent(output)) for output in outputs]

    def _llm(self) -> Any:
        """The loaded model."""
        needed = {name: value for name, value in self.settings if name not in ("batch", "template")}
        return load(Launch(self.model, **needed))


def _lists(order: Sequence[int], prompts: Sequence[int], batch: int) -> Iterator[list[int]]:
    """Whole requests, in order, together until their prompts are as many as a list should have."""
    numbers: list[int] = []
    count = 0
    for number in order:
        if numbers and count + prompts[number] > batch:
            yield numbers
            numbers, count = [], 0
        numbers.append(number)
        count += prompts[number]
    if numbers:
        yield numbers


def _one_token(digits: list[int]) -> Any:
    from vllm import SamplingParams

    return SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=digits, detokenize=False)


def _answering(request: Question) -> Any:
    """How vLLM is to answer a question. A schema tells whole answers, so one that is begun is not held to it."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    held = StructuredOutputsParams(json=request.schema) if request.schema and not request.answer else None
    return SamplingParams(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        seed=request.seed,
        stop=list(request.stop),
        structured_outputs=held,
    )


def _spent(output: Any) -> Spent:
    length = len(output.prompt_token_ids)
    made = len(output.outputs[0].token_ids)
    return Spent(1, length, made, length - (output.num_cached_tokens or 0))


def _reading(slots: Sequence[_Done | Fault], digits: list[int]) -> Reading | Fault:
    """The slots of one request together; it fails with the first of them that did."""
    spent = sum((done.spent for done in slots), Spent())
    rows = []
    for done in slots:
        if isinstance(done, Fault):
            return Fault(done.kind, done.detail, spent)
        row = _digits(done.output, digits)
        if isinstance(row, Fault):
            return Fault(row.kind, row.detail, spent)
        rows.append(row)
    return Reading(np.stack(rows), spent)


def _digits(output: Any, digits: list[int]) -> Float[np.ndarray, " 10"] | Fault:
    given = output.outputs[0].logprobs
    if not given or any(token not in given[0] for token in digits):
        return Fault("no log-probabilities", f"vLLM gave none for some of the digits {DIGITS}")
    probabilities = np.exp(np.array([given[0][token].logprob for token in digits], dtype=np.float64))
    if not np.isfinite(probabilities).all():
        return Fault("no log-probabilities", "the model's logits are not numbers")
    return probabilities


def _answer(done: _Done) -> Answer:
    output = done.output.outputs[0]
    return Answer(output.text, output.finish_reason == "stop", done.spent)
