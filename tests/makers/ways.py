"""Ways to one language model: each engine of the folder, opened as a user opens it, and what the model says by itself.

`WAYS` opens an engine by its name, with a model's folder and a folder to work in. `Reference` is the model and its
tokenizer as the library gives them, with nothing of ours between: whole prompts, and a forward pass for each.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float

from rewrite.engines.base import DIGITS, Branches, Engine, Fault, Question, Reading
from rewrite.engines.prompting import Message
from rewrite.run import plugins

SERVED = "tiny"
"""What both servers call their model."""


@dataclass(frozen=True)
class Way:
    """An engine with a model, and how near its probabilities come to the reference with the tiny model."""

    name: str
    """The engine, as the config names it."""
    asked: str
    """The model, as the config names it."""
    model: Path
    tolerance: float
    table: dict[str, Any] = field(default_factory=dict)
    """The engine's settings."""

    @cached_property
    def engine(self) -> Engine:
        return build_engine(self.name, self.asked, **self.table)


def build_engine(name: str, model: str, **table: Any) -> Engine:
    built: Engine = plugins.load("engines", name).build(model, plugins.settings("engines", name, table))
    return built


@contextmanager
def _with_transformers(model: Path, work: Path) -> Iterator[Way]:
    yield Way("transformers", str(model), model, 1e-3)


@contextmanager
def _with_openai(model: Path, work: Path) -> Iterator[Way]:
    """Through HTTP, on a server of another project."""
    from makers.servers import llama_server

    for module in ("xllamacpp", "gguf"):
        pytest.importorskip(module, reason=f"{module} is absent: llama.cpp's server needs it")
    with llama_server(model, work) as url:
        yield Way("openai", SERVED, model, 2e-2, _table(url, model))


@contextmanager
def _with_vllm(model: Path, work: Path) -> Iterator[Way]:
    _need_vllm()
    from rewrite.engines.vllm.loading import unload

    try:
        yield Way("vllm", str(model), model, 1e-3, {"max_model_len": 4096})
    finally:
        unload()  # The next one may be a server, which wants the memory.


@contextmanager
def _with_vllm_served(model: Path, work: Path) -> Iterator[Way]:
    _need_vllm()
    from makers.vllm_server import vllm_server

    with vllm_server(model, work) as url:
        yield Way("openai", SERVED, model, 1e-3, _table(url, model))


def _table(url: str, model: Path) -> dict[str, Any]:
    return {"base_url": url, "tokenizer": str(model), "retries": 1}


def _need_vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is absent: it needs an environment of its own, see make test-vllm")


WAYS: dict[str, Callable[[Path, Path], AbstractContextManager[Way]]] = {
    "transformers": _with_transformers,
    "openai": _with_openai,
    "vllm": _with_vllm,
    "openai on vllm serve": _with_vllm_served,
}


def read(engine: Engine, requests: list[Branches]) -> list[Reading]:
    """The readings in the order of the requests, each of them there once."""
    found = list(engine.read(requests))
    assert sorted(number for number, _ in found) == list(range(len(requests)))
    faults = [reply.why for _, reply in found if isinstance(reply, Fault)]
    assert not faults, faults
    return [reply for _, reply in sorted(found, key=lambda pair: pair[0]) if isinstance(reply, Reading)]


class Reference:
    """The model, in float32, and its tokenizer as the library gives them."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.folder = folder
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    @cached_property
    def model(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()

    def render(self, messages: tuple[Message, ...]) -> str:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        text: str = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return text

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def prompts(self, request: Branches | Question) -> list[list[int]]:
        """Every prompt that a request is, whole: one for each branch, or the question."""
        if isinstance(request, Question):
            return [self.ids(self.render(request.messages)) + self.ids(request.answer)]
        heads, tail = self._heads(request)
        return [head + tail for head in heads]

    def passes(self, request: Branches | Question) -> list[list[int]]:
        """The same where a trunk is read once, with all of its branches."""
        if isinstance(request, Question):
            return self.prompts(request)
        heads, tail = self._heads(request)
        return [heads[-1] + tail * len(heads)]

    def _heads(self, request: Branches) -> tuple[list[list[int]], list[int]]:
        """The trunk up to each branch, and what every branch is."""
        text, last = self.render(request.messages), request.messages[-1].content
        # What the template puts between the last message and the answer stands behind each branch of its own turn.
        closing = text.rpartition(last)[2] if request.turn else ""
        head, heads = self.ids(text.removesuffix(closing)), []
        for number, piece in enumerate(request.pieces):
            head = head + self.ids(piece)
            if number not in request.silent:
                heads.append(head)
        return heads, self.ids(closing) + self.ids(request.branch)

    def digits(self, request: Branches) -> Float[np.ndarray, "branch 10"]:
        """Branch by branch, a whole forward each."""
        import torch

        digits = [self.ids(digit)[0] for digit in DIGITS]
        rows = []
        for ids in self.prompts(request):
            with torch.no_grad():
                logits = self.model(torch.tensor([ids]), use_cache=False).logits[0, -1].double()
            rows.append(logits.softmax(-1)[digits].numpy())
        return np.stack(rows)

    def greedy(self, request: Question) -> str:
        import torch

        (ids,) = self.prompts(request)
        prompt = len(ids)
        for _ in range(request.max_tokens):
            with torch.no_grad():
                ids.append(int(self.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        text: str = self.tokenizer.decode(ids[prompt:])
        return text
