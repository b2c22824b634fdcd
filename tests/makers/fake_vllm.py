"""What vLLM's `LLM` would be to the engine, where none is installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np


class FakeLlm:
    """Every digit at 1/20; prompts of a list are refused or break as told."""

    model_config = SimpleNamespace(max_model_len=4096)

    def __init__(self) -> None:
        self.lists: list[list[list[int]]] = []
        self.left = 0
        self.llm_engine = SimpleNamespace(has_unfinished_requests=lambda: self.left > 0)
        self.refused: list[int] = []
        self.breaks = False
        self.logprob = float(np.log(0.05))
        self.known = 10

    def generate(self, prompts: list[dict[str, list[int]]], params: list[Any], use_tqdm: bool) -> list[Any]:
        self.lists.append([prompt["prompt_token_ids"] for prompt in prompts])
        if self.breaks:
            self.left = len(prompts)
            raise RuntimeError("out of memory\nTraceback")
        if any(prompt["prompt_token_ids"] == self.refused for prompt in prompts):
            raise ValueError("refused")
        return [self._output(prompt["prompt_token_ids"], param) for prompt, param in zip(prompts, params, strict=True)]

    def _output(self, ids: list[int], params: Any) -> Any:
        known = getattr(params, "logprob_token_ids", [])[: self.known]
        logprobs = [{token: SimpleNamespace(logprob=self.logprob) for token in known}]
        made = SimpleNamespace(token_ids=[5], logprobs=logprobs, text="yes", finish_reason="stop")
        return SimpleNamespace(prompt_token_ids=ids, num_cached_tokens=None, outputs=[made])
