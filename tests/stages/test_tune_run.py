"""A reader is tuned and put in the layer's place, in a whole run of a real model in process; a kill changes nothing."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from makers.commands import Command
from makers.small import SMALL, small_config

from rewrite.arms.controls import Unread
from rewrite.coder.activations import ActivationStore
from rewrite.config import Config, UserError
from rewrite.explainers.explanations import load_explanations
from rewrite.run.files import read_json
from rewrite.run.freshness import check, stage_keys, wanted
from rewrite.run.runner import go, plan
from rewrite.run.store import Run
from rewrite.simulators.readers import list_readers
from rewrite.simulators.strengths import Simulations
from rewrite.stages import STAGES
from rewrite.text.corpus import SPLITS
from rewrite.text.sampling import draw_latents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TUNED = ("simulator=llm", "sample.latents=6", "sample.documents=8", "sample.windows=1", "sample.positions=6")
NOISE = ("simulators.llm.least_mass=0", "analyse.least_mass=0", "cost.documents=2", "cost.check=2", "cost.steps=1")
FEW = ('evaluate.controls=["mean", "shuffled", "unread"]', "evaluate.control_seeds=1", "evaluate.fractions=[1.0]")
TUNE = ("simulators.llm.tune=true", "tune.tokens=4000", "tune.every=2", "tune.held_out=4", "tune.latents=40")


def settings_of(model: Path, *more: str) -> list[str]:
    return [*TUNED, *NOISE, *FEW, f"simulators.llm.model={model}", *more]


def run_to(folder: Path, config: Config, last: str = "report") -> None:
    with Run(folder, "test") as run:
        go(STAGES, config, run, last, lambda line: None)


@pytest.fixture(scope="module")
def tuned(small_run: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose reader was tuned in two folds."""
    folder = tmp_path_factory.mktemp("tune") / "run"
    shutil.copytree(small_run, folder)
    run_to(folder, small_config(*settings_of(tiny_model, *TUNE)))
    return folder


def test_each_latent_is_read_by_a_reader_that_never_met_it(tuned: Path) -> None:
    folds = {int(i): fold for i, fold in read_json(tuned / "4_reader" / "folds.json")["folds"].items()}
    assert len(folds) == 6 and sorted(folds.values()) == [0, 0, 0, 1, 1, 1]
    for fold in range(2):
        learned = read_json(tuned / "4_reader" / f"fold-{fold}" / "learned.json")
        own = {latent for latent, of in folds.items() if of == fold}
        assert not own & set(learned["latents"]) and learned["curve"][-1]["tokens"] >= 4000
        assert (tuned / "4_reader" / f"fold-{fold}" / "adapter_model.safetensors").exists()


def test_what_it_says_without_an_explanation_is_an_arm(tuned: Path) -> None:
    store = ActivationStore(tuned / "2_activations", SPLITS)
    simulations = Simulations(tuned / "4_simulations", store.latents)
    folds = {int(i): fold for i, fold in read_json(tuned / "4_reader" / "folds.json")["folds"].items()}
    said = simulations.unread(store.test.shards[0])
    assert said is not None and said.strengths.shape[1] == 2
    assert {latent: int(said.reader[latent]) for latent in folds} == folds
    assert np.isfinite(said.strengths).all() and said.strengths.std() > 0
    text = store.test.load(store.test.shards[0]).text
    counted = simulations.show(store.test.shards[0], text).counted()
    strengths = simulations.strengths(store.test.shards[0], len(counted))
    known = simulations.rewritten
    alone = Unread(simulations, known).strengths(store.test.shards[0], strengths, counted).toarray()
    for latent, fold in folds.items():
        np.testing.assert_array_equal(alone[counted, latent], said.strengths[:, fold])
    assert (alone[~counted] == 0).all()
    stats = read_json(tuned / "6_stats.json")
    assert "unread" in {row["arm"] for row in stats["arms"]}
    assert ("simulated", "unread") in {(row["arm"], row["reference"]) for row in stats["comparisons"]}


def test_the_report_tells_how_it_learned(tuned: Path) -> None:
    page, text = (tuned / "7_report" / name for name in ("index.html", "report.md"))
    for told in (page.read_text(), text.read_text()):
        assert "2 readers on this run" in told and "How the readers learned" in told and "fold-1" in told
    rows = (tuned / "7_report" / "learned.csv").read_text().splitlines()
    assert len(rows) == 1 + sum(
        len(read_json(tuned / "4_reader" / f"fold-{fold}" / "learned.json")["curve"]) for fold in range(2)
    )


