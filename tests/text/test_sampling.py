"""What is simulated where not everything is: draws that depend on their seed and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewrite.config import SampleConfig
from rewrite.statistics.paired import MINIMUM_DOCUMENTS
from rewrite.text.sampling import LEAST_FULL, ask, draw_full, draw_latents
from rewrite.text.windows import Text

LENGTHS = [5, 8, 3, 8, 8, 4, 8]
DOCUMENTS = np.array([0, 0, 0, 1, 1, 2, 3])


def text_of(lengths: list[int]) -> Text:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Text(np.zeros(starts[-1], dtype=np.int32), starts, ("a",))


@given(st.integers(0, 2**31), st.integers(1, 50))
def test_latents_are_distinct_and_nested_in_nothing_but_the_seed(seed: int, wanted: int) -> None:
    chosen = draw_latents(SampleConfig(latents=wanted, seed=seed), 40)
    assert len(np.unique(chosen)) == min(wanted, 40) == len(chosen)
    assert chosen.max() < 40
    assert (chosen == draw_latents(SampleConfig(latents=wanted, seed=seed), 40)).all()


def test_every_latent_is_as_likely_as_any_other() -> None:
    counts = np.zeros(20)
    for seed in range(2000):
        counts[draw_latents(SampleConfig(latents=5, seed=seed), 20)] += 1
    assert abs(counts / 2000 - 0.25).max() < 0.05  # five standard errors


def test_by_default_every_position_but_the_first_of_a_window_is_asked() -> None:
    text = text_of(LENGTHS)
    asked = ask(text, DOCUMENTS, "test", 4, SampleConfig())
    assert (asked == text.counted()).all()
    assert np.flatnonzero(~asked).tolist() == text.starts[:-1].tolist()


def test_the_last_position_has_a_next_token_to_score() -> None:
    asked = ask(text_of(LENGTHS), DOCUMENTS, "test", 4, SampleConfig(positions="last"))
    ends = np.cumsum(LENGTHS)
    assert np.flatnonzero(asked).tolist() == (ends - 2).tolist()


@pytest.mark.parametrize("split", ["calibrate", "test"])
def test_documents_windows_and_positions_are_counted_out(split: str) -> None:
    text = text_of(LENGTHS)
    asked = ask(text, DOCUMENTS, split, 4, SampleConfig(documents=2, windows=1, positions=2))
    windows = np.add.reduceat(asked, text.starts[:-1])
    by_document = [windows[document == DOCUMENTS] for document in range(4)]
    assert sum(any(counts) for counts in by_document) == 2
    assert all((counts > 0).sum() <= 1 for counts in by_document)
    assert all(count <= 2 for count in windows)
    assert not asked[text.starts[:-1]].any(), "the first position of a window is context"
    assert not asked[text.starts[1:] - 1].any(), "the last one has no next token"


def test_a_draw_does_not_depend_on_how_documents_are_cut_into_shards() -> None:
    config = SampleConfig(documents=3, windows=2, positions=3, seed=5)
    whole = ask(text_of(LENGTHS), DOCUMENTS, "test", 4, config)
    first = ask(text_of(LENGTHS[:3]), DOCUMENTS[:3], "test", 4, config)
    second = ask(text_of(LENGTHS[3:]), DOCUMENTS[3:], "test", 4, config)
    assert (np.concatenate([first, second]) == whole).all()


def test_documents_asked_in_full_are_some_of_those_that_are_simulated_and_never_few() -> None:
    config = SampleConfig(documents=30)
    simulated = {int(d) for d in np.flatnonzero(np.isin(np.arange(60), draw_full("test", 60, config, 1.0, 0)))}
    assert len(simulated) == 30
    drawn = draw_full("test", 60, config, 0.4, 0)
    assert (
        len(drawn) == 12 and set(drawn.tolist()) <= simulated and (drawn == draw_full("test", 60, config, 0.4, 0)).all()
    )
    assert set(drawn.tolist()) != set(draw_full("test", 60, config, 0.4, 1).tolist())
    assert len(draw_full("calibrate", 60, config, 0.01, 0)) == LEAST_FULL == MINIMUM_DOCUMENTS
    assert len(draw_full("calibrate", 5, SampleConfig(), 0.01, 0)) == 5


def test_every_document_is_as_likely_to_be_asked_in_full() -> None:
    counts = np.zeros(20)
    for seed in range(2000):
        counts[draw_full("test", 20, SampleConfig(), 0.5, seed)] += 1
    assert abs(counts / 2000 - 0.5).max() < 0.056  # five standard errors
