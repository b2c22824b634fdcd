"""Any server that speaks OpenAI's language: OpenAI itself, vLLM's server, llama.cpp's, and most others.

With `tokenizer` (the tokenizer of the server's model), prompts go as token ids to /completions:

1. Every slot is a prompt of its own, of which one token is asked and only its log-probabilities are kept. Prompts go in
   lists, slots of one request side by side, so that a server with a prefix cache computes their common beginning once.
2. The digits are found exactly where the server can: by their token ids (vLLM), or among the log-probabilities of the
   whole vocabulary (llama.cpp). Elsewhere they are looked for among the most probable tokens; a digit that is not there
   counts 0 and its mass stays outside the digits. If there is none at all, that is a fault.
3. A server whose tokens are not those of our tokenizer is found out by the digits' texts, and refused.

Without it, messages go as text to /chat/completions, and one slot at the beginning of the answer can be read.

Reading asks for temperature 1, so that it does not matter whether a server's log-probabilities heed the temperature.
What happens when a server is busy (429) or fails, how requests are paced and tried again, stands in `pacing.py`,
which of several is asked in `replicas.py`, the connections in `remote.py`, what answers mean in `replies.py`, slots as
lists of prompts in `lists.py`.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from rewrite.config import Place, Section


class Settings(Section):
    operational: ClassVar[frozenset[str]] = frozenset(
        {"base_url", "key_variable", "list_size", "concurrency", "requests_per_minute", "tokens_per_minute"}
        | {"timeout", "retries"}
    )

    base_url: str | tuple[str, ...] = ""
    """Address of the server, with its /v1; empty for OpenAI's own. Several, with commas between them or as a list, are
    replicas that serve the same model in the same way: the least busy is asked first, one that fails is left alone and
    tried again later."""
    key_variable: str = "OPENAI_API_KEY"
    """NAME of the environment variable that holds the key, which is sent to every address. A server of one's own may do
    without: the variable need not be set."""
    model: str = ""
    """The model's name on the server; empty for the name that the explainer, simulator or scorer gives."""
    revision: str = ""
    """A label of the server's model, to be changed when the model is: answers are kept apart by it."""
    tokenizer: Place = ""
    """The tokenizer of the server's model, a folder or hub name: prompts then go as token ids, and slots within an
    answer can be read. Empty sends text, for servers that chat only, as OpenAI's."""
    digits: Literal["auto", "ids", "all", "top"] = "auto"
    """How the digits are asked for where there is a tokenizer: `ids` by token id, exact (vLLM); `all` by the whole
    vocabulary, exact but slow where it is large (llama.cpp); `top` among the most probable tokens; `auto` asks the
    server what it is: ids on vLLM, all on llama.cpp, top elsewhere."""
    logprobs: int = Field(20, ge=0)
    """Most probable tokens asked for where digits are not asked for exactly [tokens]; 0 where the server gives none."""
    json_schema: bool = True
    """The server holds answers to a JSON schema, as OpenAI, vLLM and llama.cpp do."""
    list_size: int = Field(64, ge=1)
    """Prompts of token ids in one request [prompts]."""
    concurrency: int = Field(16, ge=1)
    """Requests at work at once, at all addresses together [requests]."""
    requests_per_minute: int = Field(0, ge=0)
    """Limit of all addresses together, a list counted as one [requests a minute]; 0 is none."""
    tokens_per_minute: int = Field(0, ge=0)
    """Limit of all addresses together, prompts and longest answers [tokens a minute]; 0 is none."""
    template: tuple[str, ...] = ()
    """Options of the model's chat template, as `enable_thinking=false`: used by the tokenizer, or sent as
    `chat_template_kwargs`, which vLLM's server and llama.cpp's take."""
    fields: tuple[str, ...] = ()
    """Request fields that the server knows by another name, or not at all: `max_tokens=max_completion_tokens` renames,
    `seed=` leaves out."""
    timeout: float = Field(120.0, gt=0)
    """Longest wait for an answer, from sending to its last byte [s]."""
    retries: int = Field(6, ge=0)
    """Further tries of a request that met a busy or broken server, before it counts as failed [tries]; going on to
    another address at once is none."""

    @field_validator("base_url")
    @classmethod
    def _are_addresses(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        urls = _split(value)
        if value and ("" in urls or len(set(urls)) < len(urls)):
            raise ValueError("write each address once, with one comma between two")
        return value

    @field_validator("key_variable")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        """Refused here, before anything of the config is written anywhere."""
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
            raise ValueError("write the NAME of an environment variable, in capitals, never a key")
        return value

    @field_validator("fields")
    @classmethod
    def _are_pairs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pair in value:
            if not re.fullmatch(r"[a-z_]+=[a-z_]*", pair):
                raise ValueError(f"write {pair!r} as name=other, or name= to leave a field out")
        return value

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address; none for OpenAI's own."""
        return _split(self.base_url) if self.base_url else ()

    @property
    def renamed(self) -> dict[str, str]:
        """Request fields by the server's own name, empty for those that it does not take."""
        return dict((name, other) for name, _, other in (pair.partition("=") for pair in self.fields))


def _split(addresses: str | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(url.strip() for url in (addresses.split(",") if isinstance(addresses, str) else addresses))
