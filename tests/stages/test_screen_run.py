"""A screen in a whole run: fewer calls, said beforehand; what it held back is told, and a run that stopped goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from makers.small import small_config
from makers.watching import unwatched

from rewrite.arms.controls import AUDITED
from rewrite.coder.activations import ActivationStore
from rewrite.config import Config
from rewrite.exports import dataset
from rewrite.run.finished import open_finished
from rewrite.run.runner import go, plan
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations, save_strengths
from rewrite.stages import STAGES, simulate
from rewrite.text.corpus import SPLITS

pytestmark = pytest.mark.slow

QUICK = (
    *("evaluate.controls=['mean']", "evaluate.fractions=[1.0]", "evaluate.random_seeds=0"),
    *("cost.documents=2", "cost.steps=1", "cost.check=0"),
)
ASKED = (
    "simulator=llm",
    "simulators.llm.least_mass=0",
    "analyse.least_mass=0",
    "sample.latents=6",
    "sample.windows=1",
    "sample.positions=8",
)
SCREEN = ("simulators.llm.screen=patterns", "simulators.llm.audit=0.5")


def config_of(model: Path, cache: Path, *more: str) -> Config:
    return small_config(*ASKED, *QUICK, f"simulators.llm.model={model}", f"calls.cache={cache}", *more)


def run_to(folder: Path, config: Config, last: str = "report") -> dict[str, int]:
    """Run up to a stage; returns what simulating asked."""
    with Run(folder, "test") as run:
        go(STAGES, config, run, last, lambda line: None)
        ledger: dict[str, int] = run.manifest["calls"]["simulate"]
    return ledger


@pytest.fixture(scope="module")
def base(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose coder and activations are there already; copy it."""
    folder = tmp_path_factory.mktemp("screen") / "base"
    shutil.copytree(small_run, folder)
    return folder


@pytest.fixture(scope="module")
def whole(base: Path, tiny_model: Path) -> Path:
    """The run without a screen."""
    folder = base.parent / "whole"
    shutil.copytree(base, folder)
    with unwatched():  # As any run.
        run_to(folder, config_of(tiny_model, base.parent / "whole.sqlite"), "analyse")
    return folder


@pytest.fixture(scope="module")
def screened(base: Path, tiny_model: Path) -> Path:
    """The same with one, and a cache of its own."""
    folder = base.parent / "screened"
    shutil.copytree(base, folder)
    run_to(folder, config_of(tiny_model, base.parent / "screened.sqlite", *SCREEN))
    return folder


def open_run(folder: Path) -> tuple[ActivationStore, Simulations]:
    store = ActivationStore(folder / "2_activations", SPLITS)
    return store, Simulations(folder / "4_simulations", store.latents)


def test_fewer_calls_and_as_many_as_were_said_beforehand(
    base: Path, whole: Path, screened: Path, tiny_model: Path
) -> None:
    ledgers = [json.loads((one / "manifest.json").read_text())["calls"]["simulate"] for one in (whole, screened)]
    assert ledgers[1]["tokens_in"] < 0.8 * ledgers[0]["tokens_in"]
    dry = base.parent / "dry"
    shutil.copytree(screened, dry)
    shutil.rmtree(dry / "4_simulations")
    config = config_of(tiny_model, base.parent / "unused.sqlite", *SCREEN)
    with Run(dry, "test") as run:
        planned = plan(STAGES, config, run, "simulate", lambda line: None)["simulate"].planned
    assert (planned.calls, planned.tokens_in) == (ledgers[1]["calls"], ledgers[1]["tokens_in"])


