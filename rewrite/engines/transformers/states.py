"""What a language model holds of a text: the hidden states of some of its layers at each piece or token.

A text is given in pieces, as the subject's tokens are shown. Each is tokenized by itself, so a piece may be several of
the reader's tokens: its state is that of its last one, which has seen all of it and everything before. The model is
causal, so a state never depends on what comes after. Blocks behind the last layer that is read are cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rewrite.config import UserError
from rewrite.display.progress import bar
from rewrite.engines.encoding import Encoder
from rewrite.subject.families import find_blocks
from rewrite.subject.forwards import vectors_of


class HiddenStates:
    """A model cut off after the last of `layers`: 0 is what the first block reads, n what the n-th writes."""

    def __init__(self, network: Any, encoder: Encoder, layers: Sequence[int], batch: int) -> None:
        path, blocks = find_blocks(network, encoder.model)
        if max(layers) > len(blocks):
            raise UserError(f"{encoder.model}: has layers 0 to {len(blocks)}, none of number {max(layers)}")
        parent, _, name = path.rpartition(".")
        setattr(network.base_model.get_submodule(parent), name, blocks[: max(1, *layers)])
        self.model, self.blocks = network.base_model, blocks[: max(1, *layers)]
        self.encoder, self.layers, self.batch = encoder, tuple(layers), batch
        self.width = len(layers) * int(network.config.get_text_config().hidden_size)

    def of_pieces(self, texts: Sequence[Sequence[str]]) -> Iterator[Float[np.ndarray, "piece width"]]:
        """The states at the end of each piece, float16, text by text. A piece without a token has those of the one
        before it."""
        for ids, ends in self._encode(texts):
            yield from (states[np.maximum(own - 1, 0)] for states, own in zip(self._read(ids), ends, strict=True))

    def of_tokens(self, texts: Sequence[str]) -> list[Float[np.ndarray, "token width"]]:
        """The states at every token of each text, float16, in order. Texts of like length are read together, so that
        little is padding."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        begin, found = len(self.encoder.start), dict[int, Float[np.ndarray, "token width"]]()
        read = (own for ids, _ in self._encode([[texts[number]] for number in order]) for own in self._read(ids))
        for number, own in zip(order, bar(read, "read explanations", "explanations", len(order)), strict=True):
            found[number] = own[begin:]
        return [found[number] for number in range(len(texts))]

    def _encode(
        self, texts: Sequence[Sequence[str]]
    ) -> Iterator[tuple[list[list[int]], list[Int[np.ndarray, " piece"]]]]:
        """Batches of token ids, each behind what begins every text, and where in them the pieces end."""
        start = list(self.encoder.start)
        for begin in range(0, len(texts), self.batch):
            ids, ends = [], []
            for pieces in texts[begin : begin + self.batch]:
                tokens = [self.encoder.piece(piece) for piece in pieces]
                ids.append(start + [token for own in tokens for token in own])
                ends.append(len(start) + np.cumsum([len(own) for own in tokens], dtype=np.int64))
            yield ids, ends

    def _read(self, batch: Sequence[Sequence[int]]) -> Iterator[Float[np.ndarray, "token width"]]:
        """The states of a batch, padded on the right, where nothing of a causal model reaches back."""
        ids = torch.zeros(len(batch), max(1, *map(len, batch)), dtype=torch.long)
        for row, own in zip(ids, batch, strict=True):
            row[: len(own)] = torch.tensor(own, dtype=torch.long)
        found: dict[int, Tensor] = {}

        def note(layer: int, states: Tensor) -> None:
            found[layer] = states

        hooks = [self.blocks[0].register_forward_pre_hook(lambda _, inputs: note(0, inputs[0]))]
        hooks += [
            block.register_forward_hook(lambda _, inputs, output, layer=layer: note(layer, vectors_of(output)))
            for layer, block in enumerate(self.blocks, start=1)
            if layer in self.layers
        ]
        try:
            with torch.inference_mode():
                self.model(ids.to(self.model.device), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        states = torch.cat([found[layer] for layer in self.layers], dim=-1).float().cpu().numpy()
        for row, own in zip(states, batch, strict=True):
            yield row[: len(own)].astype(np.float16)
