"""Runs side by side: a planted difference is found with its sign, and runs that cannot be compared are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.diagnosis_made import make_diagnosis
from makers.finished_runs import Made, Row, edit_manifest, losses_of, make_run
from statsmodels.stats.multitest import multipletests

from rewrite.commands.compare import compare
from rewrite.config import UserError
from rewrite.run.files import read_json, write_json
from rewrite.run.store import Run
from rewrite.statistics import paired as stats
from rewrite.statistics import resampling

BASE = Made(noise=0.02)


def facts_of(folder: Path, *runs: Made) -> Row:
    """The comparison of runs named a, b, c ..."""
    folders = [make_run(folder / "abcdef"[number], made) for number, made in enumerate(runs)]
    return compare(folders).facts


def per_token(made: Made, arm: str) -> float:
    """An arm's mean loss by hand."""
    tokens, arms = losses_of(made)
    return float((arms[arm] * tokens).sum() / tokens.sum())


def test_a_planted_difference_is_found_with_its_sign(tmp_path: Path) -> None:
    other = replace(BASE, kept=0.5, noise_seed=2)
    facts = facts_of(tmp_path, BASE, other)
    (row,) = facts["comparisons"]
    planted = per_token(BASE, "simulated") - per_token(other, "simulated")
    assert (row["a"], row["b"], row["measure"], row["verdict"], row["why"]) == ("a", "b", "loss", "better", "")
    assert row["delta"] == pytest.approx(planted, rel=1e-9)
    assert planted == pytest.approx(-0.1 * 0.5, abs=0.02)
    assert row["ci"][0] < row["delta"] < row["ci"][1] < 0
    (back,) = compare([tmp_path / "b", tmp_path / "a"]).facts["comparisons"]
    assert (back["verdict"], back["delta"]) == ("worse", pytest.approx(-planted, rel=1e-9))


def test_a_pair_is_the_paired_test_of_the_statistics(tmp_path: Path) -> None:
    other = replace(BASE, kept=0.62, noise_seed=2)
    (row,) = facts_of(tmp_path, BASE, other)["comparisons"]
    tokens, arms = losses_of(BASE)
    mine, theirs = arms["simulated"] * tokens, losses_of(other)[1]["simulated"] * tokens
    estimate = stats.difference(mine, theirs, tokens)
    gap = per_token(BASE, "zero") - per_token(BASE, "coder")
    assert row["p"] == pytest.approx(estimate.p_value(), rel=1e-9)
    assert row["margin"] == pytest.approx(0.05 * gap, rel=1e-9)
    region = stats.Region((arms["zero"] - arms["coder"]) * tokens, tokens, 0.05, 0.05)
    assert row["p_equivalence"] == pytest.approx(region.p_equivalence(mine - theirs), rel=1e-9)
    assert row["mde"] == pytest.approx(estimate.detectable(0.05), rel=1e-9)


def test_identical_runs_are_equivalent(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, BASE, BASE)
    (row,) = facts["comparisons"]
    assert (row["delta"], row["ci"], row["p"], row["verdict"]) == (0, [0, 0], 1, "equivalent")
    assert facts["settings"] == {}


def test_noise_alone_within_the_margin_is_equivalent(tmp_path: Path) -> None:
    (row,) = facts_of(tmp_path, BASE, replace(BASE, noise_seed=5))["comparisons"]
    assert row["verdict"] == "equivalent"
    assert row["delta"] != 0


def test_holm_over_all_pairs(tmp_path: Path) -> None:
    runs = [replace(BASE, kept=kept, noise=0.05, noise_seed=n) for n, kept in enumerate((0.6, 0.58, 0.5))]
    rows = facts_of(tmp_path, *runs)["comparisons"]
    assert [(row["a"], row["b"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    adjusted = multipletests([row["p"] for row in rows], method="holm")[1]
    assert [row["p_holm"] for row in rows] == pytest.approx(list(adjusted), rel=1e-9)
    assert rows[1]["p_holm"] > rows[1]["p"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"names": "book"}, r"scored on different documents \(30 and 30, 0 of them in both\)"),
        ({"simulated": 20}, r"scored on different documents \(30 and 20, 20 of them in both\)"),
        ({"corpus": "dead"}, r"the corpora differ \(sha256 c0ffee and dead\)"),
        (
            {"windows": tuple(3 for _ in range(30)), "config": {"corpus": {"max_windows": 3}}},
            "corpus.max_windows is None",
        ),
        ({"tail": 2, "config": {"sample": {"positions": 3}}}, "sample.positions is None and 3"),
        # As many tokens are scored, but not the same ones: only the hash over them tells.
        ({"tail": 1}, r"first in document doc-test-0 \(36 and 36 tokens\)"),
        ({"config": {"analyse": {"alpha": 0.05, "margin": 0.1}}}, "analyse.margin is 0.05 and 0.1"),
    ],
)
def test_other_documents_positions_or_margins_are_refused(tmp_path: Path, change: Row, expected: str) -> None:
    with pytest.raises(UserError, match=rf"^a and b: .*{expected}") as error:
        facts_of(tmp_path, BASE, replace(BASE, **change))
    assert "\n" not in str(error.value)


