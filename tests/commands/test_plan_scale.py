"""A run's seconds, calls and bytes at another scale: each stage's own, times what is larger of what it grows with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from makers.finished_runs import Made, Row, edit_manifest, make_run

import rewrite.__main__ as cli
from rewrite.commands.plan.scale import BYTES, GROWTH, Scale, read_scale, scale_run
from rewrite.config import UserError
from rewrite.run.files import read_json
from rewrite.run.finished import open_finished
from rewrite.stages import STAGES

SPENT = {"calls": 100, "tokens_in": 5000, "tokens_out": 400, "cached": 0, "seconds": 7200.0, "cost": 2.0}
TOOK = {"1_coder": 36.0, "2_activations": 18.0, "3_explanations.jsonl": 72.0, "4_simulations": 9.0}
LANGUAGE = {"explainer": "llm", "explainers": {"llm": {"model": "m"}}}
SIZES = {"tokens": 400, "latents": 40, "rewritten": 40, "documents": 20, "layers": 1}
EVALUATE = {
    "5_latents.parquet": 1.0,
    "5_losses.parquet": 8.0,
    "5_places.parquet": 0.5,
    "5_calibration.safetensors": 0.5,
}


@pytest.fixture
def pilot(tmp_path: Path) -> Path:
    """A run of 400 train tokens, 40 latents and 20 test documents, with seconds that we wrote."""
    folder = make_run(tmp_path / "pilot", Made(windows=(3,) * 20))
    take(folder, TOOK | EVALUATE | {"6_stats.json": 0.25})
    return folder


def take(folder: Path, seconds: dict[str, float]) -> None:
    artefacts = read_json(folder / "manifest.json")["artefacts"]
    for path, took in seconds.items():
        artefacts[path]["seconds"] = took
    edit_manifest(folder, artefacts=artefacts)


def stages(folder: Path, *words: str) -> dict[str, Row]:
    return {row["stage"]: row for row in scale_run(folder, words).facts["stages"]}


def test_the_run_itself_takes_what_it_took(pilot: Path) -> None:
    facts = scale_run(pilot, ["layers=1"]).facts
    assert facts["pilot"] == facts["scale"] == SIZES
    assert {row["factor"] for row in facts["stages"]} == {1.0}
    assert facts["total"]["hours"] == pytest.approx((36 + 18 + 72 + 9 + 10 + 0.25) / 3600)
    here = sum(file.stat().st_size for name in open_finished(pilot).seconds for file in files_of(pilot / name))
    assert facts["total"]["bytes"] == here


def files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def test_each_stage_grows_with_its_own_sizes(pilot: Path) -> None:
    found = stages(pilot, "tokens=1600", "latents=120", "documents=40", "layers=12")
    factors = {"collect": 4 * 3, "explain": 4 * 3, "simulate": 3 * 2, "evaluate": 3 * 2, "analyse": 2}
    assert {name: found[name]["factor"] for name in factors} == pytest.approx(factors)
    assert found["evaluate"]["pilot_seconds"] == 10, "the seconds of all that the stage wrote"
    assert found["collect"]["layer_hours"] == pytest.approx(18 * 12 / 3600)
    assert found["collect"]["hours"] == pytest.approx(18 * 12 * 12 / 3600)
    own = sum(file.stat().st_size for file in files_of(pilot / "4_simulations"))
    assert found["simulate"]["bytes"] == own * 3 * 2 * 12


def test_the_part_that_grows_most_is_the_stage(pilot: Path) -> None:
    assert stages(pilot, "tokens=4000")["evaluate"]["factor"] == 10, "readers are fitted on the train split"
    assert stages(pilot, "documents=60")["evaluate"]["factor"] == 3, "and arms are written on the test split"
    assert stages(pilot, "documents=60")["explain"]["factor"] == 1


def test_latents_that_are_not_rewritten_are_not_explained(tmp_path: Path, pilot: Path) -> None:
    assert stages(pilot, "latents=400", "rewritten=80")["explain"]["factor"] == 2
    few = make_run(tmp_path / "few", Made(windows=(3,) * 20, latents=range(10)))
    facts = scale_run(few, ["latents=400"]).facts
    assert facts["scale"]["rewritten"] == 10, "as many as the run rewrote of its own"
    with pytest.raises(UserError, match=r"^--scale rewritten=50: the coder has 40 latents"):
        scale_run(pilot, ["rewritten=50"])


def test_calls_grow_as_the_stage_that_asks(tmp_path: Path) -> None:
    made = Made(windows=(3,) * 20, ledger={"explain": SPENT, "simulate": SPENT | {"calls": 1000}})
    folder = make_run(tmp_path / "pilot", made)
    found = stages(folder, "latents=400", "documents=40", "layers=2")
    assert found["explain"]["calls"] == 100 * 10 * 2
    assert (found["simulate"]["calls"], found["simulate"]["dollars"]) == (1000 * 10 * 2 * 2, 2.0 * 10 * 2 * 2)
    assert found["evaluate"]["calls"] == 0
    cached = replace(made, ledger={"explain": SPENT | {"calls": 0, "cached": 100}})
    page = scale_run(make_run(tmp_path / "cached", cached), ["layers=2"])
    assert page.facts["total"]["calls"] is None and "cannot be told" in page.notes[-1]


def test_a_coder_that_was_given_is_only_measured(pilot: Path) -> None:
    assert stages(pilot, "tokens=4000")["train"]["factor"] == 10
    edit_manifest(pilot, config={"coder": {"path": "somewhere"}})
    assert stages(pilot, "tokens=4000", "documents=60")["train"]["factor"] == 3


def test_seconds_that_were_spent_in_another_run_are_not_none_at_all(pilot: Path) -> None:
    artefacts = read_json(pilot / "manifest.json")["artefacts"]
    artefacts["2_activations"] |= {"seconds": 0.0, "from": "other"}
    edit_manifest(pilot, artefacts=artefacts)
    page = scale_run(pilot, ["layers=2"])
    assert page.facts["total"]["hours"] is None
    assert page.notes[-1] == "Taken over from another run, which has what it took: collect (other)."


def test_what_another_run_asked_a_language_model_is_not_free(pilot: Path) -> None:
    artefacts = read_json(pilot / "manifest.json")["artefacts"]
    artefacts["3_explanations.jsonl"] |= {"seconds": 0.0, "from": "other"}
    edit_manifest(pilot, artefacts=artefacts, calls={"simulate": SPENT})
    assert scale_run(pilot, []).facts["total"]["calls"] == 100, "patterns ask nobody"
    edit_manifest(pilot, config=LANGUAGE)
    page = scale_run(pilot, [])
    rows = {row["stage"]: row for row in page.facts["stages"]}
    assert [rows["explain"][key] for key in ("calls", "tokens", "dollars", "hours")] == [None] * 4
    assert rows["simulate"]["calls"] == 100 and page.facts["total"]["dollars"] is None
    assert page.notes[-1] == "Taken over from another run, which has what it took: explain (other)."


def test_every_stage_has_its_growth_and_every_artefact_that_it_names_is_one() -> None:
    assert set(GROWTH) == {stage.name for stage in STAGES}
    assert set(BYTES) <= {path for stage in STAGES for path in stage.writes}
    sizes = {size for parts in (*GROWTH.values(), *BYTES.values()) for own in parts for size in own}
    assert sizes == {"tokens", "latents", "rewritten", "documents"}


@pytest.mark.parametrize("word", ["latent=5", "latents", "latents=many", "latents=0", "layers=inf", "tokens=-3"])
def test_what_is_no_size_is_refused_by_name(word: str) -> None:
    with pytest.raises(UserError, match=rf"^--scale {word}: give a size of tokens, latents, rewritten,"):
        read_scale(["layers=2", word])
    assert read_scale(["tokens=1e6", "latents=32_768"]) == Scale(tokens=1_000_000, latents=32_768)


def test_the_command_says_all_of_it(pilot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(pilot), "--scale", "latents=80", "layers=12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == scale_run(pilot, ["latents=80", "layers=12"]).facts
    assert cli.main(["plan", str(pilot), "--scale", "latents=80"]) == 0
    shown = capsys.readouterr().out
    assert "in all" in shown and "evaluate documents × latents or tokens" in shown
    assert cli.main(["plan", str(pilot), "--scale", "latents=80", "--effect", "0.1"]) == 2
    assert "plan an --effect by itself" in capsys.readouterr().err
