"""Requests to an engine of the openai kind, and the engine that a test asks through."""

from __future__ import annotations

import json
from typing import Any

from makers.faults import FaultServer

from rewrite.engines.base import Branches
from rewrite.engines.openai import Settings
from rewrite.engines.openai.build import OpenAI, build
from rewrite.engines.prompting import Message

MARKER = "sk-5f1c9e-never-shown"
"""The key: it may reach the server, and nothing else."""


def ask(number: int) -> Branches:
    return Branches((Message("system", "Rate it."), Message("user", f"text {number}")))


def prompt_of(request: Branches) -> str:
    return json.dumps([{"role": m.role, "content": m.content} for m in request.messages])


def engine(server: FaultServer, **settings: Any) -> OpenAI:
    return build("small", Settings.model_validate({"base_url": server.base_url, "timeout": 5, "retries": 0} | settings))


def many_slots(number: int, slots: int = 5) -> Branches:
    pieces = tuple(f" word{number}{i}" for i in range(slots))
    return Branches((Message("system", "Rate it."), Message("user", f"text {number}")), pieces, " => ")


def show(*things: object) -> str:
    return " ".join(f"{thing!r} {thing}" for thing in things)
