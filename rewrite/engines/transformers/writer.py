"""Questions → answers with `model.generate`, in batches padded on the left.

At a temperature T the next token is the largest of logits / T + Gumbel noise, which is a draw from softmax(logits / T)
(Gumbel 1954; Maddison et al. 2014). Each request draws its noise from its own seed, so that its answer does not depend
on what stands beside it in the batch. An answer ends at its own longest length, at a token that ends the model's turn
or at one of its stop texts; what the batch goes on to write after that is cut off. The sampling defaults that a model
brings along (top-k, penalties) are left out: what a request does not ask for is not done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from rewrite.engines.base import Answer, Question
from rewrite.engines.encoding import Encoder
from rewrite.engines.ledger import Spent


@dataclass(frozen=True)
class Asked:
    """A question and its prompt."""

    number: int
    question: Question
    ids: Int[np.ndarray, " token"]


class Writer:
    """A model and its tokenizer."""

    def __init__(self, model: Any, encoder: Encoder) -> None:
        own = model.generation_config.eos_token_id
        ends = own if isinstance(own, list) else [own]
        self.model, self.encoder = model, encoder
        self.ends = frozenset({*ends, encoder.tokenizer.eos_token_id} - {None})
        # What is unset in the config of a call is taken from here; nothing is to be taken.
        model.generation_config = _greedy()

    def write(self, asked: Sequence[Asked]) -> list[Answer]:
        """The answers to a batch of questions."""
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        longest = max(len(one.ids) for one in asked)
        ids, mask = np.zeros((2, len(asked), longest), dtype=np.int64)
        for row, one in enumerate(asked):
            ids[row, longest - len(one.ids) :] = one.ids
            mask[row, longest - len(one.ids) :] = 1
        ends = _Ends(asked, longest, self.encoder, self.ends)
        with torch.inference_mode():
            written = self.model.generate(
                torch.from_numpy(ids).to(self.model.device),
                attention_mask=torch.from_numpy(mask).to(self.model.device),
                generation_config=_greedy(max(one.question.max_tokens for one in asked)),
                logits_processor=LogitsProcessorList([_Noise(asked)]),
                stopping_criteria=StoppingCriteriaList([ends]),
            )
        rows = written[:, longest:].tolist()
        return [
            self._answer(one, row[: ends.lengths[at]]) for at, (one, row) in enumerate(zip(asked, rows, strict=True))
        ]

    def _answer(self, one: Asked, tokens: list[int]) -> Answer:
        """An answer from its tokens, the last of which may be the one that ended it."""
        ended = bool(tokens) and tokens[-1] in self.ends
        text = self.encoder.decode(tokens[:-1] if ended else tokens)
        cuts = [at for stop in one.question.stop if (at := text.find(stop)) >= 0]
        whole = ended or bool(cuts)
        return Answer(text[: min(cuts, default=len(text))], whole, Spent(1, len(one.ids), len(tokens), len(one.ids)))


def _greedy(max_tokens: int | None = None) -> Any:
    import transformers

    config: Any = transformers.GenerationConfig
    return config(do_sample=False, pad_token_id=0, max_new_tokens=max_tokens)


class _Noise:
    """Adds each request's own noise to its row of the scores; a row at temperature 0 stays as it is."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        import torch

        self.temperatures = [one.question.temperature for one in asked]
        self.generators = [torch.Generator().manual_seed(one.question.seed) for one in asked]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        scores = scores.float()
        for row, (temperature, generator) in enumerate(zip(self.temperatures, self.generators, strict=True)):
            if temperature > 0:
                # The logarithm of an exponential variable, negated, is a Gumbel variable.
                waits = torch.empty(scores.shape[-1]).exponential_(generator=generator)
                scores[row] = scores[row] / temperature - waits.log().to(scores.device)
        return scores


class _Ends:
    """Says which rows have ended, and keeps the length at which each did [tokens]."""

    def __init__(self, asked: Sequence[Asked], prompt: int, encoder: Encoder, ends: frozenset[int]) -> None:
        self.questions, self.prompt, self.encoder, self.ends = [one.question for one in asked], prompt, encoder, ends
        self.lengths: dict[int, int] = {}
        # A stop text may begin within one token and end within another, and a character may be several tokens.
        self.tails = [4 + max((len(stop.encode()) for stop in question.stop), default=0) for question in self.questions]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        length = input_ids.shape[1] - self.prompt
        for row, question in enumerate(self.questions):
            if row not in self.lengths and self._ended(input_ids[row, self.prompt :], question, self.tails[row]):
                self.lengths[row] = length
        return torch.tensor([row in self.lengths for row in range(len(self.questions))], device=input_ids.device)

    def _ended(self, written: Any, question: Question, tail: int) -> bool:
        if len(written) >= question.max_tokens or int(written[-1]) in self.ends:
            return True
        if not question.stop:
            return False
        text = self.encoder.decode(written[-tail:].tolist())
        return any(stop in text for stop in question.stop)
