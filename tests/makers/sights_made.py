"""Runs with few values and short windows, whose worst places a search can find position by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from rewrite.arms.calibrate import LEVELS, Calibrator, Table
from rewrite.arms.controls import find_threshold
from rewrite.coder.activations import ActivationStore, Shard, save_shard
from rewrite.run.files import write_json
from rewrite.simulators.base import Strengths
from rewrite.simulators.strengths import Simulations, save_simulator, save_strengths
from rewrite.statistics.curves import Curves, Reliability
from rewrite.text.corpus import SPLITS
from rewrite.text.windows import Text

LATENTS, VOCABULARY = 5, tuple("abcdefghij")


NAN = float("nan")


@dataclass(frozen=True)
class Made:
    """A split: each window's length and document, and dense activations, strengths (NaN: missing) and flags."""

    lengths: list[int]
    documents: list[int]
    ids: np.ndarray
    truth: np.ndarray
    strengths: np.ndarray
    asked: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @property
    def counted(self) -> np.ndarray:
        counted = self.asked.copy()
        counted[self.starts[:-1]] = False
        return counted


def draw(seed: int, windows: int = 9) -> Made:
    """Few values, so that many are equal; windows shorter and longer than an excerpt; two to a document."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 60, windows).tolist()
    shape = (sum(lengths), LATENTS)
    truth = rng.integers(1, 4, shape) * (rng.random(shape) < 0.2)
    strengths = np.where(rng.random(shape) < 0.7, 3 * truth, rng.integers(0, 10, shape) * (rng.random(shape) < 0.3))
    strengths = np.where(rng.random(shape) < 0.1, NAN, strengths).astype(np.float32)
    made = Made(
        lengths,
        [w // 2 for w in range(windows)],
        rng.integers(0, len(VOCABULARY), shape[0]).astype(np.int32),
        truth.astype(np.float32),
        strengths,
        rng.random(shape[0]) < 0.9,
    )
    made.truth[made.starts[:-1]] = 0
    return made


def make_curves(calibrator: Calibrator) -> Curves:
    zeros = np.zeros((LATENTS, 10))
    reliability = Reliability(zeros.astype(np.int64), zeros, zeros)
    return Curves(9.0, calibrator, find_threshold(calibrator, 9.0, LATENTS), np.zeros(LATENTS), reliability)


def make_table(seed: int) -> Table:
    """Rising from above 0, flat in places: some strengths are no firings."""
    steps = np.random.default_rng(seed).integers(0, 3, (LATENTS, LEVELS)) * 0.03
    return Table(9.0, (0.1 + np.cumsum(steps, axis=1)).astype(np.float32))


def write(
    folder: Path,
    test: Made,
    train: Made,
    documents: int = 2,
    missing: dict[int, str] | None = None,
    rewritten: Sequence[int] | None = None,
) -> tuple[ActivationStore, Simulations]:
    """2_activations and 4_simulations with so many documents in a shard."""
    missing = missing or {}
    activations, simulations = folder / "2_activations", folder / "4_simulations"
    activations.mkdir()
    simulations.mkdir()
    names: dict[str, list[list[str]]] = {"calibrate": []}
    for split, made in (("train", train), ("test", test)):
        names[split] = []
        for number, begin in enumerate(range(0, max(made.documents) + 1, documents)):
            own = [w for w, d in enumerate(made.documents) if begin <= d < begin + documents]
            rows = np.arange(made.starts[own[0]], made.starts[own[-1] + 1])
            asked = made.asked[rows] if split == "test" else None
            text = Text(made.ids[rows], made.starts[own[0] : own[-1] + 2] - made.starts[own[0]], VOCABULARY, asked)
            of = np.array([made.documents[w] for w in own], dtype=np.int32)
            save_shard(activations, f"{split}-{number:05d}", Shard(text, of, csr_array(made.truth[rows])))
            names[split].append([f"{split} {d}" for d in sorted(set(of.tolist()))])
            if split == "test":
                strengths = made.strengths[rows] * (~np.isin(np.arange(LATENTS), list(missing)))
                said = Strengths(csr_array(np.nan_to_num(strengths, nan=-1)), missing)
                said.values.data[said.values.data < 0] = NAN
                save_strengths(simulations, f"{split}-{number:05d}", said, text)
    write_json(activations / "documents.json", {"vocabulary": VOCABULARY, "latents": LATENTS, "splits": names})
    save_simulator(simulations, "made", 9.0, None if rewritten is None else np.array(rewritten))
    store = ActivationStore(activations, SPLITS)
    return store, Simulations(simulations, store.latents)