def test_a_reader_is_taken_to_another_run_and_the_report_says_so(
    tuned: Path, small_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    adapter = tuned / "4_reader" / "fold-0"
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(small_run, elsewhere)
    config = small_config(*settings_of(tiny_model, f"simulators.llm.adapter={adapter}"))
    assert "4_reader" not in [artefact for stage in wanted(STAGES, config) for artefact in stage.writes]
    run_to(elsewhere, config)
    folds = {int(i): fold for i, fold in read_json(tuned / "4_reader" / "folds.json")["folds"].items()}
    there, here = (Simulations(f / "4_simulations", 128) for f in (tuned, elsewhere))
    store = ActivationStore(tuned / "2_activations", SPLITS)
    for shard in store.test.shards:
        size = len(store.test.load(shard).text.ids)
        a, b = there.strengths(shard, size).toarray(), here.strengths(shard, size).toarray()
        own = [latent for latent, fold in folds.items() if fold == 0]
        np.testing.assert_array_equal(a[:, own], b[:, own])
    # Latents that have no fold there are shared out; in a larger coder too each is read by one reader.
    listed = dict(list_readers(str(tuned / "4_reader"), 300))
    assert [Path(place).name for place in listed] == ["fold-0", "fold-1"]
    assert sorted(latent for own in listed.values() for latent in own) == list(range(300))
    assert all(latent in listed[str(tuned / "4_reader" / f"fold-{fold}")] for latent, fold in folds.items())
    assert list_readers(str(adapter), 3) == [(str(adapter), frozenset(range(3)))]
    assert "elsewhere: by a run at layers.1.mlp" in (elsewhere / "7_report" / "report.md").read_text()
    moved = small_config(*settings_of(tiny_model, f"simulators.llm.adapter={adapter}", "hookpoint=layers.2.mlp"))
    from rewrite.report.gathering import describe_reader

    assert describe_reader(moved)["tuned"].endswith("zero-shot transfer to this one")
    every = small_config(*settings_of(tiny_model, f"simulators.llm.adapter={tuned / '4_reader'}"))
    assert describe_reader(every)["tuned"].endswith("each latent is read by one that never met it")


def test_what_it_depends_on_and_what_not(tuned: Path, tiny_model: Path) -> None:
    config = small_config(*settings_of(tiny_model, *TUNE))
    keys = stage_keys(STAGES, config)
    other = stage_keys(STAGES, small_config(*settings_of(tiny_model, *TUNE, "tune.rank=2")))
    assert [name for name in keys if keys[name] != other[name]] == ["tune", "report"]
    other = stage_keys(STAGES, small_config(*settings_of(tiny_model, *TUNE, "simulators.llm.renormalise=false")))
    assert [name for name in keys if keys[name] != other[name]] == ["simulate", "report"], "it matters in reading only"
    plain = small_config(*settings_of(tiny_model))
    few = small_config(*settings_of(tiny_model, "tune.latents=3"))
    explained = [stage_keys(STAGES, one)["explain"] for one in (plain, few)]
    assert explained[0] == explained[1]
    assert explained[0] != keys["explain"], "a reader learns from more latents than are rewritten"


def test_a_dry_run_tunes_nothing(small_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dry"
    shutil.copytree(small_run, folder)
    with Run(folder, "test") as run:
        planned = plan(STAGES, small_config(*settings_of(tiny_model, *TUNE)), run, "report", lambda line: None)
    assert planned["tune"].planned.calls == 0
    # 8 documents of both splits; what is said of the latents, and each of 2 readers without an explanation.
    chosen = draw_latents(small_config(*TUNED).sample, 128).tolist()
    texts = {e.text for e in load_explanations(folder / "3_explanations.jsonl") if e.latent in chosen}
    assert planned["simulate"].planned.calls == 16 * (len(texts) + 2)
    assert not list(folder.glob("*4_reader*"))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("engine=openai",), "engine = openai: tunes no model and reads no adapter"),
        (("tune.tokens=0",), "tune.tokens and tune.minutes are both 0"),
        (("simulators.llm.adapter=x",), "tune and adapter are both set"),
        (("simulators.llm.scheme=last_token",), "a tuned reader reads all_at_once"),
        (
            ("explainer=llm", "explainers.llm.model=x", "explainers.llm.candidates=2"),
            "who would choose is tuned on what",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tiny_model: Path, more: tuple[str, ...], why: str) -> None:
    with pytest.raises(UserError, match=why.replace(".", r"\.")):
        check(STAGES, small_config(*settings_of(tiny_model, *TUNE, *more)))


def test_a_run_that_tunes_nothing_has_no_such_stage(small_run: Path, tmp_path: Path) -> None:
    with (
        Run(tmp_path / "r", "test") as run,
        pytest.raises(UserError, match="tune: this run has no such stage"),
    ):
        go(STAGES, small_config(), run, "tune", lambda line: None)
    config = small_config("sample.latents=[3, 500]")
    folder = tmp_path / "named"
    shutil.copytree(small_run, folder)
    with (
        Run(folder, "test") as run,
        pytest.raises(UserError, match=r"latents 500: the coder has latents 0 to 127"),
    ):
        go(STAGES, config, run, "simulate", lambda line: None)


def test_a_kill_in_tuning_changes_nothing(tuned: Path, small_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(small_run, folder)
    words = [word for setting in [*SMALL, *settings_of(tiny_model, *TUNE)] for word in ("--set", setting)]
    command = ("tune", "--run", str(folder), *words)
    process = Command(*command)
    for line in process.stderr:
        if line.startswith("tune: reader 0, step 2"):
            time.sleep(0.2)
            process.kill()
            break
    assert process.poll() == -signal.SIGKILL
    (state,) = folder.glob(".partial-*-4_reader/fold-0/state.safetensors")
    assert state.stat().st_size > 0
    done = Command(*command)
    assert done.wait() == 0
    assert "reader 0, step 0" not in done.said, "it goes on, and does not begin anew"
    for fold in range(2):
        one, other = (f / "4_reader" / f"fold-{fold}" / "adapter_model.safetensors" for f in (tuned, folder))
        assert one.read_bytes() == other.read_bytes()
