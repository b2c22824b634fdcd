"""Whatever a text holds, it is shown as text."""

from __future__ import annotations

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewrite.display.escaping import csv_cell, cut, markdown, one_line, public, visible

ANY = st.text(st.characters(codec=None, categories=None), max_size=60)


@given(ANY)
def test_nothing_hidden_is_left(text: str) -> None:
    for shown in (visible(text), one_line(text), markdown(text), csv_cell(text)):
        shown.encode("utf-8")
        assert all(letter == " " or not unicodedata.category(letter).startswith(("Cc", "Cs", "Z")) for letter in shown)
        assert not any(unicodedata.bidirectional(letter) in ("RLO", "LRO", "RLE", "LRE", "PDF") for letter in shown)


@given(st.lists(ANY, min_size=1, max_size=4))
def test_a_csv_row_comes_back_as_it_was_written_and_runs_nothing(texts: list[str]) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerow([csv_cell(text) for text in texts])
    (row,) = csv.reader(io.StringIO(stream.getvalue())) if any(map(csv_cell, texts)) else [[csv_cell(t) for t in texts]]
    assert row == [csv_cell(text) for text in texts]
    assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in row)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", "a␀b"),
        ("a\nb\tc", "a⏎b⇥c"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\ud800", "⟨U+D800⟩"),
        ("\u200b", "⟨U+200B⟩"),
        ("two  words", "two  words"),
        ("\t=1", "⇥=1"),
    ],
)
def test_hidden_characters_become_symbols(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "  =1", "\uff1d1", '=HYPERLINK("x")'])
def test_a_formula_stands_behind_an_apostrophe(text: str) -> None:
    assert csv_cell(text).startswith("'")


def test_numbers_stay_numbers_and_what_is_unknown_is_empty() -> None:
    assert [csv_cell(value) for value in (-0.25, 3, None, float("nan"), True)] == ["-0.25", "3", "", "", "True"]


@pytest.mark.parametrize("letter", "\u3164\u115f\u2800\u034f\U0001d173\uffa0")
def test_letters_that_leave_no_ink_are_seen(letter: str) -> None:
    assert visible(letter) == f"⟨U+{ord(letter):04X}⟩"


def test_an_address_is_no_link() -> None:
    shown = markdown("see https://a.example/x or WWW.b.example")
    assert shown == "see https&#58;//a.example/x or WWW&#46;b.example"


def test_what_is_shown_says_nothing_of_a_home() -> None:
    assert [public(s) for s in ("/home/alice/m", "../m", "org/model")] == ["m", "m", "org/model"]


def test_markdown_shows_markup() -> None:
    assert markdown("<b>*a*</b> | [x](y)") == r"&lt;b>\*a\*&lt;/b> \| \[x\](y)"
    assert markdown("x" * 400, 300) == "x" * 299 + "…"
    assert cut("four", 4) == "four"
