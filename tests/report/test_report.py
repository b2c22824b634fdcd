"""report.md says what 6_stats.json says, shows foreign text as text, and stands without what may be absent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from makers.facts_made import make_facts, make_stats

from rewrite.config import Control, UserError
from rewrite.explainers.explanations import load_explanations
from rewrite.report.arms import CONTROLS, CURVES, select_curve, select_ladder
from rewrite.report.facts import KINDS, Latent, group_reasons
from rewrite.report.figures.places import name_bin
from rewrite.report.page.formats import WIDTH, format_cell, format_ends
from rewrite.report.page.markdown import render_markdown
from rewrite.statistics.firings import NAMES

Row = dict[str, Any]


@pytest.fixture(scope="module")
def stats(tmp_path_factory: pytest.TempPathFactory) -> Row:
    return make_stats(tmp_path_factory.mktemp("report") / "5_losses.parquet")


@pytest.fixture(scope="module")
def page(stats: Row) -> str:
    return render_markdown(make_facts(stats))


def table_under(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its two head lines."""
    after = page.split(f"\n{heading}\n", 1)[1].split("\n")
    start = next(i for i, line in enumerate(after) if line.startswith("|"))
    end = next((i for i, line in enumerate(after) if i > start and not line.startswith("|")), len(after))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in after[start + 2 : end]]


def numbers(cells: list[str]) -> list[float]:
    """Every number in some cells, p values given as bounds left out."""
    return [float(text) for cell in cells if "<" not in cell for text in re.findall(r"-?\d+\.?\d*(?:e-\d+)?", cell)]


def test_the_verdict_comes_first(page: str, stats: Row) -> None:
    lines = [line for line in page.split("\n") if line]
    assert lines[0].startswith("# layers.1.mlp of stories")
    assert lines[1] == f"**{stats['verdict']['sentence']}**"
    assert "somebody" not in page


def test_the_ladder_holds_the_numbers_of_the_statistics(page: str, stats: Row) -> None:
    rows = table_under(page, "## The ladder of arms")
    ladder = select_ladder(stats)
    assert [row[0] for row in rows] == ["clean", "coder", "simulated, 100%", "mean", "zero"]
    for cells, row in zip(rows, ladder, strict=True):
        expected = [row["loss"], row["se"], row["increase"], *row["increase_ci"]]
        expected += [100 * row["recovered"], *(100 * end for end in row["recovered_ci"])]
        assert numbers(cells[1:6])[:5] == pytest.approx(expected[:5], abs=0.5001e-4)
        assert numbers(cells[5:]) == pytest.approx(expected[5:], abs=0.05001)
    gap = stats["gap"]
    assert f"{gap['nats']:.4f} nats per token" in page
    assert f"interval [{gap['ci'][0]:.4f}, {gap['ci'][1]:.4f}]" in page


def test_the_curves_hold_the_numbers_of_the_statistics(page: str, stats: Row) -> None:
    rows = table_under(page, "## Loss against the share simulated")
    best = select_curve(stats, "simulated", "best")
    random = select_curve(stats, "simulated", "random")
    assert [row["fraction"] for row in best] == [row["fraction"] for row in random] == [0.01, 0.5, 1.0]
    assert [cells[0] for cells in rows] == ["best-explained latents first"] * 3 + ["random order"] * 3
    for cells, row in zip(rows, best + random, strict=True):
        assert numbers(cells[1:4]) == pytest.approx(
            [100 * row["fraction"], row["loss"], row["increase"]], abs=0.5001e-4
        )
        assert numbers(cells[4:5]) == pytest.approx(row["increase_ci"], abs=0.5001e-4)
        spread = row.get("sd_seeds")
        assert numbers(cells[7:]) == ([pytest.approx(spread, abs=0.5001e-4)] if spread else [])


def test_the_comparisons_hold_the_numbers_of_the_statistics(page: str, stats: Row) -> None:
    rows = table_under(page, "### Simulated arms against zero ablation")
    rows += table_under(page, "### The full simulation against the other baselines")
    for cells, row in zip(rows, stats["comparisons"], strict=True):
        assert cells[0].startswith(row["arm"].replace("_", "\\_"))
        assert cells[1] == row["reference"]
        assert numbers(cells[2:4] + cells[7:8]) == pytest.approx([row["delta"], *row["ci"], row["mde"]], abs=0.5001e-4)
        for cell, key in zip(cells[4:7], ("p_holm", "p_sign_flip", "p_equivalence"), strict=True):
            assert cell == (f"{row[key]:.2g}" if row[key] >= 1e-15 else "< 1e-15")
        assert cells[8] == f"**{row['verdict']}**"


def test_best_and_worst_latents_with_their_explanations(page: str) -> None:
    best, worst = table_under(page, "### Best"), table_under(page, "### Worst")
    assert [row[0] for row in best] == ["0", "1", "2", "6", "7", "8", "9", "10", "11", "12"]
    assert [row[0] for row in worst] == [str(i) for i in range(39, 29, -1)]
    correlation = 0.9 - 0.8 / 39
    assert best[1][1:] == [f"{correlation:.3f}", f"{correlation**2:.3f}", "1.23%", "fires on the word w1"]
    assert "37 of 40 latents have one; 1 never fire there" in page


