"""The verdict in the corners: what is said is true and plain where there is no gap, little data, or one loud document.

The losses are made so that what is true of them is known; each case is the sentence, whole or in part, that must then
be read, and the words that must not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from makers.losses_made import Row, analyse_rows, make_rows, replace_arm

from rewrite.config import UserError
from rewrite.statistics.analysis import Latents

Rows = list[Row]


def move(rows: Rows, arm: str, by: Callable[[Row], float]) -> Rows:
    """The losses of an arm with something added [nats per token]."""
    return [row | {"nats": row["nats"] + by(row) * row["tokens"]} if row["arm"] == arm else row for row in rows]


def one_loud_document(row: Row) -> float:
    return 30.0 if row["document"] == 7 else 0.0


CASES: dict[str, tuple[Callable[[], Rows], str, str]] = {
    "a gap": (
        make_rows,
        r"^Simulating all 1,024 latents recovers 60% \[\d+, \d+\] of the 0\.51-nat gap "
        r"\(59% \[\d+, \d+\] of that to the mean\): better than zero ablation, p ",
        "Nothing",
    ),
    "the coder loses more than zero ablation": (
        lambda: make_rows(gap=-0.3),
        r"^Nothing to recover: the true values of the coder's latents lose against having none, "
        r"a gap of -0\.2\d \[-\S+, -0\.\d+\] nats to zero ablation, so no share of it is stated\. Simulating all 1,024 "
        r"latents changes the loss by \+0\.\d+ nats against zero ablation: worse than zero ablation",
        "recovers|%",
    ),
    "a gap that is not told from 0": (
        lambda: make_rows(gap=0.0),
        r"^Nothing to recover: the true values of the coder's latents are not told from having none, "
        r"a gap of \S+ \[-\S+, 0\.\d+\] ",
        "recovers|%",
    ),
    "a coder that costs more than its latents are worth": (
        lambda: move(make_rows(), "clean", lambda row: -2.0),
        r"^Simulating all 1,024 latents recovers 60%",
        "Nothing",
    ),
    "one loud document": (
        lambda: move(make_rows(), "zero", one_loud_document),
        r"recovers 76% \[-39, 87\] of the 0\.85-nat gap .*: inconclusive against zero ablation",
        "nan|inf",
    ),
    "no more than eight documents": (
        lambda: make_rows(documents=8),
        r"recovers 60% \[\d+, \d+\] .*: better than zero ablation, p = \S+, 8 documents",
        "Nothing",
    ),
    "a simulation that is zero ablation": (
        lambda: replace_arm(make_rows(), "simulated", "zero"),
        r"recovers 0% \[0, 0\] .*: equivalent to zero ablation within 0\.02\d nats",
        "better",
    ),
    "a simulation worse than zero ablation": (
        lambda: make_rows(kept=-0.5),
        r"recovers -\d+% \[-\d+, -\d+\] .*: worse than zero ablation",
        "better",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_sentence_is_true_and_plain(tmp_path: Path, case: str) -> None:
    make, said, unsaid = CASES[case]
    result = analyse_rows(tmp_path, make())
    sentence = result["verdict"]["sentence"]
    assert re.search(said, sentence), sentence
    assert not re.search(unsaid, sentence), sentence


@pytest.mark.parametrize("case", ["the coder loses more than zero ablation", "a gap that is not told from 0"])
def test_without_a_gap_no_share_is_stated_of_any_arm(tmp_path: Path, case: str) -> None:
    result = analyse_rows(tmp_path, CASES[case][0]())
    rows = result["arms"] + result["averages"]
    assert {row["recovered"] for row in rows} == {None} and {row["recovered_ci"] for row in rows} == {None}
    assert not any(row["verdict"] == "equivalent" for row in result["comparisons"])


def test_a_coder_that_costs_more_than_it_gives_is_warned_of(tmp_path: Path) -> None:
    said = analyse_rows(tmp_path, CASES["a coder that costs more than its latents are worth"][0]())["warnings"]
    assert said[0].startswith("The coder with its true latents costs 2.1 nats above the clean model, and its latents")
    assert not any("coder with" in line for line in analyse_rows(tmp_path, make_rows())["warnings"])
    negative = analyse_rows(tmp_path, make_rows(gap=-0.3))["warnings"]
    assert "are worth -0.2" in negative[0]


def test_one_loud_document_is_one_caution(tmp_path: Path) -> None:
    (said,) = analyse_rows(tmp_path, CASES["one loud document"][0]())["warnings"]
    assert said.startswith("The differences of these 30 documents are skewed") and "bootstrap-t" in said


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: [row for row in rows if row["document"] < 7], "7 documents are too few for a test: at least 8"),
        (lambda rows: move(rows, "zero", lambda row: np.inf), "the loss of document 0 in arm zero is inf"),
        (lambda rows: move(rows, "simulated", lambda row: np.nan), "in arm simulated fraction 0.1 best is nan"),
    ],
)
def test_what_allows_no_judgement_is_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[Rows], Rows], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        analyse_rows(tmp_path, spoil(make_rows()))
    assert "\n" not in str(caught.value) and "5_losses.parquet" in str(caught.value)


def test_differences_that_are_all_equal_are_refused(tmp_path: Path) -> None:
    """Losses of real documents are never all the same: a spread of 0 would make any difference certain."""
    coder = {row["document"]: row["nats"] for row in make_rows() if row["arm"] == "coder"}
    rows = [
        row | {"nats": coder[row["document"]] + 0.5 * row["tokens"]} if row["arm"] == "zero" else row
        for row in make_rows()
    ]
    with pytest.raises(UserError, match=r"arm zero against coder: all 30 documents give the same 0\.5 nats per token"):
        analyse_rows(tmp_path, rows)


def test_of_a_sample_of_the_latents_nothing_is_said_of_the_coder(tmp_path: Path) -> None:
    few = Latents(every=1024, rewritten=50, missing=0.0)
    found = analyse_rows(tmp_path, CASES["a coder that costs more than its latents are worth"][0](), latents=few)
    assert not any("coder with its true" in line for line in found["warnings"])
    sentence = analyse_rows(tmp_path, make_rows(gap=0.0), latents=few)["verdict"]["sentence"]
    assert sentence.startswith("Nothing to recover: the true values of 50 latents are not told from having none")
