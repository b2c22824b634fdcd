"""The word for a comparison, and a p value as text."""

from __future__ import annotations

import pytest

from rewrite.statistics.verdict import decide, format_p


@pytest.mark.parametrize(
    ("value", "p_holm", "p_equivalence", "word"),
    [
        (-0.3, 0.001, 0.9, "better"),
        (0.3, 0.001, 0.9, "worse"),
        (0.3, 0.2, 0.9, "inconclusive"),
        (0.001, 0.001, 0.001, "equivalent"),
        (-0.3, 0.05, 0.05, "inconclusive"),
    ],
)
def test_the_word(value: float, p_holm: float, p_equivalence: float, word: str) -> None:
    assert decide(value, p_holm, p_equivalence, 0.05) == word


def test_no_word_without_numbers() -> None:
    with pytest.raises(ValueError, match="not finite"):
        decide(float("nan"), 0.01, 0.5, 0.05)


@pytest.mark.parametrize(
    ("p", "text"), [(0.0312, "p = 0.031"), (2e-9, "p = 2e-09"), (1e-16, "p < 1e-15"), (1.0, "p = 1")]
)
def test_p_as_text(p: float, text: str) -> None:
    assert format_p(p) == text