def test_how_a_split_is_cut_into_shards_is_nobodys_business(tmp_path: Path) -> None:
    (row,) = facts_of(tmp_path, BASE, replace(BASE, shard=7))["comparisons"]
    assert row["verdict"] == "equivalent"


def test_damaged_unfinished_and_repeated_runs_are_refused(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "a", BASE), make_run(tmp_path / "b", BASE)
    with pytest.raises(UserError, match="a: named twice"):
        compare([one, one])
    with pytest.raises(UserError, match="two runs or more"):
        compare([one])
    with pytest.raises(UserError, match=r"nothing: no run there \(no manifest.json\)"):
        compare([one, tmp_path / "nothing"])
    make_run(tmp_path / "few", replace(BASE, windows=(3,) * 5))
    with pytest.raises(UserError, match=r"few: not finished \(6_stats.json is not there\)"):
        compare([one, tmp_path / "few"])
    (other / "5_losses.parquet").write_bytes((other / "5_losses.parquet").read_bytes() + b" ")
    with pytest.raises(UserError, match=r"5_losses.parquet: not what was written"):
        compare([one, other])


def test_a_run_whose_later_stages_are_out_of_date_is_refused(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "a", BASE), make_run(tmp_path / "b", BASE)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["artefacts"]["3_explanations.jsonl"]["sha256"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"4_simulations was not made from the 3_explanations.jsonl that is there"):
        compare([one, other])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"coder": b"others"}, "the coder is"),
        ({"config": {"hookpoint": "layers.2.mlp"}}, "the hookpoint is"),
        ({"clean": 1.2}, "the subject's own losses are"),
        ({"latents": range(20)}, "the latents that are rewritten are"),
        ({"extra": 0.1}, "the losses of coder are"),
        ({"gap": 0.7}, "the losses of zero are"),
    ],
)
def test_where_losses_mean_different_things_shares_are_compared(tmp_path: Path, change: Row, why: str) -> None:
    (row,) = facts_of(tmp_path, BASE, replace(BASE, kept=0.4, noise_seed=2, **change))["comparisons"]
    assert (row["measure"], row["why"]) == ("recovered", f"{why} not the same")
    assert row["margin"] == 0.05
    assert row["delta"] == pytest.approx(0.2, abs=0.03)
    assert row["verdict"] == "better", "more recovered is better"


def test_the_difference_of_shares_is_the_jackknife(tmp_path: Path) -> None:
    other = replace(BASE, kept=0.5, noise=0.1, noise_seed=2, gap=0.8, coder=b"others")
    (row,) = facts_of(tmp_path, BASE, other)["comparisons"]

    def share(made: Made, left_out: int) -> float:
        tokens, arms = losses_of(made)
        kept = [i for i in range(30) if i != left_out]
        sums = {arm: float((loss * tokens)[kept].sum()) for arm, loss in arms.items()}
        return (sums["zero"] - sums["simulated"]) / (sums["zero"] - sums["coder"])

    whole = share(BASE, -1) - share(other, -1)
    parts = np.array([share(BASE, i) - share(other, i) for i in range(30)])
    se = float(np.sqrt(29 / 30 * np.square(parts - whole).sum()))
    assert row["delta"] == pytest.approx(whole, rel=1e-9)
    assert row["ci"] == pytest.approx([whole - 2.0452296421327034 * se, whole + 2.0452296421327034 * se], rel=1e-9)


def test_with_one_gap_shares_and_losses_say_the_same(tmp_path: Path) -> None:
    base = replace(BASE, spread=1e-7)
    other = replace(base, kept=0.58, noise_seed=2)
    (losses,) = facts_of(tmp_path / "losses", base, other)["comparisons"]
    (shares,) = facts_of(tmp_path / "shares", base, replace(other, coder=b"others"))["comparisons"]
    assert (losses["measure"], shares["measure"]) == ("loss", "recovered")
    assert shares["delta"] == pytest.approx(-losses["delta"] / 0.5, rel=1e-6)
    for key in ("p", "p_equivalence"):
        assert shares[key] == pytest.approx(losses[key], rel=1e-6)
    assert shares["verdict"] == losses["verdict"]


def test_without_a_gap_there_is_no_share_to_compare(tmp_path: Path) -> None:
    flat = replace(BASE, gap=0.0, coder=b"others")
    rows = facts_of(tmp_path, BASE, replace(BASE, kept=0.5, noise_seed=2), flat)["comparisons"]
    assert [row["verdict"] for row in rows] == ["better", None, None]
    assert rows[1]["why"] == "the coder is not the same, and the gap of c is not told from 0"
    assert rows[1]["delta"] is None
    assert rows[0]["p_holm"] == rows[0]["p"], "what is not tested is not one of the family"


