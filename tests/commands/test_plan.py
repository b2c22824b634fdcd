"""A plan from a small run: its documents are those of a paired t test, its bill is the run's own, scaled."""

from __future__ import annotations

import json
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from makers.finished_runs import Made, Row, edit_manifest, losses_of, make_run
from statsmodels.stats.power import TTestPower

import rewrite.__main__ as cli
from rewrite.commands.plan import Wish, plan_run
from rewrite.commands.plan.spending import read_spending
from rewrite.config import UserError
from rewrite.run.files import read_json
from rewrite.run.finished import open_finished

EQUAL = Made(noise=0.05, windows=(3,) * 20)
SPENT = {"calls": 100, "tokens_in": 5000, "tokens_out": 400, "cached": 0, "seconds": 7200.0, "cost": 2.0}
ANY = Wish()


def plan(folder: Path, made: Made, wish: Wish = ANY) -> Row:
    return plan_run(make_run(folder / "pilot", made), wish).facts


@pytest.mark.parametrize("power", [0.8, 0.95])
def test_the_documents_are_those_of_a_paired_t_test(tmp_path: Path, power: float) -> None:
    effects = (0.005, 0.02, 0.05, 0.1)
    facts = plan(tmp_path, EQUAL, Wish(effects, "nats", power, "coder"))
    _, arms = losses_of(EQUAL)
    sd = float(np.std(arms["simulated"] - arms["coder"], ddof=1))
    assert facts["sd"] == pytest.approx(sd, rel=1e-9)
    for effect, row in zip(effects, facts["plans"], strict=True):
        needed = TTestPower().solve_power(effect_size=effect / sd, alpha=0.05, power=power)
        assert row["documents"] == pytest.approx(max(ceil(needed), 8), abs=1)
        assert row["documents_sure"] > row["documents"] or row["documents"] == 8
        assert row["nats"] == effect


def test_an_effect_in_shares_is_that_share_of_the_gap(tmp_path: Path) -> None:
    in_shares = plan(tmp_path / "a", EQUAL, Wish((0.02,), reference="mean"))
    nats = 0.02 * in_shares["gap"]
    tokens, arms = losses_of(EQUAL)
    assert in_shares["gap"] == pytest.approx(((arms["zero"] - arms["coder"]) * tokens).sum() / tokens.sum(), rel=1e-9)
    in_nats = plan(tmp_path / "b", EQUAL, Wish((nats,), "nats", reference="mean"))
    assert in_shares["plans"][0]["documents"] == in_nats["plans"][0]["documents"]
    assert in_nats["plans"][0]["recovered"] == pytest.approx(0.02, rel=1e-9)


def test_the_run_itself_is_a_row_whose_effect_its_documents_find(tmp_path: Path) -> None:
    own = plan(tmp_path / "a", EQUAL)["pilot"]
    assert own["documents"] == 20
    again = plan(tmp_path / "b", EQUAL, Wish((1.0001 * own["nats"],), "nats"))
    assert again["plans"][0]["documents"] == 20
    assert again["pilot"]["documents"] == 20


def test_the_bill_of_the_run_itself_is_its_ledger(tmp_path: Path) -> None:
    made = replace(EQUAL, ledger={"explain": SPENT, "simulate": SPENT | {"calls": 1000}})
    own = plan(tmp_path, made)["pilot"]
    assert (own["calls"], own["tokens"], own["dollars"]) == (1100, 10800, 4.0)
    positions = (20 * 3 + 6 * 3) * 19
    assert (own["positions"], own["predictions"]) == (positions, 40 * positions)
    assert own["hours"] == pytest.approx(4.0, abs=0.05), "waiting for answers, over all sessions"


def test_simulating_grows_with_predictions_and_explaining_with_latents(tmp_path: Path) -> None:
    made = replace(EQUAL, ledger={"explain": SPENT, "simulate": SPENT | {"calls": 1000}})
    spending = read_spending(open_finished(make_run(tmp_path / "pilot", made)), 40)
    bill = spending.price(spending.grow(60, 80))
    # 6 calibrate documents stay, 20 test documents become 60, and every latent is predicted at each position.
    factor = 2 * (60 + 6) / (20 + 6)
    assert bill.predictions == (60 + 6) * 3 * 19 * 80
    assert bill.calls == round(200 + 1000 * factor)
    assert bill.tokens == round(5400 * (2 + factor))
    assert bill.dollars == pytest.approx(2 * (2 + factor))
    assert bill.hours == pytest.approx(2 * (2 + factor), rel=0.02)


def test_where_documents_are_drawn_the_calibrate_split_grows_alike_as_far_as_it_goes(tmp_path: Path) -> None:
    made = replace(EQUAL, simulated=10, calibrate=15, config={"sample": {"documents": 10}})
    spending = read_spending(open_finished(make_run(tmp_path / "pilot", made)), 40)
    assert (spending.size.documents, spending.size.test, spending.size.calibrate) == (10, 570, 570)
    assert spending.grow(12, 40).calibrate == pytest.approx(12 * 57)
    assert spending.grow(500, 40).calibrate == pytest.approx(15 * 57)
    assert spending.grow(12, 40).tokens == spending.size.tokens, "collected once for the whole split"


