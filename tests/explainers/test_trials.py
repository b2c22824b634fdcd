"""Candidates are chosen, and revisions kept, by how well the simulator's reading fits windows that no prompt shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from explainers.test_explain_llm import Scripted, evidence, settings
from scipy import stats

from rewrite.engines.base import Answer, Fault, Question
from rewrite.explainers.base import Explanation, Tried
from rewrite.explainers.exemplars import Exemplar, Windows
from rewrite.explainers.explanations import load_explanations, save_explanations
from rewrite.explainers.llm.build import build
from rewrite.explainers.trials import Trial, hold_back
from rewrite.text.windows import Text

KING = 1
"""The latent that fires on " king"."""


def trial(truth: Sequence[float]) -> Trial:
    tokens = ("", *(f" w{i}" for i in range(len(truth))))
    text = Text(np.arange(len(tokens)), np.array([0, len(tokens)]), tokens)
    active = np.array([0.0, *truth])
    return Trial(text, np.array(truth), (Exemplar(tokens, active),))


def test_a_fit_is_the_correlation() -> None:
    truth, strengths = np.array([0.0, 0.2, 1.0, 0.4]), np.array([0.1, 0.0, 0.7, 0.9])
    found = trial(truth.tolist()).fit(strengths)
    assert found == pytest.approx(stats.pearsonr(truth, strengths).statistic)


def test_a_reader_that_says_the_same_of_all_fits_nothing() -> None:
    assert trial([0.0, 1.0, 0.5]).fit(np.full(3, 0.4)) == 0.0


def test_what_is_mostly_missing_has_no_fit() -> None:
    assert trial([0.0, 1.0, 0.5]).fit(np.array([np.nan, np.nan, 0.5])) is None
    assert trial([0.0, 1.0, 0.5]).fit(np.array([0.0, 1.0, np.nan])) == pytest.approx(1.0)


def test_errors_are_the_largest_differences() -> None:
    missed, false = trial([1.0, 0.0, 0.5, 0.0]).errors(np.array([0.1, 0.1, 0.5, 0.9]))
    assert missed == ["<< w0>>"] and false == [" w0 w1 w2<< w3>>"]


def test_windows_held_back_are_shown_by_no_prompt() -> None:
    windows = Windows(evidence(), 12)
    firings = windows.firings(KING)
    shown = firings.windows[:4]
    halves = hold_back(windows, KING, shown, 8, 0)
    assert halves is not None
    first, second = ({exemplar.tokens for exemplar in half.exemplars} for half in halves)
    given = {windows.show(KING, int(number)).tokens for number in shown}
    assert not first & second and not (first | second) & given
    for half in halves:
        firing = [exemplar.activations.any() for exemplar in half.exemplars]
        assert 0 < sum(firing) < len(firing)
        assert half.truth.max() <= 1 and len(half.truth) == half.text.counted().sum()


def test_too_few_windows_leave_nothing_to_try_on() -> None:
    windows = Windows(evidence(), 12)
    assert hold_back(windows, KING, windows.firings(KING).windows[:-3], 8, 0) is None


def reader(text_that_knows: str) -> Callable[[Sequence[str], Text], np.ndarray]:
    """A reader to whom one sentence says where the latent fires, and any other the opposite."""

    def simulate(texts: Sequence[str], text: Text) -> np.ndarray:
        king = np.array([text.vocabulary[i] == " king" for i in text.ids])[text.counted()].astype(float)
        return np.stack([king if text_that_knows in written else 1 - king for written in texts], axis=1)

    return simulate


def explain(
    script: Callable[[Question], Answer | Fault], knows: str, **changes: object
) -> tuple[Explanation, Scripted]:
    engine = Scripted(script)
    built = build(settings(windows=2, few_shot=0, **changes), lambda model: engine, reader(knows))
    (found,) = built.explain(evidence(), [KING])
    return found, engine


def test_of_several_candidates_the_one_that_fits_is_kept() -> None:
    found, engine = explain(lambda q: Answer(f" Sentence {q.seed}."), "Sentence 2", candidates=4, seed=1)
    assert found.text == "Sentence 2."
    assert [one.text for one in found.tried] == [f"Sentence {i}." for i in (1, 2, 3, 4)]
    fits = [one.fit for one in found.tried]
    assert fits[1] is not None and fits[1] > 0.7 and all(fit is not None and fit < 0 for fit in (fits[0], fits[2]))
    assert len({q.messages[-1].content for q in engine.asked}) > 1, "each is written from other windows"


def test_a_candidate_that_is_none_is_recorded_and_never_kept() -> None:
    found, _ = explain(
        lambda q: Answer(" I'm sorry, I can't.") if q.seed else Answer(" Kings."), "no one", candidates=2
    )
    assert found.text == "Kings." and found.tried[1].text is None and found.tried[1].why.startswith("refusal")


def revised(question: Question) -> bool:
    return question.messages[-2].role == "assistant"


def test_a_revision_is_shown_the_errors_and_kept_where_it_fits_better() -> None:
    found, engine = explain(lambda q: Answer(" Kings." if revised(q) else " Dogs."), "Kings", rounds=1)
    assert found.text == "Kings." and [one.text for one in found.tried] == ["Dogs.", "Kings."]
    asked = engine.asked[1]
    assert asked.messages[-2].content == "[EXPLANATION]: Dogs."
    missed = re.split("does not respond", asked.messages[-1].content)[0]
    assert "<< king>>" in missed


def test_a_revision_that_fits_worse_is_not_kept() -> None:
    found, engine = explain(lambda q: Answer(" Kings." if not revised(q) else " Dogs."), "Kings", rounds=2)
    assert found.text == "Kings." and [one.text for one in found.tried] == ["Kings.", "Dogs."]
    assert len(engine.asked) == 2, "the same errors would bring the same answer"


def test_what_was_tried_is_kept_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    one = Explanation(3, "Kings.", "", "", (Tried("Kings.", "", 0.5), Tried(None, "refusal: x", None)))
    save_explanations(file, [one, Explanation(4, "Dogs.")])
    assert load_explanations(file) == [one, Explanation(4, "Dogs.")]
    assert "tried" not in file.read_text().splitlines()[1]
