"""Cells, sums over them and what covers them, each against its definition, however much is read at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csc_array, csr_array

from rewrite.coder.evidence import Evidence
from rewrite.patterns import pooling
from rewrite.patterns.candidates import Links
from rewrite.patterns.features import PLACES, read_features
from rewrite.patterns.pooling import Summed, pool
from rewrite.text.windows import Text

VOCABULARY = ("", " the", " a", "b", ".", '"', "\n", " (", " King", "s")


def draw_text(rng: np.random.Generator, windows: int, asked: bool = False) -> Text:
    """Windows of 2 to 12 tokens; of some of them only some positions are asked about."""
    starts = np.concatenate([[0], np.cumsum(rng.integers(2, 13, windows))])
    ids = rng.integers(1, len(VOCABULARY), starts[-1]).astype(np.int32)
    return Text(ids, starts, VOCABULARY, rng.random(starts[-1]) < 0.6 if asked else None)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("at_once", [1, 20, 1 << 14])
def test_cells_are_the_distinct_features_of_counted_positions(
    asked: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "CHUNK", at_once)
    text = draw_text(np.random.default_rng(1), 30, asked)
    features, counted, cells = read_features(text), text.counted(), pool(text)
    assert (cells.words, cells.tokens) == (features.words, features.tokens)
    bits = features.places @ (1 << np.arange(len(PLACES)))
    rows = list(zip(*(x.tolist() for x in (features.word, features.before, features.token, bits)), strict=True))
    distinct = sorted({row for row, own in zip(rows, counted, strict=True) if own})
    shown = cells.places @ (1 << np.arange(len(PLACES)))
    assert distinct == list(zip(*(x.tolist() for x in (cells.word, cells.before, cells.token, shown)), strict=True))
    expected = [distinct.index(row) if own else -1 for row, own in zip(rows, counted, strict=True)]
    assert cells.of.tolist() == expected
    assert cells.count.tolist() == [expected.count(number) for number in range(len(distinct))]


def test_a_text_without_positions_has_no_cells() -> None:
    cells = pool(Text(np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64), VOCABULARY))
    assert len(cells.count) == len(cells.of) == 0


@given(seed=st.integers(0, 10_000), at_once=st.sampled_from([None, 1, 30]))
def test_sums_are_those_of_a_product_of_matrices_bit_for_bit(seed: int, at_once: int | None) -> None:
    """In float32 and in the order of the text, as a sparse product sums; what comes to 0, or is not counted, is left
    out."""
    rng = np.random.default_rng(seed)
    text = draw_text(rng, 12)
    counted, latents = text.counted(), 5
    active = rng.choice([0, 0.1, 0.7, 1e-8, 3e7, -0.1], (len(text.ids), latents), p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    active[:, 4] = 0
    matrix = csc_array(active.astype(np.float32))
    cells = pool(text)
    member = csr_array(
        (np.ones(counted.sum(), np.float32), (cells.of[counted], np.flatnonzero(counted))),
        shape=(len(cells.count), len(text.ids)),
    )
    product = csc_array(member @ csr_array(matrix)).toarray()
    summed = Summed(Evidence(text, matrix, at_once=at_once), cells.of, len(cells.count))
    blocks = list(summed.blocks(range(latents)))
    assert [latent for block in blocks for latent in block] == list(range(latents))
    for latent in range(latents):
        sums = summed.of(latent)
        assert sums.cells.tolist() == np.flatnonzero(product[:, latent]).tolist()
        np.testing.assert_array_equal(sums.activation, product[sums.cells, latent])


@given(rows=st.lists(st.sets(st.integers(0, 6)), max_size=8))
def test_links_are_flipped_to_what_they_come_from(rows: list[set[int]]) -> None:
    ends = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    links = Links(ends, np.array([one for row in rows for one in sorted(row)], dtype=np.int32))
    flipped = links.flip(7)
    assert [flipped.of(one).tolist() for one in range(7)] == [
        [number for number, row in enumerate(rows) if one in row] for one in range(7)
    ]
    some = np.array([6, 2, 2])
    assert flipped.of_all(some).tolist() == [number for one in some for number in flipped.of(int(one)).tolist()]
