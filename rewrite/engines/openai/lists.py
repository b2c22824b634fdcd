"""Requests with slots → lists of prompts for a server, and what comes back → requests again.

A slot is read by a prompt that ends there, of which one token is asked. The prompts of one request stand side by side,
so that a server with a prefix cache meets their common beginning while it is warm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rewrite.engines import base
from rewrite.engines.base import Branches, Fault, Reading
from rewrite.engines.encoding import Encoder
from rewrite.engines.ledger import Spent


@dataclass(frozen=True)
class Prompt:
    """One slot as a prompt; `of` is how many slots its request has."""

    request: int
    slot: int
    of: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Read:
    """What came of one prompt: a reading of one slot, or why there is none."""

    prompt: Prompt
    outcome: Reading | Fault


def cut(encoder: Encoder, requests: Sequence[Branches], size: int) -> Iterator[list[Prompt]]:
    """Lists of at most `size` prompts, made as they are needed."""
    prompts: list[Prompt] = []
    for index, request in enumerate(requests):
        encoded = encoder.branches(request)
        for slot, ids in enumerate(encoded.prompts()):
            prompts.append(Prompt(index, slot, len(encoded.ends), tuple(ids.tolist())))
            if len(prompts) == size:
                yield prompts
                prompts = []
    if prompts:
        yield prompts


def share(prompts: Sequence[Prompt], usage: Spent) -> list[Spent]:
    """A list's usage, prompt by prompt.

    Prompt tokens are counted by us, for llama.cpp tells only those of the list's first prompt. Tokens that the server
    reused are taken off the first prompts, so that their sum is right; vLLM tells only those of the last prompt, so
    `processed` is at most what is said.
    """
    known = usage.tokens_in == sum(len(p.ids) for p in prompts)
    reused = usage.tokens_in - usage.processed if known else 0
    shares = []
    for prompt in prompts:
        tokens = len(prompt.ids)
        mine = min(reused, tokens)
        reused -= mine
        shares.append(Spent(1, tokens, 1, tokens - mine))
    return shares


def join(reads: Iterable[Read]) -> Iterator[tuple[int, Reading | Fault]]:
    """Each request, with its index, as soon as all of its slots are there."""
    parts: dict[int, dict[int, Reading | Fault]] = defaultdict(dict)
    for read in reads:
        slots = parts[read.prompt.request]
        slots[read.prompt.slot] = read.outcome
        if len(slots) == read.prompt.of:
            del parts[read.prompt.request]
            yield read.prompt.request, base.join([slots[slot] for slot in sorted(slots)])
