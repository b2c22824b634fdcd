"""Connections to an OpenAI-compatible server or its replicas: where they are, the key they want, one request at a time.

The key is read from the environment when a connection is opened, and goes nowhere but into its headers: whatever a
server says is freed of it before it is shown. What the user can mend (no server there, a wrong key, an unknown model,
no money) raises UserError; all else is a `Trouble` of one request.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import rewrite.engines.openai.replies as replies
from rewrite.config import UserError
from rewrite.engines.base import Fault
from rewrite.engines.ledger import Spent
from rewrite.engines.openai.pacing import Pace, Tried, Trouble, insist, read_retry_after
from rewrite.engines.openai.replicas import Replicas, Server
from rewrite.engines.openai.replies import Json
from rewrite.subject.loading import first_line

OPENAI = "https://api.openai.com/v1"
NOT_MADE = ("ConnectError", "ConnectTimeout")
"""Errors of a connection that was never made."""
Clients = Mapping[str, Any]
"""A client of the openai package for each address."""
T = TypeVar("T")


@dataclass(frozen=True)
class Remote:
    """A server, or replicas of one. Settings are those of `rewrite.engines.openai`."""

    replicas: Replicas
    key_variable: str
    timeout: float
    retries: int
    pace: Pace
    fields: Mapping[str, str] = field(default_factory=dict)
    """Request fields by the name that this server has for them; empty for those that it does not take."""

    def key(self) -> str:
        """The key, empty where there is none. Raises UserError where one is needed or it cannot be one."""
        key = os.environ.get(self.key_variable, "").strip()
        if not key and any(server.url == OPENAI for server in self.replicas.servers):
            raise UserError(
                f"{self.key_variable}: OpenAI wants a key; put it into this environment variable, or name a server of "
                "your own in engines.openai.base_url"
            )
        if not re.fullmatch(r"[!-~]*", key):
            raise UserError(f"{self.key_variable}: what this environment variable holds cannot be a key; mend it")
        return key

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Clients]:
        """A client for each address, closed at the end. None tries again by itself, or has a time-out but ours."""
        from openai import AsyncOpenAI

        key = self.key() or "none"
        async with AsyncExitStack() as stack:
            clients = {}
            for server in self.replicas.servers:
                try:
                    client = AsyncOpenAI(api_key=key, base_url=server.url, max_retries=0, timeout=None)
                except Exception as error:  # a proxy or a certificate in the environment that cannot be used
                    raise _blame_environment(error) from None
                clients[server.url] = await stack.enter_async_context(client)
            yield clients

    async def meet(self, clients: Clients) -> str:
        """Who the servers say that they are (`vllm`, `llamacpp`, ...), or nothing. Those that do not answer are left
        for later. Raises UserError if none answers, or if they are not of one kind."""

        async def attempt() -> str:
            met = await asyncio.gather(*(self._knock(server, clients) for server in self.replicas.servers))
            troubles = [one for one in met if isinstance(one, Trouble)]
            if len(troubles) == len(met):
                raise troubles[0]
            return next(one for one in met if isinstance(one, str))

        try:
            return (await insist(attempt, self.pace, 0, self.retries)).value
        except Trouble as trouble:
            raise self._nobody(trouble) from None

    async def _knock(self, server: Server, clients: Clients) -> str | Trouble:
        """Who a server says that it is, or why it does not answer."""
        try:
            return await self._find_kind(server, clients)
        except Trouble as trouble:
            self.replicas.leave(server, trouble)
            return trouble

    async def _find_kind(self, server: Server, clients: Clients) -> str:
        """Who a server says that it is; it is asked once. One that tells nothing of its models is of no known kind."""
        if server.kind is None:
            try:
                found = "openai" if server.url == OPENAI else _read_owner(await self._send(server, clients, "/models"))
            except Trouble as trouble:
                if trouble.again:
                    raise
                found = ""
            self.replicas.meet(server, found)
        return server.kind or ""

    def _nobody(self, trouble: Trouble) -> UserError:
        """That no server could be asked, and why."""
        servers = self.replicas.servers
        if len(servers) > 1:
            return UserError(
                f"engines.openai.base_url: none of the {len(servers)} addresses serves now ({self.replicas.tell()}); "
                "start one or mend the addresses, and run again: nothing answered is lost"
            )
        key = f"engines.openai.base_url = {servers[0].shown}"
        if trouble.status not in (0, 200):
            return UserError(f"{key}: the server does not serve now ({trouble.fault.why}); try again later")
        return UserError(f"{key}: no server answers there ({trouble.fault.why}); start it or mend the address")

    async def ask(
        self, clients: Clients, path: str, body: Json, understand: Callable[[Json], T], tokens: int
    ) -> Tried[T]:
        """What `understand` makes of the answer; it may raise Trouble too. Raises Trouble when all tries failed, and
        UserError where there is no server any more."""
        moved = 0

        async def attempt() -> T:
            """At one server after another, while it is the server's fault."""
            nonlocal moved
            last: Trouble | None = None
            for server in self.replicas.in_turn():
                moved += last is not None
                try:
                    with server.at_work(tokens):
                        found = await self._ask_one(server, clients, path, body, understand)
                except Trouble as trouble:
                    if not trouble.again or trouble.status == 200:
                        raise
                    self.replicas.leave(server, trouble)
                    last = trouble
                else:
                    server.answered()
                    return found
            assert last is not None, "there is always a server to try"
            raise last

        try:
            done = await insist(attempt, self.pace, tokens, self.retries)
        except Trouble as trouble:
            trouble.retried += moved
            if all(server.trouble and server.trouble.gone for server in self.replicas.servers):
                raise self._nobody(trouble) from None
            raise
        return replace(done, retried=done.retried + moved)

    async def _ask_one(
        self, server: Server, clients: Clients, path: str, body: Json, understand: Callable[[Json], T]
    ) -> T:
        """One try at one server. Raises UserError for what no other try would mend."""
        await self._find_kind(server, clients)
        try:
            reply = await self._send(server, clients, path, self._translate(body))
        except Trouble as trouble:
            if trouble.status == 404:
                hint = "" if re.search(r"/v\d", server.shown) else "; most servers want an address that ends in /v1"
                raise UserError(
                    f"engines.openai: {server.shown}{path} is not there, or not for the model "
                    f"{body['model']}: {trouble.fault.detail}{hint}"
                ) from None
            raise
        try:
            return understand(reply)
        except Trouble as trouble:
            if trouble.fault.spent == Spent():  # It came, so it was billed, whatever is wrong with it.
                billed = replies.read_usage(reply, Spent(calls=1))
                trouble.fault = replace(trouble.fault, spent=billed)
            raise

    def _translate(self, body: Json) -> Json:
        """The body with the server's own names for its fields, without those that it does not take."""
        named = ((self.fields.get(name, name), value) for name, value in body.items())
        return {name: value for name, value in named if name}

    async def _send(self, server: Server, clients: Clients, path: str, body: Json | None = None) -> Json:
        """A body is posted, nothing is got."""
        import httpx2
        import openai

        send = getattr(clients[server.url], "get" if body is None else "post")
        try:
            async with asyncio.timeout(self.timeout):
                # The raw response: the client's own types would let anything pass.
                options = {"cast_to": httpx2.Response} | ({"body": body} if body is not None else {})
                response = await send(path, **options)
        except TimeoutError:
            raise Trouble(
                Fault("timeout", f"no whole answer within {self.timeout:g} s"), again=True, status=0
            ) from None
        except openai.APIStatusError as error:
            raise self._judge(server, error.status_code, error.response) from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            fault = Fault("server error", f"the connection failed or was cut ({cause})")
            raise Trouble(fault, again=True, status=0, gone=cause in NOT_MADE) from None
        except (OverflowError, ExceptionGroup) as error:  # a port that is none, in the address or in a proxy's
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            if not isinstance(error, OverflowError):
                raise
            raise _blame_environment(error) from None
        return replies.parse(response.content, self.key())

    def _judge(self, server: Server, status: int, response: Any) -> Exception:
        """What the user can mend, or the trouble of one request."""
        key, text = self.key(), response.text
        if status == 401:
            said = "refuses the key in it" if key else "wants a key; put it into this environment variable"
            return UserError(f"{self.key_variable}: the server at {server.shown} {said} ({status})")
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
