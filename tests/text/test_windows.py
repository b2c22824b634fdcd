"""What a reader is shown of tokens: characters are whole, wherever a vocabulary cuts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rewrite.text.windows import Text, show_tokens, token_pieces, token_strings


def bytewise() -> Any:
    """A vocabulary of single bytes, as GPT-2 writes them."""
    signs = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE(vocab={sign: i for i, sign in enumerate(sorted(signs))}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


BYTES = bytewise()
TEXTS = token_strings(BYTES)
PIECES = token_pieces(BYTES, TEXTS)


def test_pieces_of_characters_are_told_from_characters() -> None:
    assert sorted(piece[0] for piece in PIECES.values()) == list(range(128, 256))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_what_is_shown_is_the_text_and_every_character_stands_at_its_end(text: str) -> None:
    ids = BYTES(text)["input_ids"]
    shown = show_tokens(ids, TEXTS, PIECES)
    assert "".join(shown) == text
    ends = np.cumsum([len(character.encode()) for character in text]) - 1
    assert [i for i, token in enumerate(shown) if token] == ends.tolist()


def test_a_character_cut_by_the_window_is_not_shown() -> None:
    ids = BYTES("é🙂é")["input_ids"]
    assert "".join(show_tokens(ids[1:-1], TEXTS, PIECES)) == "🙂"


def test_the_windows_of_a_text_are_shown_so() -> None:
    ids = np.array(BYTES("aé")["input_ids"] * 2)
    text = Text(ids, np.array([0, 3, 6]), TEXTS, pieces=PIECES)
    assert list(text.windows()) == [["a", "", "é"]] * 2


@pytest.mark.parametrize("text", ["Tom said: é 中 🙂 \ufffd!"])
def test_bytes_of_sentencepiece(stories: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(stories)
    vocabulary = token_strings(tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    shown = show_tokens(ids, vocabulary, token_pieces(tokenizer, vocabulary))
    assert "".join(shown).strip() == text and shown.count("") > 4
