"""The reader in two parts: states are what the model holds, a head learns what explanations say, and nothing more."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from makers.small import small_config
from makers.watching import unwatched

from rewrite.coder.activations import ActivationStore
from rewrite.config import Config, UserError
from rewrite.engines.transformers import Settings as EngineSettings
from rewrite.engines.transformers.build import read_states
from rewrite.engines.transformers.states import HiddenStates
from rewrite.run.files import read_json
from rewrite.run.freshness import check
from rewrite.run.runner import go, plan
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.simulators.towers.head import Head, ask, read
from rewrite.stages import STAGES
from rewrite.text.corpus import SPLITS

WIDTH, RANK = 12, 8
TOWERS = ("simulator=towers", "sample.latents=20", "tune.every=40", "tune.held_out=6", "tune.latents=40")
CHEAP = ("cost.documents=2", "cost.check=2", "cost.steps=1", "evaluate.control_seeds=1", "evaluate.fractions=[1.0]")
CONTROLS = ('evaluate.controls=["mean", "shuffled", "unread"]',)
SHORT = "explainers.patterns.max_words=8"
"""Attention over an explanation costs the square of its length."""
SMALL = (SHORT, "simulators.towers.layers=[0, 1]", "simulators.towers.hidden=16", "simulators.towers.rank=8")
FEW = ("simulators.towers.steps=80", "simulators.towers.latents=8", "simulators.towers.others=64")


def states_of(model: Path, *layers: int) -> HiddenStates:
    made = read_states(str(model), EngineSettings(), layers)
    assert isinstance(made, HiddenStates)
    return made


def test_states_are_the_models_own(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    shown = states_of(tiny_model, 0, 1)
    pieces = [["Once", " upon", " a time", "", " there"], [" was"]]
    found = list(shown.of_pieces(pieces))
    assert [len(one) for one in found] == [5, 1]
    np.testing.assert_array_equal(found[0][2], found[0][3], "a piece without a token has the states before it")
    model = AutoModelForCausalLM.from_pretrained(str(tiny_model))
    ids = [*shown.encoder.start, *(token for piece in pieces[0] for token in shown.encoder.piece(piece))]
    with torch.no_grad():
        hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    whole = torch.cat([hidden[0][0], hidden[1][0]], dim=-1).numpy()
    np.testing.assert_allclose(found[0][-1], whole[-1], atol=2e-3)
    told = shown.of_tokens(["Once upon a time", "Once"])
    np.testing.assert_allclose(told[1][-1], found[0][0], atol=2e-3)
    assert len(told[0]) > len(told[1]), "in the order in which they were given"


def test_a_layer_that_is_not_there_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="has layers 0 to"):
        states_of(tiny_model, 0, 99)


@pytest.mark.parametrize("layers", ["[]", "[-1]"])
def test_layers_that_are_none_are_refused_before_any_work(layers: str) -> None:
    with pytest.raises(UserError, match=r"simulators\.towers\.layers"):
        check(
            STAGES, small_config("simulator=towers", "simulators.towers.model=x", f"simulators.towers.layers={layers}")
        )


def test_a_head_reads_each_latent_as_if_it_were_alone() -> None:
    torch.manual_seed(0)
    head = Head(WIDTH, 16, RANK)
    random = np.random.default_rng(0)
    told = [random.normal(size=(length, WIDTH)).astype(np.float16) for length in (5, 1, 0, 9)]
    places = random.normal(size=(7, WIDTH)).astype(np.float16)
    (together,) = read(head, places, [ask(head, told, WIDTH)])
    for number, own in enumerate(told):
        alone = read(head, places, [ask(head, [own], WIDTH)])[0][:, 0]
        np.testing.assert_allclose(together[:, number], alone, atol=1e-4)
    assert together.min() >= 0 and together.max() <= 9


@pytest.fixture(scope="module")
def finished(small_run: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towers") / "run"
    shutil.copytree(small_run, folder)
    config = small_config(*TOWERS, *CHEAP, *CONTROLS, *SMALL, *FEW, f"simulators.towers.model={tiny_model}")
    with Run(folder, "test") as run:
        planned = plan(STAGES, config, run, "report", lambda line: None)
        assert planned["simulate"].planned.calls == 0
        explain(config, run)
        go(STAGES, config, run, "simulate", lambda line: None)
        with unwatched():  # From here on all is as of any simulator.
            go(STAGES, config, run, "report", lambda line: None)
    return folder


def explain(config: Config, run: Run) -> None:
    with unwatched():  # As of `small_run`, of other latents.
        go(STAGES, config, run, "explain", lambda line: None)


@pytest.mark.slow
def test_a_whole_run_learns_and_is_judged(finished: Path) -> None:
    """The embedding of the bundled subject's tokens by a model of random weights is enough to match quoted words."""
    for fold in range(2):
        curve = read_json(finished / "4_reader" / f"fold-{fold}" / "learned.json")["curve"]
        assert [row["step"] for row in curve] == [0, 40, 80]
        assert curve[-1]["loss"] < curve[1]["loss"]
    stats = read_json(finished / "6_stats.json")
    assert {"simulated", "unread", "shuffled"} <= {row["arm"] for row in stats["arms"]}
    assert "model that simulates" in (finished / "7_report" / "report.md").read_text()


