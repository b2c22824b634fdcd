"""Every figure is drawn, from whatever the statistics hold, and tells in words what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from makers.facts_made import make_latent_costs, make_stats
from test_report import with_controls

from rewrite.report.figures.arms import draw_fractions, draw_ladder, draw_split
from rewrite.report.figures.costs import draw_costs
from rewrite.report.figures.pictures import Drawn, save_picture
from rewrite.report.figures.places import draw_calibration, draw_places, name_bin

Row = dict[str, Any]


@pytest.fixture(scope="module")
def stats(tmp_path_factory: pytest.TempPathFactory) -> Row:
    return make_stats(tmp_path_factory.mktemp("figures") / "5_losses.parquet", topk=True)


def check(drawn: Drawn, folder: Path, *words: str) -> None:
    """It is drawn without a warning, in both widths, and says these words in the drawing or beside it."""
    picture = save_picture(drawn, folder)
    assert (folder / f"{drawn.name}.png").stat().st_size > 10_000
    for word in words:
        assert (word in picture.wide and word in picture.narrow) or word in picture.told


def test_the_ladder_and_the_split(stats: Row, tmp_path: Path) -> None:
    changed = with_controls(stats)
    check(draw_ladder(changed), tmp_path, "shuffled, mean of 5 draws", "quantised", "zero")
    check(draw_split(changed), tmp_path, "+0.080 (67%)", "-0.010 (-8%)", "sensitivity: firings missed")
    unclear = [row | {"share": None} for row in changed["split"]]
    check(draw_split(changed | {"split": unclear}), tmp_path, "+0.080;")


def test_fractions_with_0_and_with_one_only(stats: Row, tmp_path: Path) -> None:
    check(draw_fractions(stats), tmp_path, "best-explained latents first", "random order, k strongest kept", "50%")
    zero = [row | {"fraction": 0.0} for row in stats["arms"] if row["fraction"] == 0.01 and row["order"] == "best"]
    check(draw_fractions(stats | {"arms": stats["arms"] + zero}), tmp_path, "0%")
    one = [row for row in stats["arms"] if row["fraction"] in (None, 1.0)]
    check(draw_fractions(stats | {"arms": one, "averages": []}), tmp_path, "100%")


def test_places_with_and_without_intervals(stats: Row, tmp_path: Path) -> None:
    check(draw_places(stats, "position"), tmp_path, "2–3", "simulated 0.250")
    check(draw_places(stats, "frequency"), tmp_path, "0 or more", "zero: no latents")


@pytest.mark.parametrize(
    ("by", "low", "high", "name"),
    [
        ("position", 1, 2, "1"),
        ("position", 64, 128, "64–127"),
        ("frequency", 0, 0, "never"),
        ("frequency", 0, 10, "below 10"),
        ("frequency", 1000, 10000, "1,000–10,000"),
        ("frequency", 10000, None, "10,000 or more"),
    ],
)
def test_bins_have_names(by: str, low: int, high: int | None, name: str) -> None:
    assert name_bin({"by": by, "low": low, "high": high}) == name


def test_calibration_leaves_out_what_was_never_said(stats: Row, tmp_path: Path) -> None:
    drawn = draw_calibration(stats)
    check(drawn, tmp_path, "strength 3: 0.188, 0.150", "as predicted")
    assert "strength 4" not in drawn.told


def test_costs_with_what_is_unknown_and_with_none(tmp_path: Path) -> None:
    check(
        draw_costs(make_latent_costs(), 0.05),
        tmp_path,
        "39 latents that have a cost and a correlation, of 40; 3 of them cost more than 0",
        "measured alone",
    )
    unknown = [dict.fromkeys(row) for row in make_latent_costs()]
    check(draw_costs(unknown, 0.05), tmp_path, "each of 0 latents")


def test_no_band_goes_across_a_bin_without_an_interval(stats: Row) -> None:
    known, unknown = stats["places"][0], stats["places"][1]
    bins = [row | {"low": 1 << i, "high": 2 << i} for i, row in enumerate([known, known, unknown, known, known])]
    drawn = draw_places(stats | {"places": bins}, "position")
    band = drawn.wide.axes[0].collections[0]
    spans = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in band.get_paths()]
    assert spans == [(0, 1), (3, 4)]
