"""DESIGN's identities: what must be equal is equal, on a real model through the real stages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from makers.small import small_config, tiny_config

from rewrite.arms.batches import read_batch
from rewrite.arms.calibrate import Pair, identity, tally
from rewrite.arms.plan import PlannedArm
from rewrite.arms.splice import Arm, Splicer
from rewrite.coder.activations import ActivationStore
from rewrite.coder.files import load_coder
from rewrite.config import Config, Control
from rewrite.run.files import read_json
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.stages import STAGES
from rewrite.stages.evaluate import Scorer
from rewrite.subject.scoring import next_tokens, window_losses
from rewrite.subject.subject import load_subject
from rewrite.text.corpus import SPLITS

pytestmark = pytest.mark.slow

CHEAP = ("cost.documents=4", "cost.check=2", "cost.steps=1")
TEN_LEVELS = (("quantised",), ("simulated", 1.0, "best"))
KEYS = ["arm", "fraction", "order", "seed", "document"]


def losses_of(folder: Path) -> pd.DataFrame:
    frame = pq.read_table(folder / "5_losses.parquet").to_pandas()
    frame["fraction"] = frame["fraction"].fillna(-1)
    return frame.set_index(KEYS).sort_index()


def go_on(source: Path, target: Path, *settings: str, last: str = "analyse") -> Path:
    """Copy a run and go on from what is fresh under other settings."""
    shutil.copytree(source, target)
    with Run(target, "test") as run:
        go(STAGES, small_config(*settings), run, last, lambda line: None)
    return target


def arm(frame: pd.DataFrame, name: str, fraction: float = -1, order: str = "", seed: int = 0) -> np.ndarray:
    return frame.loc[(name, fraction, order, seed)]["nats"].to_numpy()


def test_fraction_0_is_the_coder_arm(small_run: Path) -> None:
    frame = losses_of(small_run)
    np.testing.assert_allclose(arm(frame, "simulated", 0.0, "best"), arm(frame, "coder"), rtol=1e-6)


def test_oracle_with_the_identity_calibrator_is_the_coder_arm(small_run: Path, tmp_path: Path) -> None:
    frame = losses_of(go_on(small_run, tmp_path / "r", "simulator=oracle", "calibrator=identity", last="evaluate"))
    np.testing.assert_allclose(arm(frame, "simulated", 1.0, "best"), arm(frame, "coder"), rtol=1e-5)
    for name in ("true_active", "simulated_active", "matched", "hits"):
        np.testing.assert_allclose(arm(frame, name), arm(frame, "coder"), rtol=1e-5)


def test_strengths_of_zero_with_the_identity_calibrator_are_the_zero_arm(small_run: Path, tmp_path: Path) -> None:
    frame = losses_of(go_on(small_run, tmp_path / "r", "simulator=constant", "calibrator=identity", last="evaluate"))
    np.testing.assert_allclose(arm(frame, "simulated", 1.0, "best"), arm(frame, "zero"), rtol=1e-6)


def test_saying_nothing_calibrated_is_the_mean_arm(small_run: Path, tmp_path: Path) -> None:
    frame = losses_of(go_on(small_run, tmp_path / "r", "simulator=constant", last="evaluate"))
    np.testing.assert_allclose(arm(frame, "simulated", 1.0, "best"), arm(frame, "mean"), rtol=1e-3)


def test_ten_levels_of_the_truth_recover_nearly_all(small_run: Path, tmp_path: Path) -> None:
    folder = go_on(small_run, tmp_path / "r", "simulator=oracle", "simulators.oracle.levels=10", *CHEAP)
    full = [a for a in read_json(folder / "6_stats.json")["arms"] if a["arm"] == "simulated" and a["fraction"] == 1]
    assert full[0]["recovered"] > 0.95


def test_the_quantised_arm_is_the_oracle_of_ten_levels(small_run: Path, tmp_path: Path) -> None:
    """The oracle's maxima are those of the train split, the arm's those of the calibrate split: nearly the same."""
    settings = ("simulator=oracle", "simulators.oracle.levels=10", "calibrator=linear")
    frame = losses_of(go_on(small_run, tmp_path / "r", *settings, last="evaluate"))
    lost = [arm(frame, name, *at).sum() - arm(frame, "coder").sum() for name, *at in TEN_LEVELS]
    gap = arm(frame, "zero").sum() - arm(frame, "coder").sum()
    assert abs(lost[0] - lost[1]) < 0.02 * gap
    assert abs(lost[0]) < 0.02 * gap


def test_every_control_is_switched_by_its_name(small_run: Path, tmp_path: Path) -> None:
    names = {name for name, *_ in losses_of(small_run).index}
    wants_a_tuned_reader = {"unread"}  # held in stages/test_tune_run.py
    assert set(get_args(Control)) - names == wants_a_tuned_reader
    few = losses_of(go_on(small_run, tmp_path / "r", 'evaluate.controls=["random"]', last="evaluate"))
    assert {name for name, *_ in few.index} == {"clean", "coder", "zero", "simulated", "random"}
    np.testing.assert_allclose(arm(few, "random", 1.0, seed=1), arm(losses_of(small_run), "random", 1.0, seed=1))
    np.testing.assert_allclose(arm(few, "simulated", 1.0, "best"), arm(losses_of(small_run), "simulated", 1.0, "best"))


def test_topk_applied_again_changes_nothing_where_nothing_is_simulated(small_run: Path, tmp_path: Path) -> None:
    frame = losses_of(go_on(small_run, tmp_path / "r", "evaluate.topk=true", last="evaluate"))
    np.testing.assert_allclose(arm(frame, "simulated_topk", 0.0, "best"), arm(frame, "coder"), rtol=1e-5)
    assert not np.allclose(arm(frame, "simulated_topk", 1.0, "best"), arm(frame, "simulated", 1.0, "best"), rtol=1e-4)


def test_one_window_at_a_time_is_batched(small_run: Path, tmp_path: Path) -> None:
    alone = losses_of(go_on(small_run, tmp_path / "r", "batch=1", last="evaluate"))
    np.testing.assert_allclose(alone["nats"], losses_of(small_run)["nats"], rtol=1e-5)


def test_every_arm_counts_the_same_tokens(small_run: Path) -> None:
    tokens = losses_of(small_run)["tokens"].groupby("document").nunique()
    assert (tokens == 1).all()


def test_the_clean_arm_is_the_model_itself_bit_for_bit(small_run: Path) -> None:
    config = small_config()
    subject = load_subject(config)
    store = ActivationStore(small_run / "2_activations", SPLITS)
    shard = store.test.load(store.test.shards[0])
    begin, end = shard.text.starts[:2]
    ids = torch.as_tensor(shard.text.ids[None, begin:end].astype(np.int64))
    counted = torch.as_tensor(shard.text.counted()[None, begin:end])
    prefix = subject.run_to(ids)
    assert torch.equal(subject.run_from(prefix, prefix.output), subject.logits(ids))
    plain = window_losses(subject.logits(ids), next_tokens(ids, counted, torch.ones_like(counted)))[0]
    assert scorer(small_run, config, [PlannedArm(Arm("clean"))], windows=1)[0, 0] == plain


def scorer(folder: Path, config: Config, arms: list[PlannedArm], windows: int) -> np.ndarray:
    """Losses of arms on the first window of the first test document."""
    store = ActivationStore(folder / "2_activations", SPLITS)
    simulations = Simulations(folder / "4_simulations", store.latents)
    coder = load_coder(folder / "1_coder", config.hookpoint)
    shard = store.test.load(store.test.shards[0])
    strengths = simulations.strengths(store.test.shards[0], len(shard.text.ids))
    fitted = tally([Pair(shard.activations, strengths)], store.latents, simulations.scale)
    splicer = Splicer(coder, identity(fitted), fitted, store.calibrate.mean_output(), simulations.rewritten)
    subject = load_subject(config)
    batch = read_batch(subject, splicer, shard, strengths, np.arange(windows))
    losses = Scorer(config, subject, splicer, arms).score_batch(batch)
    return np.stack([one.sum(1).numpy() for one in losses])


def test_no_document_is_in_two_splits(small_run: Path) -> None:
    store = ActivationStore(small_run / "2_activations", SPLITS)
    splits = [set(store.split(name).names) for name in SPLITS]
    assert not (splits[0] & splits[1] or splits[0] & splits[2] or splits[1] & splits[2])
    assert [len(s) for s in splits] == [36, 12, 12]


def test_the_same_config_and_seed_give_the_same_bytes(small_run: Path, tmp_path: Path) -> None:
    with Run(tmp_path / "again", "test") as run:
        go(STAGES, small_config(), run, "analyse", lambda line: None)
    for artefact in ("3_explanations.jsonl", "6_stats.json"):
        assert (tmp_path / "again" / artefact).read_bytes() == (small_run / artefact).read_bytes()


@pytest.mark.parametrize("kind", ["sae", "skip_transcoder"])
def test_the_identities_hold_for_other_coders(kind: str, tmp_path: Path) -> None:
    hookpoint = "layers.1" if kind == "sae" else "layers.1.mlp"
    config = tiny_config(f"coder.kind={kind}", f"hookpoint={hookpoint}", "simulator=oracle", "calibrator=identity")
    with Run(tmp_path / "r", "test") as run:
        go(STAGES, config, run, "evaluate", lambda line: None)
    frame = losses_of(tmp_path / "r")
    np.testing.assert_allclose(arm(frame, "simulated", 1.0, "best"), arm(frame, "coder"), rtol=1e-5)
    assert arm(frame, "coder").sum() < arm(frame, "zero").sum()
    assert arm(frame, "zero").sum() != arm(frame, "zero_layer").sum()
