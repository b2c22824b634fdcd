"""A connection to an OpenAI-compatible server: where it is, the key it wants, and one request at a time.

The key is read from the environment when a connection is opened, and goes nowhere but into its headers: whatever a
server says is freed of it before it is shown. What the user can mend (no server there, a wrong key, an unknown model,
no money) raises UserError; all else is a `Trouble` of one request.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import rewrite.engines.openai.replies as replies
from rewrite.config import UserError
from rewrite.engines.base import Fault, Spent
from rewrite.engines.openai.pacing import Pace, Tried, Trouble, insist, read_retry_after
from rewrite.engines.openai.replies import Json
from rewrite.subject.loading import first_line

OPENAI = "https://api.openai.com/v1"
T = TypeVar("T")


@dataclass(frozen=True)
class Remote:
    """A server. Settings are those of `rewrite.engines.openai`."""

    base_url: str
    key_variable: str
    timeout: float
    retries: int
    pace: Pace
    fields: Mapping[str, str] = field(default_factory=dict)
    """Request fields by the name that this server has for them; empty for those that it does not take."""

    @property
    def shown(self) -> str:
        """The address without any name and password in it."""
        parts = urlsplit(self.base_url or OPENAI)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def key(self) -> str:
        """The key, empty where there is none. Raises UserError where one is needed or it cannot be one."""
        key = os.environ.get(self.key_variable, "").strip()
        if not key and not self.base_url:
            raise UserError(
                f"{self.key_variable}: OpenAI wants a key; put it into this environment variable, or name a server of "
                "your own in engines.openai.base_url"
            )
        if not re.fullmatch(r"[!-~]*", key):
            raise UserError(f"{self.key_variable}: what this environment variable holds cannot be a key; mend it")
        return key

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        """A client, closed at the end. It never tries again by itself, and has no time-out but ours."""
        from openai import AsyncOpenAI

        key = self.key() or "none"
        try:
            client = AsyncOpenAI(api_key=key, base_url=self.base_url or OPENAI, max_retries=0, timeout=None)
        except Exception as error:  # a proxy or a certificate in the environment that cannot be used
            raise _blame_environment(error) from None
        async with client:
            yield client

    async def meet(self, client: Any) -> str:
        """Who the server says that it is (`vllm`, `llamacpp`, ...), or nothing. Raises UserError if none is there."""
        if not self.base_url:
            return "openai"

        async def attempt() -> str:
            reply = await self._send(client, "get", "/models", None)
            return _read_owner(reply)

        try:
            return (await insist(attempt, self.pace, 0, self.retries)).value
        except Trouble as trouble:
            if trouble.again and trouble.status != 200:
                raise UserError(
                    f"engines.openai.base_url = {self.shown}: the server does not serve now ({trouble.fault.why}); try "
                    "again later"
                ) from None
            if trouble.again:
                raise UserError(
                    f"engines.openai.base_url = {self.shown}: no server answers there ({trouble.fault.why}); start it "
                    "or mend the address"
                ) from None
        return ""

    async def ask(self, client: Any, path: str, body: Json, understand: Callable[[Json], T], tokens: int) -> Tried[T]:
        """What `understand` makes of the answer; it may raise Trouble too. Raises Trouble when all tries failed."""

        async def attempt() -> T:
            reply = await self._send(client, "post", path, self._translate(body))
            try:
                return understand(reply)
            except Trouble as trouble:
                if trouble.fault.spent == Spent():  # It came, so it was billed, whatever is wrong with it.
                    billed = replies.read_usage(reply, Spent(calls=1))
                    trouble.fault = replace(trouble.fault, spent=billed)
                raise

        try:
            return await insist(attempt, self.pace, tokens, self.retries)
        except Trouble as trouble:
            if trouble.status == 404:
                hint = "" if re.search(r"/v\d", self.shown) else "; most servers want an address that ends in /v1"
                raise UserError(
                    f"engines.openai: {self.shown}{path} is not there, or not for the model "
                    f"{body['model']}: {trouble.fault.detail}{hint}"
                ) from None
            raise

    def _translate(self, body: Json) -> Json:
        """The body with the server's own names for its fields, without those that it does not take."""
        named = ((self.fields.get(name, name), value) for name, value in body.items())
        return {name: value for name, value in named if name}

    async def _send(self, client: Any, method: str, path: str, body: Json | None) -> Json:
        import httpx2
        import openai

        send = getattr(client, method)
        try:
            async with asyncio.timeout(self.timeout):
                # The raw response: the client's own types would let anything pass.
                options = {"cast_to": httpx2.Response} | ({"body": body} if body is not None else {})
                response = await send(path, **options)
        except TimeoutError:
            raise Trouble(Fault("timeout", f"no whole answer within {self.timeout:g} s"), again=True) from None
        except openai.APIStatusError as error:
            raise self._judge(error.status_code, error.response) from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            raise Trouble(Fault("server error", f"the connection failed or was cut ({cause})"), again=True) from None
        except (OverflowError, ExceptionGroup) as error:  # a port that is none, in the address or in a proxy's
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            if not isinstance(error, OverflowError):
                raise
            raise _blame_environment(error) from None
        return replies.parse(response.content, self.key())

    def _judge(self, status: int, response: Any) -> Exception:
        """What the user can mend, or the trouble of one request."""
        key, text = self.key(), response.text
        if status == 401:
            said = "refuses the key in it" if key else "wants a key; put it into this environment variable"
            return UserError(f"{self.key_variable}: the server at {self.shown} {said} ({status})")
        if status == 402 or replies.SPENT_UP.search(text):
            return UserError(f"{self.key_variable}: this key's account has nothing left to spend ({status}); top it up")
        return replies.judge_status(status, text, key, read_retry_after(response.headers.get("retry-after")))


def _blame_environment(error: Exception) -> UserError:
    return UserError(
        f"engines.openai: no connection can be made with this environment ({first_line(error)}); see HTTP_PROXY, "
        "HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE"
    )


def _read_owner(reply: Json) -> str:
    models = reply.get("data")
    first = models[0] if isinstance(models, list) and models else None
    owner = first.get("owned_by") if isinstance(first, dict) else None
    return owner if isinstance(owner, str) else ""
