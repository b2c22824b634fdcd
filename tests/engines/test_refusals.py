"""What servers refuse, bill and rename: each paid try is booked, what all requests share stops the run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from makers.asking import ask, engine
from makers.faults import FaultServer

from rewrite.config import UserError
from rewrite.engines.base import Answer, Fault, Question
from rewrite.engines.ledger import Spent
from rewrite.engines.openai import Settings, replies
from rewrite.engines.openai.build import OpenAI
from rewrite.engines.openai.pacing import Trouble
from rewrite.engines.prompting import Message
from rewrite.explainers.judge import list_schema

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("key")]

QUESTION = Question((Message("user", "What is it?"),), 9)
COST = Spent(1, 100, 9, 100)


def choice(**changes: Any) -> dict[str, Any]:
    return {"finish_reason": "stop", "message": {"content": "a dog"}} | changes


@pytest.mark.parametrize("reason", ["abort", "error", "model_length", "max_tokens", "length", None, "insufficient"])
def test_an_answer_is_whole_only_by_a_reason_known_to_mean_so(reason: str | None) -> None:
    assert not replies.read_text(choice(finish_reason=reason), COST).whole
    assert replies.read_text(choice(), COST).whole


def test_what_was_thought_is_billed() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 400}
    assert replies.read_usage({"usage": usage}, COST).tokens_out == 300


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": float("inf"), "completion_tokens": 5}, {"prompt_tokens": None}, [], 3]
)
def test_a_usage_that_is_none_is_taken_for_the_estimate(usage: object) -> None:
    assert replies.read_usage({"usage": usage}, COST) == COST


def test_a_token_that_is_null_is_no_digit() -> None:
    logprobs = {"content": [{"top_logprobs": [{"token": None, "logprob": -1}, {"token": "7", "logprob": -2}]}]}
    digits = replies.find_digits({"logprobs": logprobs}, None)
    assert not isinstance(digits, Fault) and digits[7] > 0 and digits.sum() == digits[7]


def test_an_error_in_an_answer_of_status_200_is_not_tried_again() -> None:
    with pytest.raises(Trouble) as caught:
        replies.parse(json.dumps({"error": {"message": "no such voice"}}).encode(), "")
    assert not caught.value.again and "no such voice" in caught.value.fault.detail


def test_no_text_is_not_tried_again_and_is_paid_for() -> None:
    with pytest.raises(Trouble) as caught:
        replies.read_text(choice(message={"content": None}), COST)
    assert not caught.value.again and caught.value.fault.spent == COST


def test_a_moderated_input_stays_with_its_request() -> None:
    trouble = replies.judge_status(403, "flagged by moderation", "", None)
    assert trouble.fault.kind == "refusal" and not trouble.again


def test_every_paid_try_is_booked(server: FaultServer) -> None:
    """Two billed answers that hold the wrong number of choices, then a good one."""
    server.choose = lambda prompt, tries: "fewer" if tries < 2 else ""
    ((_, good),) = engine(server, retries=3).generate([QUESTION])
    assert isinstance(good, Answer) and good.spent.retried == 2 and good.spent.calls == 1
    ((_, once),) = engine(server).generate([QUESTION])
    assert isinstance(once, Answer) and once.spent.tokens_in > 0
    assert (good.spent.tokens_in, good.spent.tokens_out) == (
        3 * once.spent.tokens_in,
        2 * 0 + 3 * once.spent.tokens_out,
    )


def test_a_request_that_was_billed_and_failed_is_booked(server: FaultServer) -> None:
    server.choose = lambda prompt, tries: "fewer"
    ((_, failed),) = engine(server, retries=2).generate([QUESTION])
    server.choose = lambda prompt, tries: ""
    ((_, once),) = engine(server).generate([QUESTION])
    assert isinstance(failed, Fault) and isinstance(once, Answer)
    assert failed.spent.tokens_in == 3 * once.spent.tokens_in


def test_what_all_requests_share_stops_the_run_after_the_first_few(server: FaultServer) -> None:
    server.choose = lambda prompt, tries: "unknown field"
    mine = engine(server, retries=6, concurrency=1)
    with pytest.raises(UserError, match=r"first 5 requests all failed: .*frequency_bias") as caught:
        list(mine.read([ask(number) for number in range(40)]))
    assert "engines.openai.fields" in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.arrivals) == 5


def test_a_refusal_after_an_answer_is_that_requests_own(server: FaultServer) -> None:
    server.choose = lambda prompt, tries: "" if "text 0" in prompt else "unknown field"
    found = dict(engine(server, concurrency=1).read([ask(number) for number in range(12)]))
    assert len(found) == 12 and sum(isinstance(outcome, Fault) for outcome in found.values()) == 11


def test_request_fields_are_renamed_and_left_out(server: FaultServer) -> None:
    mine = engine(server, fields=["max_tokens=max_completion_tokens", "seed="])
    list(mine.generate([QUESTION]))
    body = server.arrivals[-1].body
    assert body["max_completion_tokens"] == 9 and not {"max_tokens", "seed"} & set(body)


def test_fields_that_are_none_are_refused() -> None:
    from pydantic import ValidationError

    from rewrite.engines.openai import Settings

    with pytest.raises(ValidationError, match="name=other"):
        Settings(fields=("max tokens",))


def test_a_proxy_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch, server: FaultServer) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:port")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:port")
    with pytest.raises(UserError, match=r"engines.openai: no connection can be made .*HTTP_PROXY") as caught:
        list(engine(server).read([ask(0)]))
    assert "\n" not in str(caught.value)


def test_an_answer_cut_within_its_thought_is_truncated() -> None:
    message = {"content": None, "reasoning_content": "Let me see: a dog"}
    answer = replies.read_text(choice(message=message, finish_reason="length"), COST)
    assert (answer.text, answer.whole) == ("", False)


def test_options_of_the_chat_template_are_sent(server: FaultServer) -> None:
    mine = engine(server, template=["enable_thinking=false", "effort=low"])
    list(mine.generate([QUESTION]))
    assert server.arrivals[-1].body["chat_template_kwargs"] == {"enable_thinking": False, "effort": "low"}
    assert mine.identity != engine(server).identity


def test_a_list_is_held_to_as_such_and_in_an_object_where_only_objects_are_taken(server: FaultServer) -> None:
    """As an object a small model would never begin it: it writes blanks until its room is full (llama.cpp)."""
    schema = list_schema(3)
    question = Question(ask(1).messages, 30, schema=schema)
    list(engine(server).generate([question]))
    assert server.arrivals[0].body["response_format"]["json_schema"]["schema"] == json.loads(schema)
    _, body = OpenAI("gpt", Settings())._body(question)
    held = body["response_format"]["json_schema"]["schema"]
    assert held["type"] == "object" and held["properties"] == {"answer": json.loads(schema)}
    assert held["required"] == ["answer"] and held["additionalProperties"] is False
