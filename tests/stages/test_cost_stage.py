"""The cost stage on a finished run of the bundled subject: what it writes agrees with what the other stages wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from makers.small import small_config

from rewrite.arms.batches import document_pairs
from rewrite.arms.drawn import Drawn, open_drawn
from rewrite.arms.latent_costs import Ledger, Meter
from rewrite.arms.plan import PlannedArm
from rewrite.arms.splice import Arm
from rewrite.coder.activations import ActivationStore
from rewrite.coder.files import load_coder
from rewrite.config import Config
from rewrite.run.files import read_json, write_json
from rewrite.simulators.strengths import Simulations
from rewrite.stages.evaluate import Scorer
from rewrite.text.corpus import SPLITS


def losses_of(folder: Path) -> pd.DataFrame:
    return pq.read_table(folder / "5_losses.parquet").to_pandas()


def drawn_of(folder: Path, config: Config) -> Drawn:
    store = ActivationStore(folder / "2_activations", SPLITS)
    simulations = Simulations(folder / "4_simulations", store.latents)
    return open_drawn(config, store, simulations, load_coder(folder / "1_coder", config.hookpoint))


def attribute(folder: Path, config: Config) -> Ledger:
    cost = config.cost
    drawn = drawn_of(folder, config)
    return Meter(drawn, cost.steps, drawn.documents(cost.documents, cost.seed)).attribute()


def test_the_ends_of_the_line_are_the_arms_that_evaluate_scored(small_run: Path) -> None:
    losses, content = losses_of(small_run), read_json(small_run / "5_costs.json")
    for name, fraction in (("coder", None), ("simulated", 1.0)):
        rows = losses[
            (losses.arm == name) & (losses.fraction.isna() if fraction is None else losses.fraction == fraction)
        ]
        assert content["loss"][name] == pytest.approx(rows.nats.sum() / rows.tokens.sum(), rel=1e-6)
    assert content["tokens"] == rows.tokens.sum() and content["documents"] == len(rows)


def test_costs_add_up_within_the_error_that_is_stated(small_run: Path) -> None:
    table, content = pq.read_table(small_run / "5_costs.parquet").to_pandas(), read_json(small_run / "5_costs.json")
    whole = content["loss"]["simulated"] - content["loss"]["coder"]
    assert len(table) == 128 and table.cost.sum() == pytest.approx(content["sum"], rel=1e-9)
    assert content["sum"] - whole == pytest.approx(content["completeness_error"], abs=1e-12)
    assert content["completeness_share"] < 0.02 and whole > 0


def test_what_was_measured_alone_is_what_evaluate_says_of_it(small_run: Path) -> None:
    config = small_config("cost.documents=0")
    drawn = drawn_of(small_run, config)
    table = pq.read_table(small_run / "5_costs.parquet").to_pandas()
    assert table.alone.notna().sum() == 20
    latent = int(table.alone.abs().idxmax())
    one = np.arange(128) == table.latent[latent]
    arms = [PlannedArm(Arm("coder")), PlannedArm(Arm("simulated", 0.1, "best"), one)]
    scored = Scorer(config, drawn.subject, drawn.splicer, arms)
    frame = (
        scored.score(drawn.test, drawn.simulations, np.ones(len(drawn.test.vocabulary)))
        .losses.to_pandas()
        .groupby("arm")[["nats", "tokens"]]
        .sum()
    )
    expected = (frame.nats["simulated"] - frame.nats["coder"]) / frame.tokens["coder"]
    assert table.alone[latent] == pytest.approx(expected, rel=1e-4)


def test_counts_are_those_of_the_test_split(small_run: Path) -> None:
    config = small_config()
    drawn = drawn_of(small_run, config)
    table, content = pq.read_table(small_run / "5_costs.parquet").to_pandas(), read_json(small_run / "5_costs.json")
    pairs = list(document_pairs(drawn.test, drawn.simulations))
    true = sum((pair.truth.toarray() > 0).sum(0) for pair in pairs)
    np.testing.assert_array_equal(table.true, true)
    assert content["firings"]["true"] == true.sum() and (table.known == content["firings"]["positions"]).all()
    assert content["firings"]["false"] == table.false.sum() > 0 and (table.hits <= table.true).all()


def test_few_documents_are_drawn_by_their_seed(small_run: Path) -> None:
    every = drawn_of(small_run, small_config())
    assert list(every.documents(0, 0)) == sorted(losses_of(small_run).document.unique())
    first = list(every.documents(5, 0))
    assert len(first) == 5 and first == list(every.documents(5, 0)) != list(every.documents(5, 1))
    assert set(first) < set(every.documents(8, 0)), "more documents hold the fewer"


def test_predictors_are_the_scores_that_were_taken(small_run: Path) -> None:
    content = read_json(small_run / "5_costs.json")
    assert {row["score"] for row in content["predictors"]} == {"simulation", "r2", "density", "size"}
    assert content["check"]["latents"] == 20 and content["check"]["all"]["spearman"]["value"] > 0.5
    assert 0 <= content["costly"] <= content["tested"] == 128


def test_a_batch_of_one_gives_the_same_costs(small_run: Path) -> None:
    alone = attribute(small_run, small_config("cost.documents=4", "batch=1", "cost.steps=2"))
    batched = attribute(small_run, small_config("cost.documents=4", "batch=5", "cost.steps=2"))
    np.testing.assert_allclose(alone.nats, batched.nats, atol=1e-4)
    np.testing.assert_array_equal(alone.tokens, batched.tokens)
    np.testing.assert_allclose(alone.losses, batched.losses, rtol=1e-6)
    np.testing.assert_allclose(alone.squares, batched.squares, rtol=1e-5)


@pytest.mark.parametrize("missing", ["mean", "leave_out"])
def test_latents_that_leave_the_comparison_keep_their_truth_in_every_arm(
    small_run: Path, tmp_path: Path, missing: str
) -> None:
    """Else what they are worth would be in the gap, and the simulation would be said to recover it."""
    shutil.copytree(small_run, tmp_path / "run")
    lost = np.isin(np.arange(128), [2, 5, 77])
    for shard in (tmp_path / "run" / "4_simulations").glob("*-*.json"):
        write_json(shard, read_json(shard) | {"missing": {str(latent): "lost" for latent in np.flatnonzero(lost)}})
    drawn = drawn_of(tmp_path / "run", small_config(f"evaluate.missing={missing}"))
    left_out = lost if missing == "leave_out" else np.zeros_like(lost)
    assert (drawn.simulated == ~left_out).all() and (drawn.splicer.rewritten.numpy() == ~left_out).all()
    batch = next(drawn.batches(drawn.documents(2, 0), "test"))
    decoder = drawn.splicer.coder.W_dec
    kept = batch.written.truth.decode(decoder, torch.as_tensor(left_out))
    assert bool(kept.any()) == (missing == "leave_out")
    torch.testing.assert_close(drawn.write(batch, "zero"), batch.written.base + kept)
    means = torch.as_tensor((drawn.fitted.tally.mean * ~left_out).astype(np.float32)) @ decoder
    torch.testing.assert_close(drawn.write(batch, "mean"), batch.written.base + kept + means)