def test_what_was_asked_is_answered_as_without_a_screen(whole: Path, screened: Path) -> None:
    store, all_of_it = open_run(whole)
    _, some = open_run(screened)
    passed = audited = held = 0
    for split in (store.calibrate, store.test):
        for name in split.shards:
            positions = len(split.load(name).text.ids)
            every, own = all_of_it.strengths(name, positions), some.strengths(name, positions)
            told = some.screened(name, positions)
            assert told is not None
            for part in (own, told.audit):
                rows, latents = part.tocoo().coords
                np.testing.assert_allclose(
                    part.data, every.toarray()[rows, latents], atol=2e-2
                )  # float16, other batches
            rows, latents = told.audit.tocoo().coords
            assert told.full[rows].all() and not own.toarray()[rows, latents].any()
            passed, audited, held = passed + own.nnz, audited + told.audit.nnz, held + every.nnz - own.nnz
    assert passed and audited and audited < held


def test_the_stats_say_what_the_screen_missed(whole: Path, screened: Path) -> None:
    store, all_of_it = open_run(whole)
    told = json.loads((screened / "6_stats.json").read_text())["screen"]
    test = store.test
    entries = sum(all_of_it.strengths(name, len(test.load(name).text.ids)).nnz for name in test.shards)
    firings = sum(
        int((all_of_it.strengths(name, len(test.load(name).text.ids)).data >= 0.5).sum()) for name in test.shards
    )
    assert told["pairs"] == entries and 0 < told["passed"] < entries
    said = sum(told["said"].values())
    low, high = told["missed"]["all"]["ci"]
    assert low <= firings - said <= high and told["full"] == 8
    assert 0 <= told["true"]["held"] <= told["true"]["firings"]
    assert told["loss"]["documents"] == 8 and told["loss"]["ci"][0] <= told["loss"]["nats"] <= told["loss"]["ci"][1]
    assert json.loads((whole / "6_stats.json").read_text())["screen"] is None
    losses = pq.read_table(screened / "5_losses.parquet").to_pandas()
    own = losses[losses.arm.isin(AUDITED)].groupby("arm").document.nunique()
    assert own.to_dict() == dict.fromkeys(AUDITED, 8)
    stats = json.loads((screened / "6_stats.json").read_text())
    assert not {row["arm"] for row in stats["arms"]} & set(AUDITED)


def test_the_report_tells_it(screened: Path) -> None:
    told = json.loads((screened / "6_stats.json").read_text())["screen"]
    page, text = ((screened / "7_report" / name).read_text() for name in ("index.html", "report.md"))
    for shown in (page, text):
        assert f"let {told['passed']:,} of {told['pairs']:,} pairs of latent and position through" in shown
        assert "asking about everything changed the loss by" in shown and "firings held back" in shown
    assert (screened / "7_report" / "screen.csv").read_text().count("\n") == 4


def test_an_export_says_what_was_held_back(screened: Path, tmp_path: Path) -> None:
    dataset.write(open_finished(screened), tmp_path)
    rows = pq.read_table(tmp_path / "predictions").to_pandas()
    told = json.loads((screened / "6_stats.json").read_text())["screen"]
    assert (rows.held & (rows.true > 0)).sum() == told["true"]["held"] == rows.held.sum() > 0
    assert (rows.strength[rows.held] == 0).all() and not rows.missing[rows.held].any()
    assert "the screen `patterns`" in (tmp_path / "README.md").read_text()


def test_a_run_that_stopped_goes_on_and_a_rerun_is_the_same_to_the_byte(
    screened: Path, base: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, saved = base.parent / "again", []
    shutil.copytree(base, again)
    config = config_of(tiny_model, base.parent / "screened.sqlite", *SCREEN)

    def stop_at_third(folder: Path, shard: str, *rest: Any) -> None:
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(shard)
        save_strengths(folder, shard, *rest)

    monkeypatch.setattr(simulate, "save_strengths", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run_to(again, config, "analyse")
    monkeypatch.setattr(simulate, "save_strengths", lambda *given: (saved.append(given[1]), save_strengths(*given)))
    with unwatched():  # As before.
        assert run_to(again, config, "analyse")["calls"] == 0, "all of it is in the cache"
    assert len(saved) == len(set(saved)), "a shard that was whole is not made again"
    for file in (*(screened / "4_simulations").iterdir(), screened / "5_losses.parquet", screened / "6_stats.json"):
        assert (again / file.relative_to(screened)).read_bytes() == file.read_bytes(), file.name
