"""A server that speaks OpenAI's language over a real socket, answers by the hash of the prompt, and fails when told to.

- A prompt's digits are `digits_of(prompt)`: the same for the same prompt, whoever asks, in whatever list.
- `choose(prompt, tries)` names the fault of a prompt at its first, second, ... try (0, 1, ...), or "" for none. Faults
  of a whole answer strike the request, those of a choice only that prompt of a list.
- Everything that arrives is written down with its time, so that tests can look at what was done instead of sleeping.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

WHOLE = ("too many", "broken", "hang", "cut", "truncated", "html", "fewer")
"""Faults of a whole answer."""
SINGLE = ("no logprobs", "nan", "refusal")
"""Faults of one prompt of a list."""
PLAIN = {
    "too many": (429, "slow down"),
    "broken": (500, "out of order, dear KEY"),
    "too long": (400, "This model's maximum context length is 4096 tokens."),
    "unknown field": (400, "unknown field: frequency_bias"),
    "wrong key": (401, "no such key: KEY"),
    "unknown model": (404, "the model does not exist"),
    "no money": (429, "insufficient_quota"),
}
"""Faults that are a status and a message, which may show the key as some servers do."""
HANG = 30.0
"""Longest that a hanging answer hangs [s]; it ends with the server."""

Choose = Callable[[str, int], str]


def digits_of(prompt: str) -> np.ndarray:
    """The ten probabilities that the server gives for a prompt (its messages or ids as JSON); 0.9 in all."""
    raw = np.frombuffer(hashlib.sha256(prompt.encode()).digest()[:10], dtype=np.uint8) + 1.0
    return 0.9 * raw / raw.sum()


def answer_of(prompt: str) -> str:
    """The text that the server answers to a question."""
    return "answer " + hashlib.sha256(prompt.encode()).hexdigest()[:8]


def at_random(share: float, faults: Sequence[str] = (*WHOLE, *SINGLE), seed: int = 0) -> Choose:
    """A share of all tries fails, each with one of `faults`, drawn by hash: the same in every run."""

    def choose(prompt: str, tries: int) -> str:
        draw = int.from_bytes(hashlib.sha256(f"{seed} {tries} {prompt}".encode()).digest()[:8], "big")
        return faults[draw % len(faults)] if (draw >> 8) % 10_000 < share * 10_000 else ""

    return choose


@dataclass(frozen=True)
class Arrival:
    """A request as it came in."""

    at: float
    """Monotonic time [s]."""
    prompts: tuple[str, ...]
    body: dict[str, Any]
    key: str
    fault: str


@dataclass
class FaultServer:
    """A running server; `choose`, `retry_after` (empty: none), `owner` and `busy` may be changed between requests."""

    base_url: str = ""
    choose: Choose = lambda prompt, tries: ""
    answer: Callable[[str], str] = answer_of
    retry_after: str = "0"
    owner: str = "faults"
    busy: bool = False
    """Answers 429 when it is asked for its models."""
    arrivals: list[Arrival] = field(default_factory=list)
    at_once: int = 0
    """Most requests at work at the same time."""
    tries: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)
    _busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrive(self, body: dict[str, Any], key: str) -> tuple[tuple[str, ...], list[str]]:
        """Note a request: its prompts, and the fault of each at this try."""
        prompts = tuple(prompts_of(body))
        with self._lock:
            faults = [self.choose(prompt, self.tries[prompt]) for prompt in prompts]
            self.tries.update(prompts)
            self.arrivals.append(Arrival(time.monotonic(), prompts, body, key, next(filter(None, faults), "")))
            self._busy += 1
            self.at_once = max(self.at_once, self._busy)
        return prompts, faults

    def leave(self) -> None:
        """The end of a request that had arrived."""
        with self._lock:
            self._busy -= 1


def prompts_of(body: dict[str, Any]) -> list[str]:
    """The prompts of a request: one of a chat, one or a list of a completion."""
    if "messages" in body:
        return [json.dumps(body["messages"])]
    prompt = body["prompt"]
    many = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], list | str)
    return [json.dumps(one) for one in (prompt if many else [prompt])]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FaultServer

    def log_message(self, *_: object) -> None:
        """Nothing: what arrived stands in the state."""

    def do_GET(self) -> None:
        if self.state.busy:
            self._send(429, json.dumps({"error": {"message": "slow down"}}))
            return
        self._send(200, json.dumps({"object": "list", "data": [{"id": "fake", "owned_by": self.state.owner}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompts, faults = self.state.arrive(body, self.headers.get("Authorization", ""))
        try:
            whole = next((f for f in faults if f and f not in SINGLE), "")
            reply = json.dumps(self._reply(body, prompts, faults))
            if whole:
                self._fail(whole, reply)
            else:
                self._send(200, reply)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.state.leave()

    def _send(self, status: int, text: str, kind: str = "application/json", **headers: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, fault: str, reply: str) -> None:
        if fault in PLAIN:
            status, message = PLAIN[fault]
            message = message.replace("KEY", self.headers.get("Authorization", ""))
            headers = {"Retry_After": self.state.retry_after} if fault == "too many" and self.state.retry_after else {}
            self._send(status, json.dumps({"error": {"message": message}}), **headers)
            return
        match fault:
            case "hang":
                self.state.over.wait(HANG)
                self.close_connection = True
            case "cut":
                self.send_response(200)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply[: len(reply) // 2].encode())
                self.close_connection = True
            case "truncated":
                self._send(200, reply[: len(reply) // 2])
            case "html":
                self._send(200, f"<html>{self.headers.get('Authorization')}</html>", kind="text/html")
            case "fewer":
                tree = json.loads(reply)
                self._send(200, json.dumps({**tree, "choices": tree["choices"][:-1]}))
            case _:
                raise ValueError(f"no such fault: {fault}")

    def _reply(self, body: dict[str, Any], prompts: Sequence[str], faults: Sequence[str]) -> dict[str, Any]:
        chat = "messages" in body
        reading = bool(body.get("logprobs"))
        choices = [
            self._choice(index, prompt, fault, chat, reading)
            for index, (prompt, fault) in enumerate(zip(prompts, faults, strict=True))
        ]
        tokens = sum(max(1, len(prompt) // 4) for prompt in prompts)
        usage = {"prompt_tokens": tokens, "completion_tokens": len(prompts), "total_tokens": tokens + len(prompts)}
        return {"object": "reply", "model": body.get("model"), "choices": choices, "usage": usage}

    def _choice(self, index: int, prompt: str, fault: str, chat: bool, reading: bool) -> dict[str, Any]:
        table = {str(digit): float(np.log(p)) for digit, p in enumerate(digits_of(prompt))} | {
            " the": float(np.log(0.1))
        }
        if fault == "nan":
            table["3"] = float("nan")
        text = "7" if reading else self.state.answer(prompt)
        choice: dict[str, Any] = {"index": index, "finish_reason": "length" if reading else "stop", "logprobs": None}
        if chat:
            entries = [{"token": token, "logprob": value} for token, value in table.items()]
            shown = {"content": [{"token": text, "logprob": table["7"], "top_logprobs": entries}]}
            choice["message"] = {"role": "assistant", "content": text}
        else:
            shown = {"tokens": [text], "token_logprobs": [table["7"]], "top_logprobs": [table]}
            choice["text"] = text
        if reading and fault != "no logprobs":
            choice["logprobs"] = shown
        if fault == "refusal":
            choice["finish_reason"] = "content_filter"
            if chat:
                choice["message"] = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
        return choice


class LoopbackServer(ThreadingHTTPServer):
    """A server whose threads do not outlive the tests, and that many may knock at together."""

    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on a free port of the loopback, which ends with the block."""
    server = LoopbackServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def fault_server(
    choose: Choose = lambda prompt, tries: "", answer: Callable[[str], str] = answer_of
) -> Iterator[FaultServer]:
    """A server on a free port of the loopback, and its state."""
    state = FaultServer(choose=choose, answer=answer)
    handler = type("Handler", (_Handler,), {"state": state})
    with serving(handler) as address:
        state.base_url = f"{address}/v1"
        try:
            yield state
        finally:
            state.over.set()
