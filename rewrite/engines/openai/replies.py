"""What OpenAI-compatible servers answer, as plain JSON → numbers and texts, or the `Trouble` that it is.

Servers differ, so both layouts of log-probabilities are read, whichever a server sends: `content`, a list of entries a
token (chat; llama.cpp everywhere), and `top_logprobs`, a dictionary a token (completions). Nothing is taken on trust: a
number that is no log-probability is a fault, and so are digits whose probabilities sum to more than 1.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from rewrite.config import UserError
from rewrite.engines.base import DIGITS, Answer, Fault, Reading
from rewrite.engines.ledger import Spent
from rewrite.engines.openai.pacing import Trouble

Json = dict[str, Any]
SLACK = 1e-3
"""How far rounding may bring a sum of probabilities above 1."""
TOO_LONG = re.compile(r"context.{0,12}(length|size|window)|exceed_context|max_model_len|prompt is too long", re.I)
FILTERED = re.compile(r"content_filter|content_policy|ResponsibleAI|moderation|flagged", re.I)
WHOLE = frozenset({"stop", "stop_sequence", "end_turn", "eos", "eos_token"})
"""The reasons to end that are known to mean that the answer is whole."""
SPENT_UP = re.compile(r"insufficient_quota|billing_hard_limit|credit balance", re.I)


@dataclass(frozen=True)
class Candidate:
    """A token that might have come next; `id` where the server tells it."""

    text: str
    id: int | None
    logprob: float


def parse(body: bytes, key: str) -> Json:
    """The JSON object of an answer. A body that is none may have been cut on its way, so it is worth another try."""
    try:
        reply = json.loads(body)
    except ValueError:
        start = shown(body[:4096].decode("utf-8", "replace"), key)[:60]
        raise Trouble(Fault("malformed", f"the answer is not JSON: {start!r}"), again=True) from None
    if not isinstance(reply, dict):
        raise Trouble(Fault("malformed", "the answer is not a JSON object"), again=True)
    if reply.get("error") and "choices" not in reply:
        # Some gateways say so with status 200; what they refuse once they refuse again.
        raise Trouble(Fault("server error", shown(read_message(json.dumps(reply)), key)[:200]), again=False, status=200)
    return reply


def shown(text: str, key: str) -> str:
    """What a server says, in one line and without the key, which some repeat."""
    return " ".join((text.replace(key, "[key]") if key else text).split())


def read_message(text: str) -> str:
    """The message in the body of an error, or the body itself."""
    try:
        error = json.loads(text)
        error = error.get("error", error)
        message = error.get("message", "") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        return text
    return message if isinstance(message, str) and message else text


def read_choices(reply: Json, count: int) -> list[Json]:
    """The choices in the order of the prompts. Raises Trouble unless there is exactly one for each."""
    choices = reply.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise Trouble(Fault("malformed", "the answer holds no choices"), again=True)
    places = [choice.get("index", 0) for choice in choices]
    if sorted(places, key=str) != sorted(range(count), key=str):
        raise Trouble(Fault("malformed", f"{len(choices)} answers to {count} prompts"), again=True)
    return sorted(choices, key=lambda choice: int(choice.get("index", 0)))


def read_usage(reply: Json, otherwise: Spent) -> Spent:
    """What the server says that a request cost; where it says nothing, `otherwise`."""
    try:
        usage = reply["usage"]
        tokens_in, tokens_out = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        # What a model thought may be billed and be in the total alone.
        tokens_out = max(tokens_out, int(usage.get("total_tokens") or 0) - tokens_in)
    except (KeyError, TypeError, ValueError, OverflowError):
        return otherwise
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    cached = min(cached, tokens_in) if isinstance(cached, int) else 0
    return Spent(otherwise.calls, tokens_in, tokens_out, tokens_in - cached)


def read_text(choice: Json, spent: Spent) -> Answer:
    """The text of a choice. Raises Trouble for a refusal, and where there is no text."""
    refuse_refusals(choice, spent)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is None and isinstance(message, dict) and message.get("reasoning_content"):
        return Answer("", False, spent)  # It was cut within its thought.
    if not isinstance(text, str):
        raise Trouble(Fault("malformed", "the answer holds no text", spent), again=False)
    return Answer(text, choice.get("finish_reason") in WHOLE, spent)


def refuse_refusals(choice: Json, spent: Spent) -> None:
    """Raises Trouble where the model refused, or a filter did for it."""
    message = choice.get("message")
    refusal = message.get("refusal") if isinstance(message, dict) else None
    if refusal:
        raise Trouble(Fault("refusal", " ".join(str(refusal).split())[:200], spent), again=False)
    if choice.get("finish_reason") == "content_filter":
        raise Trouble(Fault("refusal", "the server's content filter", spent), again=False)


def read_slot(choice: Json, ids: Sequence[int] | None, spent: Spent, exact: bool = False) -> Reading | Fault:
    """One slot's reading, or why there is none. The arguments are those of `find_digits`."""
    try:
        refuse_refusals(choice, spent)
    except Trouble as trouble:
        return trouble.fault
    digits = find_digits(choice, ids, exact)
    return replace(digits, spent=spent) if isinstance(digits, Fault) else Reading(digits[None], spent)


