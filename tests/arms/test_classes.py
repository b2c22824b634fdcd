"""Classes of tokens."""

from __future__ import annotations

from rewrite.arms.circuits.classes import CLASSES, classify

CONTENT, FUNCTION, SIGN, FIRST = CLASSES


def test_tokens_of_a_story() -> None:
    tokens = ["Once", " upon", " a", " time", ",", " the", " f", "ox", " ran", ".", " ", "The", " end", "!", "\n"]
    found = [CLASSES[number] for number in classify(tokens)]
    begin = [FIRST, CONTENT, FUNCTION, CONTENT, SIGN, FUNCTION, CONTENT, CONTENT, CONTENT, SIGN]
    assert found == [*begin, SIGN, FIRST, CONTENT, SIGN, SIGN]


def test_a_window_in_the_midst_of_a_sentence_begins_one_and_nothing_is_no_word() -> None:
    assert classify(["of", ""]).tolist() == [CLASSES.index(FIRST), CLASSES.index(SIGN)]
    assert classify([]).tolist() == []


def test_points_within_numbers_and_pieces_of_letters_end_and_mark_nothing() -> None:
    tokens = [" in", " 3", ".", "5", " os", ".", "path", " caf", "\ufffd", "\ufffd", '."', " She"]
    found = [CLASSES[number] for number in classify(tokens)]
    assert found[3:5] == [CONTENT, CONTENT] and found[6] == CONTENT
    assert found[8:10] == [CONTENT, CONTENT] and found[10:] == [SIGN, FIRST]
