"""No document in two splits; a document's split does not depend on its neighbours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewrite.config import CorpusConfig, UserError
from rewrite.text.corpus import SPLITS, Document, fingerprint_corpus, hash_documents, read_documents, split_documents
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


def test_stdlib_is_source_without_tests() -> None:
    found = read_documents(CorpusConfig())
    assert {"argparse.py", "json/decoder.py"} <= {d.name for d in found}
    assert not any("/test/" in d.name or d.name.startswith("test/") for d in found)
    assert hash_documents(found) == fingerprint_corpus(CorpusConfig())


def test_files_and_folders(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_text("\n".join(json.dumps({"body": t}) for t in ("one", "", "two")))
    assert [d.text for d in read_documents(CorpusConfig(source=str(lines), text_field="body"))] == ["one", "two"]
    lines.write_text(json.dumps({"text": "a\u2028b"}, ensure_ascii=False), encoding="utf-8")
    assert [d.text for d in read_documents(CorpusConfig(source=str(lines)))] == ["a\u2028b"]
    text = tmp_path / "b.txt"
    text.write_text("one\n\ntwo\n\n\n\n")
    assert [d.text for d in read_documents(CorpusConfig(source=str(text)))] == ["one", "two"]
    assert {d.name for d in read_documents(CorpusConfig(source=str(tmp_path)))} == {"b.txt"}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"text": "x"}\nnot json', r"a\.jsonl:2: no field 'text'"),
        ("a.jsonl", '{"other": 1}', "set corpus.text_field"),
        ("a.jsonl", '{"text": 1}', "is not text"),
        ("a.txt", "  \n\n ", "no text in this corpus"),
        ("a.txt", b"\xff\xfe\x00", "not readable as UTF-8"),
    ],
)
def test_bad_corpora_are_named(tmp_path: Path, name: str, content: str | bytes, expected: str) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=expected):
        read_documents(CorpusConfig(source=str(file)))


def test_absent_corpora_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_documents(CorpusConfig(source=str(tmp_path / "nowhere.jsonl")))
    with pytest.raises(UserError, match="neither a file here nor a dataset of the hub"):
        read_documents(CorpusConfig(source="nobody/nothing"))


def test_a_folder_of_the_datasets_library_is_read_as_a_hub_name_is(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"body": "one"}\n{"body": "two"}\n{"body": "three"}\n')
    config = CorpusConfig(source=str(tmp_path), text_field="body")
    assert [d.text for d in read_documents(config)] == ["one", "two", "three"]
    assert len(read_documents(config.model_copy(update={"max_documents": 2}))) == 2
    with pytest.raises(UserError, match="rows have no field 'text'"):
        read_documents(CorpusConfig(source=str(tmp_path)))


def test_token_strings_join_to_the_text(stories: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories)
    vocabulary = token_strings(tokenizer)
    text = 'Once upon a time, Lily\'s cat said, "Hi!"\nThe end.'
    ids = [i for window in cut_windows(text, tokenizer, 8) for i in window]
    assert ids[0] == tokenizer.bos_token_id
    assert "".join(vocabulary[i] for i in ids).strip() == text


def test_windows_are_consecutive_and_never_too_short(stories: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories)
    whole: list[int] = tokenizer("the cat sat on the mat and ate " * 9)["input_ids"]
    windows = cut_windows("the cat sat on the mat and ate " * 9, tokenizer, 16)
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
