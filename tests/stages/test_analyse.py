"""6_stats.json from losses whose arithmetic is known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.finished_runs import write_calibration, write_places
from makers.losses_made import (
    QUICK,
    SEEDS,
    Row,
    add_controls,
    analyse_rows,
    find_arm,
    make_rows,
    replace_arm,
    write_losses,
)

from rewrite.config import Config
from rewrite.run.store import Run
from rewrite.stages import analyse
from rewrite.statistics import analysis
from rewrite.statistics import paired as stats
from rewrite.statistics.verdict import find_headline, format_p, verdict_sentence


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Row:
    return analyse_rows(tmp_path_factory.mktemp("analyse"), make_rows())


def test_the_schema_that_others_rely_on(result: Row) -> None:
    assert (result["schema"], result["unit"], result["documents"]) == (1, "document", 30)
    assert result["tokens"] == sum(row["tokens"] for row in make_rows() if row["arm"] == "clean")
    assert set(result["gap"]) >= {"nats", "ci"}
    arm_keys = {"arm", "fraction", "order", "seed", "loss", "se", "recovered", "recovered_ci"}
    assert all(set(row) >= arm_keys and isinstance(row["seed"], int) for row in result["arms"])
    keys = {"arm", "reference", "fraction", "order", "delta", "ci", "p", "p_holm", "margin", "p_equivalence", "mde"}
    assert all(set(row) >= keys | {"verdict"} for row in result["comparisons"])
    json.dumps(result, allow_nan=False)


def test_every_arm_once_and_sorted(result: Row) -> None:
    named = [(row["arm"], row["fraction"] or 0.0, row["order"], row["seed"]) for row in result["arms"]]
    assert named == sorted(named)
    assert len(named) == len(set(named)) == 6 + 3 + 2 * SEEDS


def test_losses_by_hand(result: Row) -> None:
    rows = make_rows()
    for arm in ("clean", "coder", "zero", "mean"):
        nats, tokens = (sum(row[name] for row in rows if row["arm"] == arm) for name in ("nats", "tokens"))
        assert find_arm(result, arm)["loss"] == pytest.approx(nats / tokens, rel=1e-12)
    gap = find_arm(result, "zero")["loss"] - find_arm(result, "coder")["loss"]
    assert result["gap"]["nats"] == pytest.approx(gap, rel=1e-9)
    assert find_arm(result, "coder")["recovered"] == 1
    assert find_arm(result, "zero")["recovered"] == 0
    simulated = find_arm(result, "simulated", 1.0, "best")
    assert simulated["recovered"] == pytest.approx(0.6, abs=0.02)
    assert simulated["recovered_ci"][0] < simulated["recovered"] < simulated["recovered_ci"][1]


def test_random_orders_are_averaged_within_documents(result: Row) -> None:
    rows = [row for row in make_rows() if row["order"] == "random" and row["fraction"] == 0.5]
    average = next(row for row in result["averages"] if row["fraction"] == 0.5)
    tokens = sum(row["tokens"] for row in rows) / SEEDS
    assert average["seeds"] == SEEDS
    assert average["loss"] == pytest.approx(sum(row["nats"] for row in rows) / SEEDS / tokens, rel=1e-12)
    draws = [row["loss"] for row in result["arms"] if row["order"] == "random" and row["fraction"] == 0.5]
    assert average["sd_seeds"] == pytest.approx(np.std(draws, ddof=1), rel=1e-9)
    compared = [row for row in result["comparisons"] if (row["order"], row["fraction"]) == ("random", 0.5)]
    assert len(compared) == 1
    assert compared[0]["delta"] == pytest.approx(average["loss"] - find_arm(result, "zero")["loss"], rel=1e-9)


def test_the_families(result: Row) -> None:
    primary = [row for row in result["comparisons"] if row["family"] == "primary"]
    secondary = [row for row in result["comparisons"] if row["family"] == "secondary"]
    assert [(row["fraction"], row["order"]) for row in primary] == [
        (0.1, "best"),
        (0.1, "random"),
        (0.5, "best"),
        (0.5, "random"),
        (1.0, "best"),
    ]
    assert {row["reference"] for row in primary} == {"zero"}
    assert [row["reference"] for row in secondary] == ["coder", "mean", "mean_layer", "zero_layer"]
    for family in (primary, secondary):
        assert [row["p_holm"] for row in family] == stats.holm([row["p"] for row in family])
    assert [row["verdict"] for row in secondary] == ["worse", "better", "better", "better"]


def test_one_comparison_is_what_the_statistics_say(result: Row) -> None:
    rows = make_rows()
    tokens = np.array([row["tokens"] for row in rows if row["arm"] == "zero"])
    arms = [
        np.array([row["nats"] for row in rows if (row["arm"], row["fraction"]) == key])
        for key in (("simulated", 1.0), ("zero", None))
    ]
    expected = stats.difference(arms[0], arms[1], tokens)
    found = find_headline(result)
    margin = 0.05 * result["gap"]["nats"]
    assert (found["delta"], found["p"]) == (expected.value, expected.p_value())
    assert found["ci"] == [expected.interval(0.05).low, expected.interval(0.05).high]
    assert (found["margin"], found["p_equivalence"]) == (margin, expected.p_equivalence(margin))
    assert found["mde"] == expected.detectable(0.05)
    assert found["p_sign_flip"] == pytest.approx(1 / 1000)


def test_the_verdict_is_the_headlines(result: Row) -> None:
    verdict = result["verdict"]
    assert (verdict["verdict"], verdict["arm"], verdict["fraction"]) == ("better", "simulated", 1.0)
    assert verdict["sentence"] == verdict_sentence(result)
    row = find_arm(result, "simulated", 1.0, "best")
    share, gap = f"{100 * row['recovered']:.0f}%", f"{result['gap']['nats']:.2g}-nat gap"
    low, high = (f"{100 * end:.0f}" for end in row["recovered_ci"])
    above = [f"{100 * value:.0f}" for value in (row["recovered_mean"], *row["recovered_mean_ci"])]
    assert verdict["sentence"] == (
        f"Simulating all 1,024 latents recovers {share} [{low}, {high}] of the {gap} "
        f"({above[0]}% [{above[1]}, {above[2]}] of that to the mean): "
        f"better than zero ablation, {format_p(verdict['p_holm'])}, 30 documents, {result['tokens']:,} tokens."
    )


@pytest.mark.parametrize(
    ("against", "said"),
    [
        ("better", ""),
        ("inconclusive", ", but not shown to be better than with the explanations shuffled among latents"),
        ("equivalent", ", but equivalent within the margin to what explanations shuffled among latents give"),
        ("worse", ", and worse than with the explanations shuffled among latents"),
        (None, ""),
    ],
)
def test_it_says_what_is_known_against_other_latents_words(result: Row, against: str | None, said: str) -> None:
    beside = find_headline(result) | {"reference": "shuffled", "verdict": against}
    sentence = verdict_sentence(result | {"comparisons": [*result["comparisons"], beside]})
    assert f"{format_p(find_headline(result)['p_holm'])}{said}, 30 documents" in sentence
    worse = [row | {"verdict": "worse"} for row in result["comparisons"]]
    assert "shuffled" not in verdict_sentence(result | {"comparisons": [*worse, beside]})


@pytest.mark.parametrize(
    ("kept", "word", "text"),
    [
        (-0.5, "worse", "recovers -5"),
        (0.0, "equivalent", "equivalent to zero ablation within 0.02"),
        (0.04, "inconclusive", "would be found four times in five by a single unadjusted test, 12 documents"),
    ],
)
def test_the_other_verdicts(tmp_path: Path, kept: float, word: str, text: str) -> None:
    rows = make_rows(kept=kept, documents=12 if word == "inconclusive" else 60)
    if word == "inconclusive":
        rng = np.random.default_rng(0)
        rows = [row | {"nats": row["nats"] + 20 * rng.normal()} if row["fraction"] == 1.0 else row for row in rows]
    verdict = analyse_rows(tmp_path, rows)["verdict"]
    assert verdict["verdict"] == word
    assert text in verdict["sentence"]


def test_a_simulation_that_is_the_coder_is_equivalent_to_it(tmp_path: Path) -> None:
    found = analyse_rows(tmp_path, replace_arm(make_rows(), "simulated", "coder"))
    against = next(row for row in found["comparisons"] if row["reference"] == "coder")
    assert (against["delta"], against["p"], against["p_sign_flip"], against["verdict"]) == (0, 1, 1, "equivalent")
    assert find_arm(found, "simulated", 1.0, "best")["recovered"] == 1
    assert found["verdict"]["verdict"] == "better"


def test_a_simulation_that_is_zero_is_equivalent_to_zero(tmp_path: Path) -> None:
    found = analyse_rows(tmp_path, replace_arm(make_rows(), "simulated", "zero"))
    assert found["verdict"]["verdict"] == "equivalent"
    assert "recovers 0% [0, 0]" in found["verdict"]["sentence"]


def test_without_a_gap_nothing_is_equivalent_and_no_share_is_stated(tmp_path: Path) -> None:
    rows = make_rows(gap=0.0)
    for found in (analyse_rows(tmp_path, rows), analyse_rows(tmp_path, replace_arm(rows, "simulated", "zero"))):
        assert found["gap"]["ci"][0] <= 0
        assert {row["margin"] for row in found["comparisons"]} == {0.0}
        assert all(row["verdict"] != "equivalent" for row in found["comparisons"])
        assert all(row["recovered_ci"] is None for row in found["arms"])
        assert "no share of it is stated" in found["verdict"]["sentence"]


def test_a_part_of_the_latents_is_named(tmp_path: Path) -> None:
    rows = [row for row in make_rows() if row["fraction"] != 1.0]
    assert analyse_rows(tmp_path, rows)["verdict"]["sentence"].startswith("Simulating 50% of 1,024 latents recovers")


def test_the_same_losses_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    rows = make_rows()
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    written = []
    for name, given in (("a", rows), ("b", shuffled)):
        with Run(tmp_path / name) as run:
            run.begin("k", ())
            with run.writing("5_losses.parquet") as path:
                write_losses(path, given)
            with run.writing("5_latents.parquet") as path:
                columns = {"missing_share": np.zeros(7), "maximum": np.ones(7)}
                table = pa.table({"latent": pa.array(range(7), pa.int32())} | columns)
                pq.write_table(table.replace_schema_metadata({"latents": "9"}), path)
            with run.writing("5_places.parquet") as path:
                write_places(path, np.full(10, 30), dict.fromkeys(("clean", "coder", "zero"), np.arange(10.0)))
            with run.writing("5_calibration.safetensors") as path:
                write_calibration(path, 9)
            analyse.run(Config(analyse=QUICK), run)
            written.append(run.path("6_stats.json").read_bytes())
    assert written[0] == written[1]
    assert json.loads(written[0])["latents"] == 9
    assert json.loads(written[0])["rewritten"] == 7


def test_too_much_that_is_missing_leaves_no_verdict(tmp_path: Path) -> None:
    found = analyse_rows(tmp_path, make_rows(), latents=analysis.Latents(1024, 1024, 0.0501))
    assert found["verdict"]["verdict"] is None
    assert found["verdict"]["sentence"].startswith("No verdict: 5.01% of the predictions are missing")
    assert all(row["verdict"] is None for row in found["comparisons"])
    whole = analyse_rows(tmp_path, make_rows(), latents=analysis.Latents(1024, 1024, 0.05))
    assert whole["verdict"]["verdict"] == "better"
    assert [row["delta"] for row in found["comparisons"]] == [row["delta"] for row in whole["comparisons"]]


def test_a_part_of_the_latents_is_not_set_beside_what_replaces_all(tmp_path: Path) -> None:
    whole = analyse_rows(tmp_path, make_rows())
    part = analyse_rows(tmp_path, [row for row in make_rows() if row["fraction"] != 1.0])
    references = [
        {row["reference"] for row in found["comparisons"] if row["family"] == "secondary"} for found in (whole, part)
    ]
    assert references[0] > {"coder", "mean"} and references[1] == {"coder"}


def test_a_sample_of_the_latents_is_named(tmp_path: Path) -> None:
    found = analyse_rows(tmp_path, make_rows(), latents=analysis.Latents(1024, 64, 0.0))
    assert found["verdict"]["sentence"].startswith("Simulating 64 of 1,024 latents recovers")


def test_documents_without_scored_tokens_count_for_nothing(tmp_path: Path) -> None:
    rows = make_rows()
    arms = [row for row in rows if row["document"] == 0]
    more = rows + [row | {"document": 99, "nats": 0.0, "tokens": 0} for row in arms]
    assert analyse_rows(tmp_path, more) == analyse_rows(tmp_path, rows)


def test_without_its_arms_or_all_latents_nothing_is_split(result: Row, tmp_path: Path) -> None:
    assert result["split"] == []
    part = [row for row in add_controls(make_rows()) if (row["arm"], row["fraction"]) != ("simulated", 1.0)]
    assert analyse_rows(tmp_path, part)["split"] == []


def test_skewed_documents_are_warned_of(tmp_path: Path) -> None:
    rows = make_rows(documents=200)
    assert analyse_rows(tmp_path, rows)["warnings"] == []
    rows = [
        row | {"nats": row["nats"] + 5 * row["tokens"]} if (row["arm"], row["document"]) == ("zero", 3) else row
        for row in rows
    ]
    found = analyse_rows(tmp_path, rows)["warnings"]
    assert len(found) == 1, "one caution for all that is skewed"
    assert re.findall(r"([a-z0-9, %]+ against \w+) \[", found[0]) == [
        " simulated, 100% against zero",
        " zero against coder",
    ]