def find_digits(choice: Json, ids: Sequence[int] | None, exact: bool = False) -> Float[np.ndarray, " 10"] | Fault:
    """The digits' probabilities as the first token. A digit that is not among the candidates counts 0.

    `ids` are the digits' ids in our tokenizer, where there is one. Raises UserError where the server's tokens are
    others, or where it was asked for `exact` digits and gave something else.
    """
    try:
        candidates = _read_candidates(choice["logprobs"])
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError):
        return Fault("no log-probabilities", "the answer holds none")
    if any(math.isnan(c.logprob) or c.logprob > SLACK for c in candidates):
        return Fault("no log-probabilities", "among them is one that is not a number, or above 0")
    found: dict[int, float] = {}
    for candidate in candidates:
        digit = _which_digit(candidate, ids)
        if digit is not None:
            found.setdefault(digit, math.exp(candidate.logprob))
    if exact and len(found) < len(DIGITS):
        raise UserError(
            "engines.openai.digits: the server was asked for the digits by their token ids and gave other tokens; "
            "it is too old for that (set engines.openai.digits = top), or engines.openai.tokenizer is not its model's"
        )
    if not found:
        return Fault("no log-probabilities", f"no digit among the {len(candidates)} most probable tokens")
    if sum(found.values()) > 1 + SLACK:
        return Fault("no log-probabilities", f"the digits' probabilities sum to {sum(found.values()):.3g}")
    return np.array([found.get(digit, 0.0) for digit in range(len(DIGITS))])


def _read_candidates(logprobs: Any) -> list[Candidate]:
    if logprobs.get("content"):
        entries = logprobs["content"][0]["top_logprobs"]
        return [Candidate(entry["token"] or "", entry.get("id"), _number(entry["logprob"])) for entry in entries]
    return [Candidate(text, None, _number(value)) for text, value in logprobs["top_logprobs"][0].items()]


def _number(value: Any) -> float:
    """Servers write a missing number as null."""
    return math.nan if value is None else float(value)


def _which_digit(candidate: Candidate, ids: Sequence[int] | None) -> int | None:
    """By id where both sides know it, so that a byte token that looks like a digit is not taken for one."""
    if ids is None or candidate.id is None:
        return DIGITS.index(candidate.text) if len(candidate.text) == 1 and candidate.text in DIGITS else None
    if candidate.id not in ids:
        return None
    digit = list(ids).index(candidate.id)
    if candidate.text != DIGITS[digit]:
        raise UserError(
            f"engines.openai.tokenizer: token {candidate.id} is {DIGITS[digit]!r} in it and {candidate.text!r} on the "
            "server; name the tokenizer of the server's model"
        )
    return digit


def judge_status(status: int, text: str, key: str, wait: float | None) -> Trouble:
    """What an answer other than 200, with its body, means for its request."""
    detail = shown(read_message(text), key)[:200]
    if status in (408, 409, 429) or status >= 500:
        return Trouble(Fault("server error", f"{status} {detail}"), again=True, wait=wait, status=status)
    if status == 413 or TOO_LONG.search(text):
        return Trouble(Fault("too long", detail), again=False)
    if FILTERED.search(text):
        return Trouble(Fault("refusal", detail), again=False)
    return Trouble(Fault("server error", f"{status} {detail}"), again=False, status=status)
