"""The engine: requests in lists to a server, and what it can do."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Literal, TypeVar

import rewrite.engines.openai.lists as lists
import rewrite.engines.openai.replies as replies
from rewrite import DISTRIBUTION
from rewrite.config import UserError
from rewrite.engines.base import VOCABULARY, Abilities, Answer, Branches, Fault, Question, Reading
from rewrite.engines.encoding import Encoder, read_options
from rewrite.engines.fingerprints import fingerprint_model
from rewrite.engines.ledger import Spent
from rewrite.engines.openai import Settings
from rewrite.engines.openai.lists import Prompt, Read
from rewrite.engines.openai.pacing import Found, Job, Pace, Trouble, add_tries, settle, stream
from rewrite.engines.openai.remote import OPENAI, Remote
from rewrite.engines.openai.replicas import Replicas
from rewrite.engines.openai.replies import Json

FIRST = 5
"""Requests that fail for good, with none answered before, after which the run stops."""
UNFIT = (400, 413, 422)
"""Answers that may be about one prompt of a list, in whatever words."""
ROWS = 1 << 18
"""Most log-probabilities asked for in one answer: about 25 MB of JSON."""
WAYS: Mapping[str, Literal["ids", "all"]] = {"vllm": "ids", "llamacpp": "all"}
"""How digits are asked for exactly, by who a server says that it is."""
T = TypeVar("T")


class OpenAI:
    """An engine on a server. See `rewrite.engines.base.Engine`."""

    def __init__(self, model: str, settings: Settings) -> None:
        self.model = settings.model or model
        self.settings = settings
        self._remote = Remote(
            replicas=Replicas(settings.addresses or (OPENAI,)),
            key_variable=settings.key_variable,
            timeout=settings.timeout,
            retries=settings.retries,
            pace=Pace(settings.requests_per_minute, settings.tokens_per_minute),
            fields=settings.renamed,
        )
        self._server: str | None = None
        self._answered, self._refused = False, 0

    @cached_property
    def _encoder(self) -> Encoder | None:
        settings = self.settings
        return Encoder(settings.tokenizer, template=settings.template) if settings.tokenizer else None

    @property
    def can(self) -> Abilities:
        """What the settings say that the server can do; it is not asked."""
        exact = self._encoder is not None and self.settings.digits in ("ids", "all")
        return Abilities(
            chat=self._encoder is None or self._encoder.chat,
            logprobs=VOCABULARY if exact else self.settings.logprobs,
            begun=self._encoder is not None,
            prompt_logprobs=False,
            prefix_reuse=True,
            schema=self.settings.json_schema,
        )

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What answers depend on, as far as one can know it of a server: hence the label `revision`."""
        own = {name: str(getattr(self.settings, name)) for name in ("revision", "digits", "logprobs", "json_schema")}
        tokenizer = self.settings.tokenizer and fingerprint_model(self.settings.tokenizer)
        sent = {"template": " ".join(self.settings.template)} if self.settings.template else {}
        own |= {"fields": str(self.settings.fields)} if self.settings.fields else {}
        marks = self._encoder.marks if self._encoder else sent
        return {"engine": "openai", "model": self.model, "tokenizer": tokenizer, **own, **marks}

    def estimate(self, request: Branches | Question) -> Spent:
        """Counted where there is a tokenizer; else a token is taken for 4 characters, and a message for 4 tokens more.
        English is about that; code and other scripts take more tokens."""
        out = request.max_tokens if isinstance(request, Question) else 1
        if self._encoder is None:
            tokens = sum(math.ceil(len(m.content) / 4) + 4 for m in request.messages)
            return Spent(1, tokens, out, tokens)
        if isinstance(request, Branches):
            lengths = self._encoder.branches(request).lengths
            return Spent(len(lengths), int(lengths.sum()), len(lengths), int(lengths.sum()))
        tokens = len(self._encoder.question(request))
        return Spent(1, tokens, out, tokens)

    def read(self, requests: Sequence[Branches]) -> Iterator[tuple[int, Reading | Fault]]:
        """The digits' probabilities at every slot; see `Engine.read`."""
        if self._encoder is not None:
            return self._read_slots(self._encoder, requests)
        if any(request.pieces != ("",) for request in requests):
            raise UserError(
                "engines.openai.tokenizer: slots within an answer can only be read with the tokenizer of the server's "
                "model; name it, or choose another scheme"
            )
        return self._stream(self._read_chat(index, request) for index, request in enumerate(requests))

    def generate(self, requests: Sequence[Question]) -> Iterator[tuple[int, Answer | Fault]]:
        """The answer to each question; see `Engine.generate`."""
        return self._stream(self._answer(index, request) for index, request in enumerate(requests))

    # One slot at the beginning of an answer, as text

    def _read_chat(self, index: int, request: Branches) -> Job[Any, tuple[int, Reading | Fault]]:
        wanted: Json = {"logprobs": True, "top_logprobs": self.settings.logprobs, "temperature": 1, "top_p": 1}
        body = {"model": self.model, "messages": _turns(request), **self._limit(1), **wanted}
        cost = self.estimate(request)

        def understand(reply: Json) -> Reading | Fault:
            (choice,) = replies.read_choices(reply, 1)
            return replies.read_slot(choice, None, replies.read_usage(reply, cost))

        return self._single(index, "/chat/completions", body, understand, cost)

    # Branches anywhere, as lists of prompts

    def _read_slots(self, encoder: Encoder, requests: Sequence[Branches]) -> Iterator[tuple[int, Reading | Fault]]:
        _ = encoder.digits  # Refuses a model whose digits are not single tokens before anything is sent.
        with closing(self._stream(self._list_jobs(encoder, requests))) as reads:
            yield from lists.join(reads)

    def _list_jobs(self, encoder: Encoder, requests: Sequence[Branches]) -> Iterator[Job[Any, Read]]:
        """Made when the server has been met, so that its way is known."""
        size = self.settings.list_size
        if self._way() == "all":
            size = max(1, min(size, ROWS // len(encoder.tokenizer)))
        for prompts in lists.cut(encoder, requests, size):
            yield self._read_list(encoder, prompts)

    def _read_list(self, encoder: Encoder, prompts: list[Prompt]) -> Job[Any, Read]:
        digits = encoder.digits.tolist()
        way = self._way()
        wanted: Json = {"logprobs": len(encoder.tokenizer) if way == "all" else self.settings.logprobs}
        if way == "ids":
            wanted = {"logprobs": len(digits), "logprob_token_ids": digits}
        elif way == "all":
            # llama.cpp gives none with a token that is half a character; what it gives is from before the bias.
            wanted["logit_bias"] = {str(digits[0]): 100}
        one: Json = {"model": self.model, "max_tokens": 1, "temperature": 1, "top_p": 1}
        body = {"prompt": [p.ids for p in prompts], **one, **wanted}
        tokens = sum(len(p.ids) for p in prompts)
        cost = Spent(len(prompts), tokens, len(prompts), tokens)

        def understand(reply: Json) -> list[Read]:
            choices = replies.read_choices(reply, len(prompts))
            shares = lists.share(prompts, replies.read_usage(reply, cost))
            return [
                Read(prompt, replies.read_slot(choice, digits, spent, exact=way == "ids"))
                for prompt, choice, spent in zip(prompts, choices, shares, strict=True)
            ]

        async def job(client: Any) -> list[Read]:
            try:
                done = await self._remote.ask(client, "/completions", body, understand, tokens + len(prompts))
            except Trouble as trouble:
                if len(prompts) > 1 and (trouble.fault.kind == "too long" or trouble.status in UNFIT):
                    # The others are not to pay for one: the list is halved until it stands alone.
                    half = len(prompts) // 2
                    parts = [self._read_list(encoder, part) for part in (prompts[:half], prompts[half:])]
                    return [read for part in parts for read in await part(client)]
                self._meet_refusal(trouble)
                fault = settle(trouble)  # What the tries cost is booked once.
                others = replace(fault, spent=Spent(calls=1))
                return [Read(p, others if number else fault) for number, p in enumerate(prompts)]
            self._answered = True
            first, *rest = done.value  # What the tries before it cost is booked once.
            reads = [replace(first, outcome=add_tries(first.outcome, done.retried, done.paid))]
            return reads + [replace(read, outcome=add_tries(read.outcome, done.retried, Spent())) for read in rest]

        return job

    def _way(self) -> str:
        """How digits are asked for. Known after the server was met."""
        auto = WAYS.get(self._server or "", "top")
        return auto if self.settings.digits == "auto" else self.settings.digits

    # Questions

    def _answer(self, index: int, request: Question) -> Job[Any, tuple[int, Answer | Fault]]:
        cost = self.estimate(request)
        path, body = self._body(request)

        def understand(reply: Json) -> Answer:
            (choice,) = replies.read_choices(reply, 1)
            return replies.read_text(choice, replies.read_usage(reply, cost))

        return self._single(index, path, body, understand, cost)

    def _body(self, request: Question) -> tuple[str, Json]:
        body: Json = {"model": self.model, "temperature": request.temperature, "seed": request.seed}
        if request.stop:
            body["stop"] = list(request.stop)
        if request.schema and self.settings.json_schema:
            body |= self._hold_to(json.loads(request.schema))
        if self._encoder is None:
            body |= {"chat_template_kwargs": read_options(self.settings.template)} if self.settings.template else {}
            return "/chat/completions", {"messages": _turns(request), **self._limit(request.max_tokens), **body}
        ids = self._encoder.question(request).tolist()
        return "/completions", {"prompt": [ids], "max_tokens": request.max_tokens, **body}

    def _limit(self, tokens: int) -> Json:
        """OpenAI renamed the limit of chats; others know the old name."""
        return {"max_tokens" if self.settings.base_url else "max_completion_tokens": tokens}

    def _hold_to(self, schema: Json) -> Json:
        if not self.settings.base_url and schema.get("type") != "object":
            # OpenAI's own servers hold to objects only.
            schema = {"type": "object", "properties": {"answer": schema}, "required": ["answer"]}
            schema["additionalProperties"] = False
        form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        # llama.cpp heeds the form in chats only, and this in completions.
        own = {"json_schema": schema} if self._server == "llamacpp" and self._encoder is not None else {}
        return {"response_format": form, **own}

    # What is common to all

    def _single(
        self, index: int, path: str, body: Json, understand: Callable[[Json], Found | Fault], cost: Spent
    ) -> Job[Any, tuple[int, Found | Fault]]:
        async def job(client: Any) -> list[tuple[int, Found | Fault]]:
            try:
                done = await self._remote.ask(client, path, body, understand, cost.tokens_in + cost.tokens_out)
            except Trouble as trouble:
                self._meet_refusal(trouble)
                return [(index, settle(trouble))]
            self._answered = True
            return [(index, add_tries(done.value, done.retried, done.paid))]

        return job

    def _meet_refusal(self, trouble: Trouble) -> None:
        """Raise UserError, in the server's own words, where nothing was answered yet and the first requests all failed
        for a reason that will not pass: all others share it."""
        self._refused += not trouble.again and trouble.fault.kind not in ("too long", "timeout")
        if not self._answered and self._refused >= FIRST:
            raise UserError(
                f"engines.openai: the first {FIRST} requests all failed: {trouble.fault.why}; mend the settings "
                "(a field that the server does not take can be renamed or dropped with engines.openai.fields)"
            )

    def _stream(self, jobs: Iterator[Job[Any, T]]) -> Generator[T, None, None]:
        return stream(self._connect, jobs, self.settings.concurrency)

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Any]:
        async with self._remote.connect() as client:
            if self._server is None:
                self._server = await self._remote.meet(client)
            yield client


def _turns(request: Branches | Question) -> list[Json]:
    return [{"role": message.role, "content": message.content} for message in request.messages]


def build(model: str, settings: Settings) -> OpenAI:
    """The engine. Nothing is sent before the first request."""
    if find_spec("openai") is None:
        raise UserError(f"engine = openai: needs the openai package; install it: pip install '{DISTRIBUTION}[openai]'")
    return OpenAI(model, settings)
