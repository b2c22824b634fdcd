"""What is read at each position of a text, and that only its left context counts."""

import numpy as np
import pytest

from rewrite.patterns.features import PLACES, Features, read_features
from rewrite.patterns.words import has_kind
from rewrite.text.windows import Text


def text_of(*windows: list[str]) -> Text:
    vocabulary = tuple(dict.fromkeys(token for window in windows for token in window))
    ids = [vocabulary.index(token) for window in windows for token in window]
    starts = np.cumsum([0, *map(len, windows)])
    return Text(np.array(ids), starts, vocabulary)


def read(*windows: list[str]) -> Features:
    return read_features(text_of(*windows))


def spell(features: Features, column: str) -> list[str]:
    return [features.words[i] for i in getattr(features, column)]


def place(features: Features, name: str) -> list[bool]:
    return features.places[:, PLACES.index(name)].tolist()


def test_words_are_pieces_joined_and_know_the_words_before() -> None:
    features = read(["", " the", " un", "happ", "y", " king", "."])
    assert spell(features, "word") == ["", "the", "un", "unhapp", "unhappy", "king", "."]
    assert spell(features, "before") == ["", "", "the", "the", "the", "unhappy", "king"]
    assert spell(features, "before2") == ["", "", "", "", "", "the", "unhappy"]
    assert place(features, "piece") == [False, False, False, True, True, False, False]
    assert [features.tokens[i] for i in features.token] == ["", "the", "un", "happ", "y", "king", "."]


def test_code_splits_at_signs_and_keeps_identifiers_whole() -> None:
    features = read(["\n", "    ", "self", ".", "my", "_", "name", "2", "(", "'", "abc", "'", ")"])
    assert spell(features, "word") == [
        "\n", "    ", "self", ".", "my", "my_", "my_name", "my_name2", "(", "'", "abc", "'", ")",
    ]  # fmt: skip
    assert spell(features, "before")[2] == "\n"  # indentation is stepped over


def test_an_apostrophe_belongs_to_the_word_it_is_in() -> None:
    assert spell(read([" don", "'", "t", " you"]), "word") == ["don", "don'", "don't", "you"]


def test_lines_sentences_quotes_and_brackets() -> None:
    window = ["Go", ".", " ", "Now", " I", "\n", '"', "Hm", ".", '"', " He", "(", "x", ")", "y", '"', "z", "\n", "w"]
    features = read(window)
    where = {name: [w for w, flag in zip(window, place(features, name), strict=True) if flag] for name in PLACES}
    assert where["line"] == ["Go", '"', "w"]
    assert where["sentence"] == ["Go", " ", "Now", '"', "Hm", '"', " He", "w"]
    assert where["quotes"] == ["Hm", ".", '"', "z", "\n"]
    assert where["brackets"] == ["x", ")"]


def test_windows_do_not_see_each_other() -> None:
    both, alone = read([" a", '"', "("], [" b", "c"]), read([" b", "c"])
    assert spell(both, "before")[3:] == spell(alone, "before")
    assert (both.places[3:] == alone.places).all()
    assert both.number[3] - both.number[2] >= 999


@pytest.mark.parametrize(
    ("word", "kinds"),
    [("King", {"capitalised"}), ("NASA", {"capitals"}), ("12", {"numbers"}), ("...", {"symbols"}),
     ("I", {"capitalised"}), ("\n", set()), ("", set()), ("iPod", set()), ("_x", set())],
)  # fmt: skip
def test_kinds_of_word(word: str, kinds: set[str]) -> None:
    assert {k for k in ("numbers", "capitalised", "capitals", "symbols") if has_kind(word, k)} == kinds
    with pytest.raises(ValueError):
        has_kind(word, "verbs")


def test_an_empty_text_has_no_positions() -> None:
    assert read_features(Text(np.zeros(0, int), np.zeros(1, int), ())).places.shape == (0, len(PLACES))