def test_hostile_explanations_stay_in_their_cell(page: str) -> None:
    markdown = pytest.importorskip("markdown_it", reason="a Markdown reader to see the page as a browser does")
    cell = table_under(page, "### Best")[0][4]
    assert "|" not in cell.replace("\\|", "")
    html = markdown.MarkdownIt("commonmark").enable("table").render("| a |\n|---|\n| " + cell + " |\n")
    text = re.search(r"<td>(.*)</td>", html)
    assert text is not None
    assert text[1] == 'fires on "`| &lt;b&gt;*x*_y_ " and $5$, \\ and tab, [a](b) 🙂'.replace('"', "&quot;")


def test_what_each_latent_costs_is_told(page: str) -> None:
    rows = table_under(page, "## What each latent costs")
    assert [row[0] for row in rows] == [str(i) for i in (0, 1, 2, 3, 4, 5, 6, 8, 9, 10)]
    assert rows[0] == ["0", "0.02", "[0.01000, 0.03000]", "0.01", "0.03", "0.90", "1.2%"]
    assert rows[2][3:5] == ["0.01", "–"]
    assert "All costs add up to 0.1990 nats per token; the\nsimulation costs 0.2000: an error of 0.5%." in page
    assert "3 of 40 latents cost more than 0" in page
    assert (
        "25 latents were also measured alone, all others true: the rank correlation of both is 0.88 [0.50, 0.94]."
        in page
    )
    assert ["density: share of positions where it is active", "-0.25", "[-0.50, 0.00]", "–", ""] in table_under(
        page, "What predicts a latent's cost, by rank correlation:"
    )
    assert [row[0] for row in table_under(page, "## False and missed firings")] == list(NAMES.values())


def test_a_page_without_metrics_latents_or_gap(stats: Row) -> None:
    unclear = [row | {"recovered": None, "recovered_ci": None} for row in stats["arms"]]
    changed = stats | {"arms": unclear, "averages": [], "gap": {"nats": 0.01, "ci": [-0.1, 0.12], "se": 0.05}}
    page = render_markdown(make_facts(changed, metrics={}, latents=[], latent_costs=[], unexplained=[]))
    assert "No metrics came with this coder." in page
    assert "Every latent has an explanation, and no prediction is missing." in page
    assert {row[5] for row in table_under(page, "## The ladder of arms")} == {"–"}


def test_tests_that_disagree_are_pointed_out(stats: Row) -> None:
    assert "disagree" not in render_markdown(make_facts(stats))
    rows = [stats["comparisons"][0] | {"p": 0.04, "p_sign_flip": 0.06}, *stats["comparisons"][1:]]
    count = len(rows)
    assert f"disagree at 0.05 about 1 of the\n{count} comparisons" in render_markdown(
        make_facts(stats | {"comparisons": rows})
    )


def test_few_latents_are_not_both_best_and_worst(stats: Row) -> None:
    latents = [Latent(i, f"t{i}", 0.9 - 0.1 * i, 0.1, 1.0, "") for i in range(3)]
    page = render_markdown(make_facts(stats, latents=latents))
    assert [row[0] for row in table_under(page, "### Best")] == ["0", "1"]
    assert [row[0] for row in table_under(page, "### Worst")] == ["2"]


def test_reasons_beyond_the_list_are_added_up() -> None:
    kinds = group_reasons([f"kind {chr(97 + i)}" for i in range(KINDS + 3)] + ["kind c", ""])
    assert (kinds[0].reason, kinds[0].latents) == ("kind c", 2)
    assert (kinds[-1].reason, kinds[-1].latents) == ("other reasons", 4)
    assert sum(kind.latents for kind in kinds) == KINDS + 5


def test_an_explanations_line_that_is_not_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "3_explanations.jsonl"
    path.write_text('{"latent": 0, "text": "a"}\n{"latent": 1}\n')
    with pytest.raises(UserError, match=r"3_explanations.jsonl:2: not an explanation"):
        load_explanations(path)


def test_no_minus_zero_and_no_overlong_cells() -> None:
    assert format_ends([-0.00001, 0.5]) == "[0.0000, 0.5000]"
    assert len(format_cell("x" * 5000)) == WIDTH
    assert format_cell("  ") == "–"


