"""The openai engine with a tokenizer: slots as lists of prompts of token ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from makers.asking import ask, engine, many_slots, show
from makers.faults import FaultServer, digits_of

from rewrite.config import UserError
from rewrite.engines.base import VOCABULARY, Branches, Fault, Question, Reading
from rewrite.engines.encoding import Encoder
from rewrite.engines.ledger import Spent
from rewrite.engines.openai import Settings

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("key")]


def expected(encoder: Encoder, request: Branches) -> np.ndarray:
    encoded = encoder.branches(request)
    return np.array([digits_of(json.dumps(ids.tolist())) for ids in encoded.prompts()])


@pytest.mark.parametrize("size", [1, 3, 64])
def test_lists_of_prompts(server: FaultServer, tiny_model: Path, size: int) -> None:
    requests = [many_slots(i, 1 + i % 4) for i in range(9)]
    encoder = Encoder(str(tiny_model))
    mine = engine(server, tokenizer=str(tiny_model), list_size=size)
    found = dict(mine.read(requests))
    for index, request in enumerate(requests):
        reading = found[index]
        assert isinstance(reading, Reading)
        np.testing.assert_allclose(reading.digits, expected(encoder, request), rtol=1e-12)
        assert replace_processed(reading.spent) == replace_processed(mine.estimate(request))
    assert max(len(arrival.prompts) for arrival in server.arrivals) == min(size, 21)
    assert sum(len(arrival.prompts) for arrival in server.arrivals) == 21
    assert server.arrivals[0].body["logprobs"] == 20


def replace_processed(spent: Spent) -> tuple[int, int, int]:
    return spent.calls, spent.tokens_in, spent.tokens_out


def test_one_prompt_that_is_too_long_does_not_cost_its_list(server: FaultServer, tiny_model: Path) -> None:
    requests = [many_slots(i, 1) for i in range(8)]
    encoder = Encoder(str(tiny_model))
    ids = json.dumps(next(encoder.branches(requests[5]).prompts()).tolist())
    server.choose = lambda prompt, tries: "too long" if prompt == ids else ""
    found = dict(engine(server, tokenizer=str(tiny_model)).read(requests))
    assert [i for i, outcome in found.items() if isinstance(outcome, Fault)] == [5]
    assert isinstance(found[5], Fault) and found[5].kind == "too long"


def test_one_prompt_that_a_server_refuses_in_its_own_words_does_not_cost_its_list(
    server: FaultServer, tiny_model: Path
) -> None:
    requests = [many_slots(i, 1) for i in range(8)]
    ids = json.dumps(next(Encoder(str(tiny_model)).branches(requests[5]).prompts()).tolist())
    server.choose = lambda prompt, tries: "unknown field" if prompt == ids else ""
    found = dict(engine(server, tokenizer=str(tiny_model)).read(requests))
    assert [i for i, outcome in found.items() if isinstance(outcome, Fault)] == [5]


def test_what_failed_tries_of_a_list_cost_is_booked_once(server: FaultServer, tiny_model: Path) -> None:
    requests = [many_slots(i, 1) for i in range(8)]
    server.choose = lambda prompt, tries: "fewer"
    failed = dict(engine(server, tokenizer=str(tiny_model), retries=0).read(requests))
    server.choose = lambda prompt, tries: ""
    good = dict(engine(server, tokenizer=str(tiny_model)).read(requests))
    assert all(isinstance(outcome, Fault) for outcome in failed.values())
    paid, asked = (sum(outcome.spent.tokens_in for outcome in replies.values()) for replies in (failed, good))
    assert 0 < paid < 2 * asked, "the server counts a little more than we do, not eight times as much"


def test_a_fault_at_one_slot_is_a_fault_of_its_request_alone(server: FaultServer, tiny_model: Path) -> None:
    requests = [many_slots(i) for i in range(6)]
    encoded = Encoder(str(tiny_model)).branches(requests[2])
    ids = json.dumps(list(encoded.prompts())[3].tolist())
    server.choose = lambda prompt, tries: "nan" if prompt == ids else ""
    found = dict(engine(server, tokenizer=str(tiny_model)).read(requests))
    assert {i: outcome.kind for i, outcome in found.items() if isinstance(outcome, Fault)} == {
        2: "no log-probabilities"
    }
    assert found[2].spent.calls == 5


def test_a_tokenizer_of_another_model_is_found_out(server: FaultServer, tiny_model: Path) -> None:
    from rewrite.engines.openai.replies import find_digits

    ids = Encoder(str(tiny_model)).digits.tolist()
    entries = [{"token": "x", "id": ids[3], "logprob": -1.0}]
    with pytest.raises(UserError, match=r"engines\.openai\.tokenizer"):
        find_digits({"logprobs": {"content": [{"top_logprobs": entries}]}}, ids)
    with pytest.raises(UserError, match="by their token ids"):
        find_digits({"logprobs": {"top_logprobs": [{"3": -1.0}]}}, ids, exact=True)


def test_digits_that_are_not_among_the_top_count_zero() -> None:
    from rewrite.engines.openai.replies import find_digits

    found = find_digits({"logprobs": {"top_logprobs": [{"3": np.log(0.5), " 4": -1.0, "12": -3.0}]}}, None)
    np.testing.assert_allclose(found, [0, 0, 0, 0.5, 0, 0, 0, 0, 0, 0])
    none = find_digits({"logprobs": {"top_logprobs": [{" 4": -1.0}]}}, None)
    assert isinstance(none, Fault) and none.kind == "no log-probabilities"
    much = find_digits({"logprobs": {"top_logprobs": [{"3": -0.1, "4": -0.1}]}}, None)
    assert isinstance(much, Fault) and "sum" in much.detail


def test_a_server_like_vllm_is_asked_by_ids(server: FaultServer, tiny_model: Path) -> None:
    server.owner = "vllm"
    mine = engine(server, tokenizer=str(tiny_model))
    assert isinstance(dict(mine.read([many_slots(0)]))[0], Reading)
    body = server.arrivals[0].body
    assert body["logprob_token_ids"] == Encoder(str(tiny_model)).digits.tolist() and body["logprobs"] == 10


def test_what_it_says_of_itself(server: FaultServer, tiny_model: Path) -> None:
    plain, exact = engine(server), engine(server, tokenizer=str(tiny_model), digits="all")
    assert (plain.can.begun, plain.can.logprobs, plain.can.chat) == (False, 20, True)
    assert (exact.can.begun, exact.can.logprobs, exact.can.prompt_logprobs) == (True, VOCABULARY, False)
    assert server.base_url not in show(exact.identity)
    assert {"base_url", "key_variable", "retries", "list_size"} <= Settings.operational <= set(Settings.model_fields)
    assert engine(server, revision="b").identity != engine(server, revision="a").identity
    assert plain.estimate(Question(ask(0).messages, 9)) == Spent(1, 2 + 4 + 2 + 4, 9, 12)
    assert not server.arrivals
