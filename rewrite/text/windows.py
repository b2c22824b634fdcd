"""Documents → token windows, and what a simulator may know of them.

A position is one token of one window; positions run through all windows of a `Text` in order.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from rewrite.config import CorpusConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Windows = Sequence[Int[np.ndarray, " _"]]
"""Token ids of windows of any lengths."""
Pieces = Mapping[int, bytes]
"""The bytes of tokens, by id, that begin, go on with or end a character and have no text of their own."""
BYTE = re.compile("<0x([0-9A-F]{2})>")
"""How sentencepiece names a token of one byte."""


@dataclass(frozen=True)
class Text:
    """Token windows and nothing else: all that a simulator may know of a text.

    `vocabulary[ids[p]]` is the text of position p's token, its leading space included. Window w holds the positions
    `starts[w]` to `starts[w + 1]`. The first position of a window is context only: it is never simulated. Where not all
    of the others are simulated either, `asked` says which are (`rewrite.text.sampling`). A simulator that screens asks
    about everything where `full` says so.
    """

    ids: Int[np.ndarray, " position"]
    starts: Int[np.ndarray, " window_and_end"]
    vocabulary: tuple[str, ...]
    asked: Bool[np.ndarray, " position"] | None = None
    pieces: Pieces = field(default_factory=dict)
    full: Bool[np.ndarray, " position"] | None = None

    def windows(self) -> Iterator[list[str]]:
        """The tokens of each window as they are shown to a reader."""
        for begin, end in zip(self.starts[:-1], self.starts[1:], strict=True):
            yield show_tokens(self.ids[begin:end], self.vocabulary, self.pieces)

    def chunks(self, positions: int) -> Iterator[Text]:
        """The text in stretches of whole windows, as many as have at most so many positions, at least one in each."""
        begin, last = 0, len(self.starts) - 1
        while begin < last:
            edge = self.starts[begin] + positions
            end = max(begin + 1, int(np.searchsorted(self.starts, edge, side="right")) - 1)
            own = slice(self.starts[begin], self.starts[end])
            asked = None if self.asked is None else self.asked[own]
            starts = self.starts[begin : end + 1] - self.starts[begin]
            yield Text(self.ids[own], starts, self.vocabulary, asked, self.pieces)
            begin = end

    def counted(self) -> Bool[np.ndarray, " position"]:
        """True at every position that is simulated: of those that are asked, all but the first of each window."""
        mask = np.ones(len(self.ids), dtype=bool) if self.asked is None else self.asked.copy()
        mask[self.starts[:-1]] = False
        return mask


def cut_windows(
    text: str, tokenizer: PreTrainedTokenizerBase, config: CorpusConfig
) -> list[Int[np.ndarray, " position"]]:
    """Token ids of a document in consecutive windows; a last window of fewer than 3 tokens is left out.

    Two tokens are the least with which a position is both written and scored: see `rewrite.arms.splice`.
    """
    # Arrays: a list of a long corpus' tokens would take ten times the memory.
    as_text = config.special_tokens == "text"
    ids = np.array(tokenizer(text, verbose=False, split_special_tokens=as_text)["input_ids"], dtype=np.int32)
    windows = [ids[start : start + config.window] for start in range(0, len(ids), config.window)]
    return [w for w in windows if len(w) >= 3]


def spread_windows(count: int, limit: int) -> list[int]:
    """Indices of `limit` of `count` windows, evenly spread; all of them where `limit` is 0 or not below `count`."""
    if limit == 0 or count <= limit:
        return list(range(count))
    return [(2 * i + 1) * count // (2 * limit) for i in range(limit)]


def token_strings(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The text of every token id, leading space included; special tokens are empty.

    Some decoders drop the space at the start of a text, so each token is decoded after an anchor that is then cut off.
    Pieces of a multi-byte character decode to U+FFFD (`token_pieces` has their bytes).
    """
    size = len(tokenizer)
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    prefix = tokenizer.decode(anchor, clean_up_tokenization_spaces=False)
    pairs = tokenizer.batch_decode([[*anchor, i] for i in range(size)], clean_up_tokenization_spaces=False)
    special = set(tokenizer.all_special_ids)
    return tuple("" if i in special else pair[len(prefix) :] for i, pair in enumerate(pairs))


def token_pieces(tokenizer: PreTrainedTokenizerBase, vocabulary: Sequence[str]) -> dict[int, bytes]:
    """The bytes of tokens that are pieces of characters, as byte-level vocabularies and sentencepiece write them."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {sign: byte for byte, sign in bytes_to_unicode().items()}  # type: ignore[no-untyped-call]
    pieces = {}
    for i, text in enumerate(vocabulary):
        if "\ufffd" in text:
            written = str(tokenizer.convert_ids_to_tokens(i))
            if single := BYTE.fullmatch(written):
                pieces[i] = bytes.fromhex(single[1])
            elif all(sign in byte_of for sign in written):
                pieces[i] = bytes(byte_of[sign] for sign in written)
    return pieces


def show_tokens(ids: Sequence[int] | Int[np.ndarray, " token"], vocabulary: Sequence[str], pieces: Pieces) -> list[str]:
    """The texts of neighbouring tokens: a character that several of them make stands whole at the one that completes
    it, and those before it show nothing of it. Of one that is cut at either end nothing is shown."""
    shown = [vocabulary[i] for i in ids]
    if not any(int(i) in pieces for i in ids):
        return shown
    decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
    return [
        decoder.decode(pieces[int(i)] if int(i) in pieces else text.encode("utf-8", errors="surrogatepass"))
        for i, text in zip(ids, shown, strict=True)
    ]


@dataclass(frozen=True)
class Padded:
    """Windows as one batch, padded on the right: the models are causal, so what follows a window cannot reach it."""

    ids: Int[np.ndarray, "window position"]
    real: Bool[np.ndarray, "window position"]
    """False on padding."""
    counted: Bool[np.ndarray, "window position"]
    """True where an arm writes: real, and not the first of its window."""


def pad_windows(windows: Sequence[Int[np.ndarray, " _"]]) -> Padded:
    """Put windows of any lengths into one batch, padded with token 0."""
    lengths = np.array([len(window) for window in windows])
    place = np.arange(lengths.max())[None, :]
    real = place < lengths[:, None]
    ids = np.zeros(real.shape, dtype=np.int64)
    ids[real] = np.concatenate(windows)
    return Padded(ids, real, real & (place > 0))