@pytest.mark.slow
def test_what_is_stored_is_on_the_scale_and_only_of_rewritten_latents(finished: Path) -> None:
    store = ActivationStore(finished / "2_activations", SPLITS)
    simulations = Simulations(finished / "4_simulations", store.latents)
    shard = store.test.shards[0]
    strengths = simulations.strengths(shard, len(store.test.load(shard).text.ids))
    assert set(np.unique(strengths.indices)) <= set(np.flatnonzero(simulations.rewritten))
    assert strengths.data.min() >= 0.05 - 1e-6 and strengths.data.max() <= 9
    counted = simulations.show(shard, store.test.load(shard).text).counted()
    assert (strengths.toarray()[~counted] == 0).all()


@pytest.mark.slow
def test_a_head_is_taken_to_another_run(finished: Path, small_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(small_run, folder)
    adapter = f"simulators.towers.adapter={finished / '4_reader' / 'fold-0'}"
    few = ("sample.latents=20", "simulator=towers", f"simulators.towers.model={tiny_model}", adapter)
    config = small_config(*few, *SMALL)
    with Run(folder, "test") as run:
        explain(config, run)
        go(STAGES, config, run, "simulate", lambda line: None)
        with pytest.raises(UserError, match=r"towers\.adapter = .*fold-0: learned another layout"):
            go(STAGES, small_config(*few, *SMALL, "simulators.towers.rank=4"), run, "simulate", lambda line: None)
    folds = {int(i): fold for i, fold in read_json(finished / "4_reader" / "folds.json")["folds"].items()}
    store = ActivationStore(folder / "2_activations", SPLITS)
    shard = store.test.shards[0]
    size = len(store.test.load(shard).text.ids)
    both = [Simulations(f / "4_simulations", store.latents).strengths(shard, size) for f in (finished, folder)]
    own = [latent for latent, fold in folds.items() if fold == 0]
    assert own and both[1].nnz
    np.testing.assert_allclose(both[0].toarray()[:, own], both[1].toarray()[:, own], atol=1e-4)
    rest = [latent for latent, fold in folds.items() if fold == 1]
    assert np.abs(both[0].toarray()[:, rest] - both[1].toarray()[:, rest]).max() > 0.01, (
        "read by the head that met them"
    )
    # All heads of a run taken along: each latent is read by the one that never met it, as in the run itself.
    with Run(folder, "test") as run:
        go(
            STAGES,
            small_config(*few, *SMALL, f"simulators.towers.adapter={finished / '4_reader'}"),
            run,
            "simulate",
            str,
        )
    again = Simulations(folder / "4_simulations", store.latents).strengths(shard, size)
    np.testing.assert_allclose(both[0].toarray(), again.toarray(), atol=1e-4)
