"""Controls among the losses: the parts that they split the loss of a simulation into, and draws that are averaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers.losses_made import (
    DRAWS,
    add_controls,
    analyse_rows,
    find_arm,
    make_rows,
    write_losses,
)

from rewrite.statistics import analysis
from rewrite.statistics import paired as stats
from rewrite.statistics.losses import read_losses
from rewrite.statistics.verdict import find_headline


def test_the_split_adds_up_and_finds_what_was_put_in(tmp_path: Path) -> None:
    found = analyse_rows(tmp_path, add_controls(make_rows(documents=60)))
    parts = {row["part"]: row for row in found["split"]}
    assert list(parts) == ["magnitude", "sensitivity", "specificity"]
    lost = find_arm(found, "simulated", 1.0, "best")["loss"] - find_arm(found, "coder")["loss"]
    assert sum(row["nats"] for row in parts.values()) == pytest.approx(lost, abs=1e-9)
    assert sum(row["share"] for row in parts.values()) == pytest.approx(1, abs=1e-9)
    assert [row["share"] for row in parts.values()] == pytest.approx([0.2, 0.3, 0.5], abs=0.03)
    assert all(row["ci"][0] < row["nats"] < row["ci"][1] for row in parts.values())
    for share, row in zip((0.2, 0.3, 0.5), parts.values(), strict=True):
        assert share * lost in stats.Interval(*row["ci"])


def test_a_part_is_the_paired_difference_of_its_arms(tmp_path: Path) -> None:
    path = write_losses(tmp_path / "5_losses.parquet", add_controls(make_rows()))
    losses = read_losses(path)
    expected = stats.difference(losses.find("hits"), losses.find("matched"), losses.tokens)
    found = next(row for row in analysis.split_loss(losses, 0.05) if row["part"] == "sensitivity")
    interval = expected.interval(0.05)
    assert (found["nats"], found["ci"]) == (expected.value, [interval.low, interval.high])


def test_drawn_controls_are_averaged_and_compared(tmp_path: Path) -> None:
    rows = add_controls(make_rows())
    found = analyse_rows(tmp_path, rows)
    drawn = [row for row in rows if row["arm"] == "shuffled"]
    average = next(row for row in found["averages"] if row["arm"] == "shuffled")
    assert (average["seeds"], average["fraction"], average["order"]) == (DRAWS, 1.0, "")
    assert average["loss"] == pytest.approx(sum(r["nats"] for r in drawn) / sum(r["tokens"] for r in drawn), rel=1e-12)
    references = [row["reference"] for row in found["comparisons"] if row["family"] == "secondary"]
    assert references == ["coder", "mean", "mean_layer", "zero_layer", "shuffled"]
    control = [row for row in found["comparisons"] if row["family"] == "controls"]
    assert [(row["arm"], row["reference"]) for row in control] == [("shuffled", "mean")]
    assert control[0]["delta"] == pytest.approx(average["loss"] - find_arm(found, "mean")["loss"], abs=1e-12)
    assert find_headline(found)["arm"] == "simulated"
