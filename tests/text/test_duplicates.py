"""Equal documents are in one split, and what splits share is counted word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewrite.config import CorpusConfig, UserError
from rewrite.text.corpus import SPLITS, describe_splits, split_documents
from rewrite.text.documents import Corpus, Document
from rewrite.text.duplicates import RUN, WORD, cover, find_equal, find_shared

LICENCE = "# Copyright 2020 Somebody.\n# All rights reserved.\n\n"


def number(texts: Sequence[str]) -> list[Document]:
    return [Document(f"{i:03d}", text) for i, text in enumerate(texts)]


def test_case_space_and_a_licence_make_no_difference() -> None:
    texts = [
        "def f():\n    pass",
        LICENCE + "DEF f(): pass\n",
        "def g(): pass",
        "// (c) me, licence: MIT\ndef f():\tpass",
    ]
    assert find_equal(texts) == [0, 0, 2, 0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("# A poem\nroses", "# A tale\nroses"),
        ("* Alice likes tea\n* Bob\n\n", "# Another heading\n \n"),
        ("% x\n\n", "-- y"),
        ("# Copyright Ann\n", "# Copyright Bob\n \n"),
    ],
)
def test_a_heading_is_no_licence_and_a_licence_alone_is_a_text(one: str, other: str) -> None:
    assert find_equal([one, other]) == [0, 1]


@given(st.lists(st.integers(0, 6), min_size=12, max_size=60), st.integers(0, 3), st.sampled_from([(0.5, 0.3), (5, 3)]))
def test_of_equal_documents_one_is_kept(kinds: list[int], seed: int, sizes: tuple[float, float]) -> None:
    documents = number([f"text {kind}" if kind else f"alone {i}" for i, kind in enumerate(kinds)])
    try:
        splits = split_documents(documents, CorpusConfig(train=sizes[0], calibrate=sizes[1], seed=seed))
    except UserError:
        return
    texts = [documents[i].text for name in SPLITS for i in splits[name]]
    assert len(texts) == len(set(texts)) == len({d.text for d in documents})


def test_five_texts_repeated_eight_times_are_five_texts() -> None:
    documents = number([f"text {i % 5}" for i in range(40)])
    with pytest.raises(UserError, match=r"5 documents that differ \(35 copies are left out\) leave 0 for this split"):
        split_documents(documents, CorpusConfig(train=3, calibrate=2, test=3))
    splits = split_documents(documents, CorpusConfig(train=2, calibrate=1, test=2))
    assert [len(splits[name]) for name in SPLITS] == [2, 1, 2]
    assert describe_splits(Corpus(documents), splits)["copies"] == 35


def seen_word_by_word(text: str, before: Sequence[str]) -> int:
    """The definition: words in a run of RUN that stands in an earlier text."""
    words = WORD.findall(text.casefold())
    earlier = [WORD.findall(other.casefold()) for other in before]
    runs = {tuple(other[i : i + RUN]) for other in earlier for i in range(len(other) - RUN + 1)}
    seen = [False] * len(words)
    for i in range(len(words) - RUN + 1):
        if tuple(words[i : i + RUN]) in runs:
            seen[i : i + RUN] = [True] * RUN
    return sum(seen)


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=3, max_size=6))
def test_what_is_shared_is_counted_word_by_word(parts: list[list[int]]) -> None:
    blocks = [" ".join(f"w{kind}x{i}" for i in range(40)) for kind in range(3)]
    texts = [", ".join(blocks[kind].upper() if i else blocks[kind] for i, kind in enumerate(own)) for own in parts]
    splits = {"train": [0], "calibrate": [1], "test": list(range(2, len(texts)))}
    found = find_shared(texts, splits)
    assert found["calibrate"].seen == seen_word_by_word(texts[1], texts[:1])
    assert found["test"].seen == sum(seen_word_by_word(text, texts[:2]) for text in texts[2:])
    assert found["test"].words == sum(len(WORD.findall(text)) for text in texts[2:])


def test_a_character_of_a_script_without_spaces_is_a_word() -> None:
    assert WORD.findall("东京 is big, 100% ok_1") == ["东", "京", "is", "big", "100", "ok_1"]
    text = "".join(chr(0x4E00 + i) for i in range(RUN))
    found = find_shared([text, "x" + text, "y"], {"train": [0], "calibrate": [1], "test": [2]})
    assert (found["calibrate"].seen, found["calibrate"].words) == (RUN, RUN + 1)
    assert (found["test"].seen, found["test"].words, found["test"].documents) == (0, 1, {})


def test_runs_that_overlap_cover_each_word_once() -> None:
    import numpy as np

    assert cover(np.array([True, True, False, True])) == RUN + 3
    assert cover(np.zeros(0, dtype=bool)) == 0


def shared_corpus() -> list[Document]:
    passage = " ".join(f"word{i}" for i in range(80))
    return number([f"{passage} and {i}" if i % 4 == 0 else f"document {i} says {i}" for i in range(80)])


def test_near_duplicates_are_named_and_can_be_dropped() -> None:
    documents = shared_corpus()
    kept = split_documents(documents, CorpusConfig(train=0.5, calibrate=0.25))
    said = describe_splits(Corpus(documents, 3), kept)
    assert said["null"] == 3 and said["shared"]["test"]["run"] == RUN
    # All but the last of its words: the passage's 80, and "and".
    wanted = {f"{i:03d}": round(81 / 82, 4) for i in kept["test"] if i % 4 == 0}
    assert said["shared"]["test"]["documents"] == wanted and wanted
    dropped = split_documents(documents, CorpusConfig(train=0.5, calibrate=0.25, near_duplicates="drop"))
    assert dropped["train"] == kept["train"]
    for name in ("calibrate", "test"):
        assert dropped[name] == [i for i in kept[name] if i % 4]
    assert describe_splits(Corpus(documents), dropped)["shared"]["test"]["share"] == 0
    alike = number([re.sub("document", "passage", d.text) for d in documents[::4]])
    with pytest.raises(UserError, match=r"near_duplicates = drop: every document of the calibrate split"):
        split_documents(alike, CorpusConfig(train=10, calibrate=5, near_duplicates="drop"))
