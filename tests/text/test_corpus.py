"""No document in two splits; a document's split does not depend on its neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewrite.config import CorpusConfig, UserError
from rewrite.run.configs import load_config
from rewrite.subject.subject import load_subject
from rewrite.text.corpus import SPLITS, cut_documents, split_documents
from rewrite.text.documents import Document
from rewrite.text.windows import cut_windows, pad_windows, spread_windows, token_strings


def documents(count: int) -> list[Document]:
    return [Document(f"doc{i:04d}", f"text {i}") for i in range(count)]


@given(st.integers(10, 80), st.integers(0, 5), st.sampled_from([(0.6, 0.2, None), (5, 2, 3), (5, 0.2, None)]))
def test_no_document_is_in_two_splits(count: int, seed: int, sizes: tuple[float, float, int | None]) -> None:
    config = CorpusConfig(train=sizes[0], calibrate=sizes[1], test=sizes[2], seed=seed)
    try:
        splits = split_documents(documents(count), config)
    except UserError:
        return
    together = [i for name in SPLITS for i in splits[name]]
    assert len(together) == len(set(together))
    assert set(together) <= set(range(count))


def test_numbers_are_taken_exactly_and_the_rest_is_tested() -> None:
    splits = split_documents(documents(100), CorpusConfig(train=60, calibrate=15))
    assert [len(splits[name]) for name in SPLITS] == [60, 15, 25]


def test_shares_put_a_document_where_its_name_says() -> None:
    all_of_them = documents(400)
    config = CorpusConfig(train=0.5, calibrate=0.2)
    large = split_documents(all_of_them, config)
    small = split_documents(all_of_them[::2], config)
    for name in SPLITS:
        assert {all_of_them[::2][i].name for i in small[name]} <= {all_of_them[i].name for i in large[name]}
    assert [round(len(large[name]) / 400, 1) for name in SPLITS] == [0.5, 0.2, 0.3]


def test_too_few_documents_are_refused() -> None:
    with pytest.raises(UserError, match=r"corpus\.calibrate = 5: 10 documents leave 2"):
        split_documents(documents(10), CorpusConfig(train=8, calibrate=5))


def test_token_strings_join_to_the_text(stories: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories)
    vocabulary = token_strings(tokenizer)
    text = 'Once upon a time, Lily\'s cat said, "Hi!"\nThe end.'
    ids = [i for window in cut_windows(text, tokenizer, CorpusConfig(window=8)) for i in window]
    assert ids[0] == tokenizer.bos_token_id
    assert "".join(vocabulary[i] for i in ids).strip() == text


def test_windows_are_consecutive_and_never_too_short(stories: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories)
    whole: list[int] = tokenizer("the cat sat on the mat and ate " * 9)["input_ids"]
    windows = cut_windows("the cat sat on the mat and ate " * 9, tokenizer, CorpusConfig(window=16))
    assert [i for window in windows for i in window] == whole[: sum(map(len, windows))]
    assert all(3 <= len(window) <= 16 for window in windows)


@given(st.integers(0, 60), st.integers(0, 70))
def test_spread_windows_are_distinct_and_ordered(count: int, limit: int) -> None:
    chosen = spread_windows(count, limit)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == (min(limit, count) if limit else count)
    assert all(0 <= i < count for i in chosen)


def test_padding_is_marked() -> None:
    padded = pad_windows([np.array([5, 6, 7]), np.array([8, 9])])
    np.testing.assert_array_equal(padded.ids, [[5, 6, 7], [8, 9, 0]])
    np.testing.assert_array_equal(padded.real, [[True, True, True], [True, True, False]])
    np.testing.assert_array_equal(padded.counted, [[False, True, True], [False, True, False]])


@pytest.mark.parametrize(("setting", "ids"), [("text", 0), ("control", 2)])
def test_special_tokens_within_a_document_are_text_unless_the_config_says_so(
    stories: Path, setting: Literal["text", "control"], ids: int
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories)
    text = "The cat said </s> and <s> again."
    (found,) = cut_windows(text, tokenizer, CorpusConfig(window=64, special_tokens=setting))
    assert found[0] == tokenizer.bos_token_id, "what the tokenizer puts at a start stays"
    special = np.isin(found[1:], [tokenizer.bos_token_id, tokenizer.eos_token_id])
    assert special.sum() == ids
    vocabulary = token_strings(tokenizer)
    joined = "".join(vocabulary[i] for i in found)
    assert ("</s>" in joined and "<s>" in joined) == (setting == "text")


def test_windows_do_not_depend_on_how_many_processes_cut_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_subject(load_config()).tokenizer
    assert tokenizer is not None
    texts = [Document(f"{i}", f"def f{i}(x):\n    return x + {i}\n" * (1 + 9 * i)) for i in range(7)]
    cut = {}
    for processes in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", processes)
        cut[processes] = list(cut_documents(texts, tokenizer, CorpusConfig(window=16)))
    assert [len(windows) for windows in cut["1"]] == [len(windows) for windows in cut["3"]] and cut["1"][6]
    for one, other in zip(cut["1"], cut["3"], strict=True):
        assert all((a == b).all() and a.dtype == b.dtype for a, b in zip(one, other, strict=True))
