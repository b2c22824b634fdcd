"""Judged explanations side by side: paired by latent, on the latents with a score in both, by the same judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.finished_runs import Made, Row, make_run
from scipy.stats import ttest_1samp

from rewrite.commands.compare import compare
from rewrite.run.store import Run

BASE = Made(noise=0.02)
JUDGE: Row = {"score": {"model": "judge", "windows": 5, "scorers": ["detection", "fuzz"]}}
Column = Sequence[float | None]


def make(folder: Path, scores: Mapping[str, Column], made: Made = BASE, config: Row = JUDGE) -> Path:
    """A run with scores of its latents."""
    make_run(folder, replace(made, config=config))
    with Run(folder) as run:
        run.begin("k", ["2_activations", "3_explanations.jsonl", "4_simulations"])
        with run.writing("4_scores.parquet") as path:
            pq.write_table(pa.table({"latent": pa.array(range(40), pa.int32()), **scores}), path)
    return folder


def spread(middle: float, seed: int, lacking: Sequence[int] = ()) -> list[float | None]:
    values = middle + 0.1 * np.random.default_rng(seed).normal(size=40)
    return [None if latent in lacking else float(value) for latent, value in enumerate(values)]


def test_the_mean_of_each_and_of_their_difference(tmp_path: Path) -> None:
    """On the latents that have a score in both: the others of one run may be the easy ones."""
    mine, yours = spread(0.7, 1, lacking=[0, 1, 2]), spread(0.6, 2, lacking=[2, 3])
    a = make(tmp_path / "a", {"detection": mine, "fuzz": spread(0.5, 3)})
    b = make(tmp_path / "b", {"detection": yours, "fuzz": spread(0.5, 4)})
    page = compare([a, b])
    detection, fuzz = page.facts["judged"]
    both = np.array([[m, y] for m, y in zip(mine, yours, strict=True) if m is not None and y is not None])
    assert (detection["scorer"], detection["a"], detection["b"], detection["why"]) == ("detection", "a", "b", "")
    assert (detection["latents"], detection["rewritten"], len(both)) == (36, 40, 36)
    assert [detection["mean_a"], detection["mean_b"]] == pytest.approx(list(both.mean(0)))
    assert detection["delta"] == pytest.approx((both[:, 0] - both[:, 1]).mean())
    interval = ttest_1samp(both[:, 0] - both[:, 1], 0).confidence_interval(0.95)
    assert detection["ci"] == pytest.approx(list(interval))
    assert (fuzz["scorer"], fuzz["latents"]) == ("fuzz", 40)
    shown = page.write("table")
    assert "latents with a score in both" in shown and "0.5 is a guess" in shown


def test_only_what_was_rewritten_counts(tmp_path: Path) -> None:
    few = replace(BASE, latents=range(10))
    a = make(tmp_path / "a", {"detection": spread(0.7, 1)}, few)
    b = make(tmp_path / "b", {"detection": spread(0.6, 2)}, few)
    (row,) = compare([a, b]).facts["judged"]
    assert (row["latents"], row["rewritten"]) == (10, 10)


def test_other_judges_are_no_measure(tmp_path: Path) -> None:
    scores = {"detection": spread(0.7, 1)}
    other = {"score": JUDGE["score"] | {"model": "another"}}
    page = compare([make(tmp_path / "a", scores), make(tmp_path / "b", scores, config=other)])
    (row,) = page.facts["judged"]
    assert (row["mean_a"], row["delta"], row["ci"]) == (None, None, None)
    assert row["why"] == "score.model is judge and another"
    assert "a against b, judged: score.model is judge and another." in page.notes


def test_no_score_in_both_and_too_few_for_an_interval(tmp_path: Path) -> None:
    mine, yours = spread(0.7, 1, lacking=range(20)), spread(0.6, 2, lacking=range(20, 40))
    a, b = make(tmp_path / "a", {"detection": mine}), make(tmp_path / "b", {"detection": yours})
    c = make(tmp_path / "c", {"detection": spread(0.6, 2, lacking=range(25, 40))})
    nothing, few, _ = compare([a, b, c]).facts["judged"]
    assert nothing["why"] == "no latent has a score in both" and nothing["delta"] is None
    assert few["latents"] == 5 and few["delta"] is not None and few["ci"] is None


def test_unjudged_runs_and_other_coders_have_no_row(tmp_path: Path) -> None:
    scores = {"detection": spread(0.7, 1)}
    judged = make(tmp_path / "a", scores)
    unjudged = make(tmp_path / "b", {"simulation": spread(0.7, 1)})
    unscored = make_run(tmp_path / "c", BASE)
    foreign = make(tmp_path / "d", scores, replace(BASE, coder=b"others"))
    page = compare([judged, unjudged, unscored, foreign])
    assert page.facts["judged"] == []
    assert "judged by" not in page.write("table")
