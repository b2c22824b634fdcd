"""Passes where a language model holds something of the text as it holds something of the explanation.

1. `screen_model` reads each window and each explanation once, without a question (`rewrite.engines.base.States`), and
   shows the states after its second block at every token. From each the mean state of all the
   explanations' tokens is taken away, or all would look alike (Ethayarajh, EMNLP 2019: contextual states are
   anisotropic).
2. A pair's similarity is the largest cosine between the state at the position and one of the explanation's tokens (late
   interaction: Khattab & Zaharia, SIGIR 2020). It passes at `screen_cosine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from rewrite.config import UserError
from rewrite.engines.base import States
from rewrite.engines.transformers import Settings
from rewrite.engines.transformers.build import read_states
from rewrite.explainers.base import Explanation
from rewrite.simulators.screens.base import Told
from rewrite.text.windows import Text

LAYER = 2
"""Whose states are shown: what this many blocks made of the tokens."""
CHUNK = 1 << 24
"""Cosines at a time."""


@dataclass(frozen=True)
class EmbeddingScreen:
    """See the module. `tokens` are the explanations' token states, centred and of length 1, one explanation after the
    other."""

    states: States
    centre: Float[np.ndarray, " width"]
    tokens: Float[np.ndarray, "token width"]
    begins: Sequence[int]
    """Where each explanation's tokens begin."""
    least: float

    def passes(self, text: Text) -> csr_array:
        """See `Screen.passes`."""
        counted = text.counted()
        windows = [number for number, (a, b) in enumerate(pairwise(text.starts)) if counted[a:b].any()]
        shown = list(text.windows())
        states = self.states.of_pieces([shown[number] for number in windows])
        found = [
            there[counted[text.starts[number] : text.starts[number + 1]]]
            for number, there in zip(windows, states, strict=True)
        ]
        rows = _point(np.concatenate([np.zeros((0, self.states.width), np.float32), *found]) - self.centre)
        size = max(1, CHUNK // max(len(self.tokens), 1))
        passing = [self._judge(rows[begin : begin + size]) for begin in range(0, len(rows), size)]
        whole = csr_array(np.concatenate([np.zeros((0, len(self.begins)), dtype=bool), *passing]))
        ends = np.zeros(len(counted) + 1, dtype=np.int64)
        ends[1:][counted] = np.diff(whole.indptr)
        return csr_array((whole.data, whole.indices, np.cumsum(ends)), shape=(len(counted), len(self.begins)))

    def _judge(self, rows: Float[np.ndarray, "row width"]) -> np.ndarray:
        if not len(self.begins):
            return np.zeros((len(rows), 0), dtype=bool)
        judged: np.ndarray = np.maximum.reduceat(rows @ self.tokens.T, self.begins, axis=1) >= self.least
        return judged


def screen(explanations: Sequence[Explanation], settings: Told) -> EmbeddingScreen:
    """The screen of these explanations. Raises UserError without a model."""
    if not settings.screen_model:
        raise UserError("simulators.llm.screen_model: not set; the embedding screen reads with a language model")
    states = read_states(settings.screen_model, Settings(batch=16), (LAYER,))
    # Never without a token, so that every explanation can be judged.
    read = states.of_tokens([one.text or " " for one in explanations])
    tokens = np.concatenate([np.zeros((0, states.width), np.float32), *read])
    centre = tokens.mean(0) if len(tokens) else np.zeros(states.width, np.float32)
    begins = np.cumsum([0, *(len(own) for own in read)])[:-1].tolist()
    return EmbeddingScreen(states, centre, _point(tokens - centre), begins, settings.screen_cosine)


def _point(states: Float[np.ndarray, "row width"]) -> Float[np.ndarray, "row width"]:
    """The same of length 1."""
    length = np.linalg.norm(states, axis=1, keepdims=True)
    pointing: np.ndarray = (states / np.where(length > 0, length, 1)).astype(np.float32)
    return pointing
