"""The openai engine against a real llama.cpp server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.asking import ask, many_slots
from makers.faults import prompts_of
from makers.servers import counting_proxy, llama_server

from rewrite.engines.base import Answer, Branches, Fault, Question, Reading
from rewrite.engines.encoding import Encoder
from rewrite.engines.openai import Settings
from rewrite.engines.openai.build import OpenAI, build
from rewrite.engines.prompting import Message

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("key")]


@pytest.fixture(scope="module")
def llama(terse_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with llama_server(terse_model, tmp_path_factory.mktemp("llama")) as url:
        yield url


def real(url: str, **settings: Any) -> OpenAI:
    return build("tiny", Settings.model_validate({"base_url": url, "retries": 0, "timeout": 60} | settings))


def digits_by_transformers(folder: Path, requests: Sequence[Branches]) -> list[np.ndarray]:
    import torch
    from transformers import AutoModelForCausalLM

    model, encoder = AutoModelForCausalLM.from_pretrained(folder).float().eval(), Encoder(str(folder))
    rows = []
    for request in requests:
        encoded = encoder.branches(request)
        with torch.no_grad():
            logits = torch.stack([model(torch.from_numpy(ids)[None]).logits[0, -1] for ids in encoded.prompts()])
        rows.append(torch.softmax(logits, -1)[:, encoder.digits].numpy())
    return rows


def test_llama_cpp_agrees_with_transformers(llama: str, terse_model: Path) -> None:
    requests = [many_slots(i, 6) for i in range(4)]
    found = dict(real(llama, tokenizer=str(terse_model)).read(requests))
    alone = dict(real(llama, tokenizer=str(terse_model), concurrency=1, list_size=1).read(requests))
    for index, theirs in enumerate(digits_by_transformers(terse_model, requests)):
        ours, again = found[index], alone[index]
        assert isinstance(ours, Reading) and isinstance(again, Reading)
        assert ours.digits.min() > 0
        shares = ours.digits / ours.digits.sum(1, keepdims=True)
        np.testing.assert_allclose(shares, theirs / theirs.sum(1, keepdims=True), atol=1e-3)  # 1e-6 was seen.
        np.testing.assert_allclose(ours.digits, theirs, rtol=1e-2)
        np.testing.assert_allclose(again.digits, ours.digits, rtol=1e-2)


def test_llama_cpp_chats(llama: str, terse_model: Path) -> None:
    question = Question(ask(0).messages, 12)
    by_text = dict(real(llama).generate([question, question]))
    assert by_text[0] == by_text[1]
    assert isinstance(by_text[0], Answer) and by_text[0].text and not by_text[0].whole
    assert by_text[0].spent.tokens_out == 12
    by_ids = dict(real(llama, tokenizer=str(terse_model)).generate([question, Question(ask(0).messages, 12, "an ")]))
    assert isinstance(by_ids[0], Answer) and isinstance(by_ids[1], Answer)
    assert by_ids[0].text and by_ids[1].text and by_ids[0].text != by_ids[1].text


@pytest.mark.parametrize("by_ids", [False, True])
def test_llama_cpp_holds_to_a_schema(llama: str, terse_model: Path, by_ids: bool) -> None:
    schema = json.dumps({"type": "array", "items": {"enum": [1, 2]}, "minItems": 3, "maxItems": 3})
    mine = real(llama, **({"tokenizer": str(terse_model)} if by_ids else {}))
    ((_, answer),) = mine.generate([Question(ask(0).messages, 400, schema=schema, temperature=1.0, seed=1)])
    assert isinstance(answer, Answer) and answer.whole
    assert len(json.loads(answer.text)) == 3 and set(json.loads(answer.text)) <= {1, 2}


def test_llama_cpp_reads_text_at_the_beginning_of_an_answer(tiny_model: Path, tmp_path: Path) -> None:
    with llama_server(tiny_model, tmp_path) as url:
        ((_, few),) = real(url).read([ask(0)])
        ((_, whole),) = real(url, logprobs=4096).read([ask(0)])
    assert isinstance(few, Fault) and few.kind == "no log-probabilities"  # A model of random weights: no digit on top.
    assert isinstance(whole, Reading) and whole.digits.min() > 0 and whole.digits.sum() < 1


def test_prompts_too_long_for_llama_cpp(llama: str, terse_model: Path) -> None:
    long = Branches((Message("user", "word " * 6000),))
    found = dict(real(llama, tokenizer=str(terse_model)).read([ask(0), long, ask(1)]))
    assert isinstance(found[1], Fault) and found[1].kind == "too long"
    assert isinstance(found[0], Reading) and isinstance(found[2], Reading)


def test_the_proxy_counts_every_prompt_once(llama: str, terse_model: Path) -> None:
    requests = [many_slots(i, 3) for i in range(4)]
    with counting_proxy(llama) as counts:
        found = dict(real(counts.base_url, tokenizer=str(terse_model), list_size=5).read(requests))
        list(real(counts.base_url).generate([Question(ask(0).messages, 2)]))
    assert all(isinstance(outcome, Reading) for outcome in found.values())
    assert counts.total == len(counts.prompts) == 13
    assert counts.requests == 4 and counts.flying == 0
    assert prompts_of({"prompt": [1, 2]}) == ["[1, 2]"]