@pytest.mark.parametrize("coder", [b"weights", b"others"])
def test_skewed_documents_are_cautioned_about(tmp_path: Path, coder: bytes) -> None:
    outlier = replace(BASE, noise_seed=2, noise=0.02, coder=coder, outlier=2.0)
    folders = [make_run(tmp_path / "a", BASE), make_run(tmp_path / "b", outlier)]
    page = compare(folders)
    (row,) = page.facts["comparisons"]
    assert "skewed" in row["caution"]
    assert any(row["caution"] in note for note in page.notes)
    if row["measure"] == "loss":
        tokens = losses_of(BASE)[0]
        nats = (losses_of(BASE)[1]["simulated"] - losses_of(outlier)[1]["simulated"]) * tokens
        student = resampling.bootstrap_t(nats, tokens, 0.05, 10_000, 0)
        assert student is not None
        assert row["ci_bootstrap_t"] == pytest.approx([student.low, student.high], rel=1e-9)
    (sound,) = compare([folders[0], make_run(tmp_path / "c", replace(BASE, noise_seed=2, coder=coder))]).facts[
        "comparisons"
    ]
    assert sound["caution"] == ""


def test_too_many_missing_predictions_leave_no_verdict(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, BASE, replace(BASE, kept=0.5, missing=0.2))
    (row,) = facts["comparisons"]
    assert (row["verdict"], row["why"]) == (None, "too many predictions are missing in b")
    assert [run["verdict"] for run in facts["runs"]] == ["better", None]
    assert [run["missing"] for run in facts["runs"]] == [0, pytest.approx(0.2)]


def test_words_cost_and_settings(tmp_path: Path) -> None:
    spent = {"calls": 10, "tokens_in": 100, "tokens_out": 10, "cached": 0, "seconds": 1.0}
    paid = replace(BASE, ledger={"explain": spent | {"cost": 0.25}, "simulate": spent | {"cost": 0.5}})
    unpriced = replace(paid, ledger={"simulate": spent | {"cost": 0.0}}, text="three words here", latents=range(40))
    facts = facts_of(tmp_path, BASE, replace(paid, config={"simulator": "llm", "device": "cuda"}), unpriced)
    assert [run["cost"] for run in facts["runs"]] == [0, 0.75, None]
    assert [run["calls"] for run in facts["runs"]] == [0, 20, 10]
    assert [run["words"] for run in facts["runs"]] == [5, 5, 3]
    assert facts["settings"] == {"simulator": {"a": None, "b": "llm", "c": None}}
    seconds = sum(
        e["seconds"] for e in json.loads((tmp_path / "a" / "manifest.json").read_text())["artefacts"].values()
    )
    assert facts["runs"][0]["seconds"] == pytest.approx(seconds, abs=0.01)


def test_where_the_damage_goes_stands_side_by_side(tmp_path: Path) -> None:
    asked = replace(BASE, config={"diagnose": {"documents": 4}})
    folders = [make_run(tmp_path / "a", BASE), make_run(tmp_path / "b", asked)]
    assert "damage" not in str(compare(folders).tables), "runs that did not ask have no table"
    with Run(folders[1]) as run:
        run.begin("k", ["4_simulations"])
        with run.writing("5_diagnosis.json") as path:
            write_json(path, make_diagnosis())
    page = compare(folders)
    table = next(table for table in page.tables if "damage" in table.heading)
    (way, _) = make_diagnosis()["way"]
    direct = next(row for row in way["kinds"] if row["kind"] == "direct")
    assert [row[0] for row in table.rows] == ["b"] and table.heads[3] == "direct [%]"
    assert table.rows[0][3].startswith(f"{100 * direct['share']:.1f} [")
    assert page.facts["runs"][0]["damage"] is None and page.facts["runs"][1]["damage"]["nats"] == way["nats"]


def test_a_diagnosis_that_an_earlier_setting_left_refuses_no_run(tmp_path: Path) -> None:
    """It is not asked for any more, or is made from strengths that are not there any more."""
    asked = replace(BASE, config={"diagnose": {"documents": 4}})
    folders = [make_run(tmp_path / "a", BASE), make_run(tmp_path / "b", asked)]
    for folder in folders:
        with Run(folder) as run:
            run.begin("k", ["4_simulations"])
            with run.writing("5_diagnosis.json") as path:
                write_json(path, make_diagnosis())
    artefacts = read_json(folders[1] / "manifest.json")["artefacts"]
    artefacts["5_diagnosis.json"]["inputs"]["4_simulations"] = "others"
    edit_manifest(folders[1], artefacts=artefacts)
    assert [run["damage"] for run in compare(folders).facts["runs"]] == [None, None]