def test_what_the_cache_answered_is_asked_again_by_a_larger_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "pilot", replace(EQUAL, ledger={"simulate": SPENT | {"cached": 100}}))
    assert plan_run(folder, Wish()).facts["pilot"]["calls"] == 200
    edit_manifest(folder, calls={"simulate": SPENT | {"calls": 0, "cached": 100, "cost": 0.0}})
    page = plan_run(folder, Wish())
    assert [page.facts["pilot"][key] for key in ("calls", "tokens", "dollars")] == [None] * 3
    assert "cannot be told" in page.notes[-1]


def test_what_was_taken_over_from_another_run_is_not_free(tmp_path: Path) -> None:
    config = {"explainer": "llm", "explainers": {"llm": {"model": "m"}}}
    folder = make_run(tmp_path / "pilot", replace(EQUAL, ledger={"simulate": SPENT}))
    artefacts = read_json(folder / "manifest.json")["artefacts"]
    artefacts["3_explanations.jsonl"] |= {"seconds": 0.0, "from": "other"}
    edit_manifest(folder, artefacts=artefacts)
    own = plan_run(folder, Wish()).facts["pilot"]
    assert own["calls"] == 100 and own["hours"] is None, "patterns ask nobody"
    edit_manifest(folder, config=config)
    page = plan_run(folder, Wish())
    for row in (page.facts["pilot"], *page.facts["plans"]):
        assert [row[key] for key in ("calls", "tokens", "dollars", "hours")] == [None] * 4
    assert page.tables[0].rows[0][-4:] == ("–",) * 4
    assert page.notes[-1] == "Taken over from another run, which has what it took: explain (other)."


def test_without_a_price_there_are_no_dollars_and_without_calls_there_are_none(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "pilot", replace(EQUAL, ledger={"simulate": SPENT | {"cost": 0.0}}))
    page = plan_run(folder, Wish())
    assert page.facts["plans"][0]["dollars"] is None
    assert page.notes[-1] == "No price: set calls.price_in and calls.price_out."
    edit_manifest(folder, calls={})
    assert plan_run(folder, Wish()).facts["plans"][0]["dollars"] == 0


def test_more_documents_than_there_are_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "pilot", EQUAL)
    assert any("The corpus has 20 test documents" in note for note in plan_run(folder, Wish((0.001,))).notes)
    assert not any("The corpus has" in note for note in plan_run(folder, Wish((3.0,))).notes)


@pytest.mark.parametrize(
    ("made", "wish", "expected"),
    [
        (replace(EQUAL, windows=(3,) * 5), Wish(), "5 test documents are too few to plan from: at least 8 are needed"),
        (replace(EQUAL, gap=0.0), Wish(), "is not told from 0; give the effect with --unit nats"),
        (replace(EQUAL, kept=1.0, noise=0.0), Wish(reference="coder"), "simulated and coder agree exactly"),
        (EQUAL, Wish(reference="meen"), "--reference meen: no such arm in pilot; there are: clean, coder, mean, zero"),
        (EQUAL, Wish((0.0,)), "--effect 0.0: give a number above 0"),
        (EQUAL, Wish((1e-9,)), "documents"),
        (EQUAL, Wish(power=1.0), "--power 1.0"),
        (EQUAL, Wish(unit="nats"), "--unit nats: say with --effect"),
        (EQUAL, Wish((0.1,), "nats", latents=80), "--latents: other latents are worth other nats"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(tmp_path: Path, made: Made, wish: Wish, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as error:
        plan(tmp_path, made, wish)
    assert "\n" not in str(error.value)


def test_a_gap_not_told_from_0_leaves_nats(tmp_path: Path) -> None:
    row = plan(tmp_path, replace(EQUAL, gap=0.0), Wish((0.05,), "nats"))["plans"][0]
    assert row["recovered"] is None
    assert row["documents"] >= 8


def test_the_command_says_it_in_three_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(make_run(tmp_path / "pilot", EQUAL))
    assert cli.main(["plan", folder, "--effect", "0.02", "0.1", "--latents", "80", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    keys = {"schema", "run", "reference", "fraction", "alpha", "power", "confidence", "sd", "gap", "latents"}
    assert set(facts) == keys | {"documents_there", "taken_over", "asked_elsewhere", "pilot", "plans"}
    row_keys = {"nats", "recovered", "documents", "documents_sure", "positions", "predictions", "calls", "tokens"}
    assert all(set(row) == row_keys | {"dollars", "hours"} for row in facts["plans"])
    assert [row["recovered"] for row in facts["plans"]] == pytest.approx([0.02, 0.1])
    assert cli.main(["plan", folder]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Documents to tell simulated from zero, by run pilot\n")
    assert "Assumes documents as long as the run's" in said.out
    assert said.err == ""
    assert cli.main(["plan", folder, "--markdown"]) == 0
    assert "| effect \\[%\\] | nats |" in capsys.readouterr().out


def test_errors_of_the_command_take_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = str(make_run(tmp_path / "pilot", replace(EQUAL, windows=(3,) * 7)))
    assert cli.main(["plan", few]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"rewrite: {few}: 7 test documents are too few to plan from: at least 8 are needed, and 20 make a pilot; "
        "raise corpus.test, corpus.max_documents or sample.documents"
    ]
