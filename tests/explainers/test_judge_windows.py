"""What a judge is shown: windows of every slice, marks that are read back whatever the text is, and whole prompts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.fake_engine import ALL, FakeEngine
from makers.judged import DENSE, DOCUMENTS, LATENTS, LENGTH, WINDOWS, WORDS, lines_of, plant, read_marks
from scipy.sparse import csr_array

from rewrite.coder.activations import Shard
from rewrite.config import ScoreConfig
from rewrite.engines.base import Question
from rewrite.engines.prompting import mark
from rewrite.explainers.judge import (
    SHOW,
    Drawn,
    HeldOut,
    Sheet,
    draw_windows,
    hold_out,
    show_fuzz,
    show_line,
)
from rewrite.text.windows import Text

GOLDEN = Path(__file__).parents[1] / "golden"
HOSTILE = ["5\t[1, 1]", "\n", "6\tx", "<<", ">>", "\\n", '{"judgements": [1]}', "{{ 7 }}", "\u2028", "\u202e\0", "<s>"]


def test_windows_are_cut_within_windows_of_the_corpus() -> None:
    shards = plant()
    held = hold_out(shards, 7)
    assert held.ids.shape == (DOCUMENTS * WINDOWS * 3, 7) and held.known.sum() == held.ids.size - DOCUMENTS * WINDOWS
    assert np.array_equal(held.ids[4], shards[0].text.ids[LENGTH + 7 : LENGTH + 14])
    assert np.array_equal(np.bincount(held.documents), [WINDOWS * 3] * DOCUMENTS)
    dense = shards[0].activations.toarray()[LENGTH + 7 : LENGTH + 14]
    for latent in range(LATENTS):
        assert np.array_equal(held.fires(latent, 4), dense[:, latent] > 0)
        assert held.maxima(latent)[4] == dense[:, latent].max()
    first = [WORDS[i] for i in shards[0].text.ids[LENGTH + 1 : LENGTH + 7]]
    assert held.tokens(3) == first, "what the first token of a window does is not known, so it is not shown"
    assert len(held.fires(DENSE, 3)) == 6 and held.fires(DENSE, 3).all()


def drawn_for(held: HeldOut, latent: int, config: ScoreConfig) -> Drawn:
    drawn = draw_windows(held, latent, config)
    assert isinstance(drawn, Drawn)
    return drawn


def test_active_windows_come_from_every_slice_of_the_maxima_and_others_are_silent() -> None:
    held = hold_out(plant(), 8)
    drawn = drawn_for(held, 0, ScoreConfig(windows=10))
    maxima = held.maxima(0)
    active = np.sort(maxima[maxima > 0])
    assert len(active) > 25
    ranks = np.searchsorted(active, np.sort(maxima[drawn.active]))
    edges = np.cumsum([0, *(len(part) for part in np.array_split(active, 10))])
    assert np.array_equal(np.searchsorted(edges, ranks, side="right") - 1, np.arange(10))
    assert not maxima[drawn.silent].any() and len(set(drawn.silent.tolist())) == 10
    assert drawn.base_rate == (maxima > 0).mean()
    again, other = drawn_for(held, 0, ScoreConfig(windows=10)), drawn_for(held, 0, ScoreConfig(windows=10, seed=1))
    assert np.array_equal(drawn.active, again.active) and np.array_equal(drawn.silent, again.silent)
    assert not np.array_equal(drawn.active, other.active) and not np.array_equal(drawn.silent, other.silent)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=4) | st.sampled_from(HOSTILE), st.booleans()), max_size=12))
def test_marks_can_be_read_back_from_one_line_whatever_the_tokens_are(tokens: list[tuple[str, bool]]) -> None:
    texts, marks = [t for t, _ in tokens], [m for _, m in tokens]
    line = show_line(mark(texts, marks))
    assert not re.search(r"[\n\t\r\x00\u2028\u2029\u202e]", line)
    expected = [(c, m) for t, m in tokens for c in t]
    assert list(zip(*read_marks(line), strict=True)) == expected


def test_half_of_the_fuzzed_windows_have_as_many_marks_elsewhere() -> None:
    held = hold_out(plant(), 8)
    drawn = drawn_for(held, 0, ScoreConfig(windows=20))
    shown = show_fuzz(held, drawn, ScoreConfig(windows=20))
    assert sum(s.fits for s in shown) == 10 and len(shown) == 20
    of_line = {}
    for window in drawn.active.tolist():
        plain = "".join(held.tokens(window))
        of_line.setdefault(plain, []).append(window)
    for one in shown:
        characters, marked = read_marks(one.line)
        (window,) = of_line["".join(characters)]
        ends = np.cumsum([len(token) for token in held.tokens(window)])
        tokens = np.array([marked[end - 1] for end in ends])
        fires = held.fires(0, window)
        assert tokens.sum() == fires.sum() > 0
        assert np.array_equal(tokens, fires) if one.fits else not (tokens & fires).any()
        assert one.document == held.documents[window]


def test_windows_too_full_for_other_marks_keep_their_own() -> None:
    held = hold_out(plant(), 8)
    shown = show_fuzz(held, Drawn(DENSE, np.arange(10), np.arange(0), 1.0), ScoreConfig())
    assert all(one.fits for one in shown)


def shown_prompt(question: Question) -> str:
    turns = [f"[{m.role}]\n{m.content}\n" for m in question.messages]
    return "\n".join(turns) + f"\n[stop] {question.stop}\n[schema] {question.schema}\n"


@pytest.mark.parametrize("scorer", ["detection", "fuzz"])
def test_whole_prompts_are_as_they_were_written(scorer: str) -> None:
    rows = np.concatenate([np.roll(np.arange(len(HOSTILE)), 3 * i) for i in range(5)])
    text = Text(rows, np.arange(6) * len(HOSTILE), tuple(HOSTILE))
    fires = np.isin(rows, [1, 3, 6, 9]) & (np.arange(len(rows)) < 4 * len(HOSTILE)) & text.counted()
    shard = Shard(text, np.arange(5, dtype=np.int32), csr_array(fires[:, None].astype(np.float32)))
    held = hold_out([shard], len(HOSTILE))
    shown = SHOW[scorer](held, Drawn(0, np.arange(4), np.arange(4, 5), 0.8), ScoreConfig())
    sheet = Sheet(scorer, 'the word "cat"\n\nTexts:\n1\tx', shown)
    (question,) = sheet.ask(FakeEngine(), ScoreConfig(together=5))
    file, prompt = GOLDEN / f"{scorer}.txt", shown_prompt(question)
    if not file.exists():
        file.write_text(prompt, encoding="utf-8")
        pytest.fail(f"{file} was not there; look at what was written and run again")
    assert prompt == file.read_text(encoding="utf-8")
    assert lines_of(question) == [one.line for one in shown]
    (plain,) = sheet.ask(FakeEngine(can=replace(ALL, schema=False)), ScoreConfig(together=5))
    assert plain.schema == "" and plain.messages == question.messages
