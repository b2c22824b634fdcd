"""The split of what is lost, on a real model whose oracle was altered in one way only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from makers.small import small_config
from scipy.sparse import csr_array

from rewrite.arms.calibrate import Pair, identity, tally
from rewrite.arms.controls import mean_when_active
from rewrite.arms.plan import PlannedArm
from rewrite.arms.splice import Arm, Splicer
from rewrite.coder.activations import ActivationStore
from rewrite.coder.files import load_coder
from rewrite.simulators.base import Strengths
from rewrite.simulators.strengths import Simulations, save_simulator, save_strengths
from rewrite.stages.evaluate import Scorer, train_frequencies
from rewrite.statistics.analysis import split_loss
from rewrite.statistics.losses import Key, Losses, read_losses
from rewrite.subject.subject import load_subject
from rewrite.text.corpus import SPLITS

Alter = Callable[[np.random.Generator, csr_array, np.ndarray], csr_array]


def misjudge(rng: np.random.Generator, truth: csr_array, means: np.ndarray) -> csr_array:
    """Every strength between a tenth and twice what it should be."""
    wrong = truth.data * rng.uniform(0.1, 2, len(truth.data)).astype(np.float32)
    return csr_array((wrong, truth.indices, truth.indptr), shape=truth.shape)


def miss(rng: np.random.Generator, truth: csr_array, means: np.ndarray) -> csr_array:
    """Half of the firings dropped."""
    kept = csr_array((truth.data * (rng.random(len(truth.data)) < 0.5), truth.indices, truth.indptr), shape=truth.shape)
    kept.eliminate_zeros()
    return kept


def add(rng: np.random.Generator, truth: csr_array, means: np.ndarray) -> csr_array:
    """Some four latents more at each position, at their means when active."""
    dense = truth.toarray()
    false = (dense == 0) & (rng.random(dense.shape) < 4 / dense.shape[1])
    return csr_array(np.where(false, means, dense).astype(np.float32))


def score(small_run: Path, folder: Path, alter: Alter) -> Losses:
    """Losses of the path's arms where the simulator is the oracle, altered."""
    config = small_config()
    store = ActivationStore(small_run / "2_activations", SPLITS)
    coder = load_coder(small_run / "1_coder", config.hookpoint)
    truths = [shard.activations for _, shard in store.calibrate.walk()]
    fitted = tally([Pair(truth, truth) for truth in truths], store.latents, 9.0)
    rng = np.random.default_rng(0)
    save_simulator(folder, "altered", 9.0, None)
    for name in store.test.shards:
        shard = store.test.load(name)
        save_strengths(folder, name, Strengths(alter(rng, shard.activations, mean_when_active(fitted))), shard.text)
    every = np.ones(store.latents, dtype=bool)
    splicer = Splicer(coder, identity(fitted), fitted, store.calibrate.mean_output(), every)
    arms = [PlannedArm(Arm(name)) for name in ("clean", "coder", "zero")]
    arms += [PlannedArm(Arm(name), every) for name in ("matched", "hits")]
    arms.append(PlannedArm(Arm("simulated", 1.0, "best"), every))
    scorer = Scorer(config, load_subject(config), splicer, arms)
    pq.write_table(
        scorer.score(store.test, Simulations(folder, store.latents), train_frequencies(store.train)).losses,
        folder / "5_losses.parquet",
    )
    return read_losses(folder / "5_losses.parquet")


@pytest.mark.parametrize(
    ("part", "alter"),
    [("magnitude", misjudge), ("sensitivity", miss), ("specificity", add)],
)
def test_errors_of_one_kind_are_booked_as_that_kind(small_run: Path, tmp_path: Path, part: str, alter: Alter) -> None:
    losses = score(small_run, tmp_path, alter)
    parts = {row["part"]: row for row in split_loss(losses, 0.05)}
    tokens = losses.tokens.sum()
    lost = (losses.single[Key("simulated", 1.0, "best", 0)] - losses.find("coder")).sum() / tokens
    gap = (losses.find("zero") - losses.find("coder")).sum() / tokens
    assert lost > 0.02 * gap
    assert sum(row["nats"] for row in parts.values()) == pytest.approx(lost, abs=1e-6)
    assert parts[part]["share"] >= 0.95
    assert all(abs(row["share"]) <= 0.05 for name, row in parts.items() if name != part)