def with_controls(stats: Row) -> Row:
    """Also a drawn control, a mixture, a split and a caution."""
    zero = next(row for row in stats["arms"] if row["arm"] == "zero")
    drawn = [zero | {"arm": "shuffled", "fraction": 1.0, "seed": seed} for seed in range(5)]
    average = {name: value for name, value in drawn[0].items() if name != "seed"} | {"seeds": 5, "sd_seeds": 0.001}
    parts = zip(("magnitude", "sensitivity", "specificity"), (0.08, 0.05, -0.01), strict=True)
    split = [{"part": part, "nats": x, "ci": [x - 0.02, x + 0.02], "share": x / 0.12} for part, x in parts]
    compared = stats["comparisons"][0] | {"arm": "shuffled", "reference": "mean", "order": "", "family": "controls"}
    return stats | {
        "arms": [*stats["arms"], *drawn, zero | {"arm": "quantised"}],
        "averages": [*stats["averages"], average],
        "comparisons": [*stats["comparisons"], compared | {"fraction": 1.0}],
        "split": split,
        "warnings": ["zero against coder: skewed."],
    }


def test_the_page_tells_why_not_more(stats: Row) -> None:
    assert "Why not more" not in render_markdown(make_facts(stats))
    page = render_markdown(make_facts(with_controls(stats)))
    rows = table_under(page, "## Why not more")
    assert [row[0].split(":")[0] for row in rows] == ["magnitude", "sensitivity", "specificity", "all"]
    assert rows[1][1:] == ["0.0500", "[0.0300, 0.0700]", "41.7%"]
    assert rows[3][1] == "0.1200"
    assert "\nCaution: zero against coder: skewed.\n" in page.split("## What was run")[0]


def test_controls_are_in_the_ladder_and_explained(stats: Row, page: str) -> None:
    changed = with_controls(stats)
    shown = render_markdown(make_facts(changed))
    names = [row[0].replace("\\", "") for row in table_under(shown, "## The ladder of arms")]
    assert names.count("shuffled, mean of 5 draws") == 1
    assert len(names) == len(select_ladder(stats)) + 2
    told = shown.split("Written at the layer")[1].split("## Why not more")[0]
    assert "| `shuffled` | every latent reads another latent's explanation" in told
    assert "token_table" not in told
    rows = table_under(shown, "### Controls told nothing of their latents against the mean")
    assert [row[:2] for row in rows] == [["shuffled", "mean"]]
    assert "### Controls told nothing" not in page


def test_every_control_that_can_be_chosen_is_told() -> None:
    assert set(get_args(Control)) | {"zero"} == set(CONTROLS)


def test_missing_predictions_are_counted_by_reason(page: str) -> None:
    rows = table_under(page, "## Missing")
    assert rows == [
        ["prediction: cannot parse", "2", "cannot parse: “gibberish of 4”"],
        ["explanation: refused", "1", "–"],
    ]
    assert "the latent keeps its mean where a prediction is missing" in page


def test_cost_and_metrics(page: str) -> None:
    assert table_under(page, "## The coder") == [["fvu", "0.1313"], ["dead", "12"]]
    rows = [["1\\_coder", "12.2"], ["5\\_losses.parquet", "3.5"], ["all", "15.8"]]
    assert table_under(page, "## Cost") == rows


def test_with_topk_there_are_four_curves(tmp_path: Path) -> None:
    page = render_markdown(make_facts(make_stats(tmp_path / "5_losses.parquet", topk=True)))
    curves = table_under(page, "## Loss against the share simulated")
    assert {row[0] for row in curves} == set(CURVES.values())
    assert "simulated\\_topk, 100%" in [row[0] for row in table_under(page, "## The ladder of arms")]


def test_what_was_asked_and_what_failed_is_told(stats: Row) -> None:
    ledger = {
        "calls": 1200,
        "tokens_in": 34000,
        "tokens_out": 560,
        "cached": 7,
        "retried": 3,
        "failed": {"timeout": {"requests": 2, "example": "after 3 s"}},
        "seconds": 12.5,
        "cost": 0.25,
        "cost_per_latent": 0.00625,
    }
    page = render_markdown(make_facts(stats, calls={"simulate": ledger}, faults={"timeout": 20, "malformed": 3}))
    missing = page.split("\n## Missing\n")[1]
    assert "| timeout | 20 |\n| malformed | 3 |" in missing
    assert "5% of the\npredictions on the test split are missing; beyond 5% there is no verdict" in missing
    calls = page.split("\nCalls of language models")[1]
    row = "| simulate | 1,200 | 34,000 | 560 | 7 | 3 | timeout: 2 | 12.5 | 0.2500 | 0.006250 |"
    assert row in calls


def test_where_the_loss_is_and_how_the_calibration_holds(page: str, stats: Row) -> None:
    rows = table_under(page, "## Where the loss is")
    expected = [(name_bin(row), own) for row in stats["places"] for own in row["arms"] if own["arm"] != "clean"]
    assert [(cells[1], cells[3]) for cells in rows] == [(name, own["arm"]) for name, own in expected]
    assert rows[1] == ["position", "1", "1,234", "simulated", "0.2500", "[0.1000, 0.3000]", "60.0%", "[50.0, 70.0]"]
    assert rows[4][4:] == ["0.2500", "", "–", ""]
    curve = table_under(page, "## Calibration")
    assert curve[3] == ["3", "9,997", "0.1875", "0.1500"]
    assert curve[4] == ["4", "0", "–", "–"]
