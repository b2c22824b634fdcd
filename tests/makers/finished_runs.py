"""Run folders as a finished run leaves them, made in milliseconds: what compare and plan read, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_array

from rewrite.arms.calibrate import Pair, Scaled
from rewrite.arms.controls import find_threshold
from rewrite.coder.activations import Shard, save_shard
from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import save_explanations
from rewrite.run.configs import load_config
from rewrite.run.files import write_json
from rewrite.run.store import Run
from rewrite.simulators.base import Strengths
from rewrite.simulators.strengths import save_simulator, save_strengths
from rewrite.stages import analyse
from rewrite.statistics.curves import Curves, measure, save_curves
from rewrite.statistics.losses import COLUMNS
from rewrite.statistics.places import Tally
from rewrite.text.windows import Text

WINDOW = 20
Row = dict[str, Any]


@dataclass(frozen=True)
class Made:
    """A run to make. Its simulation costs (1 - kept) of each document's gap; the losses of runs with the same `seed`
    differ in nothing else but the coder's quality."""

    kept: float = 0.6
    noise: float = 0.0
    """Spread of the simulation's loss between documents, drawn by `noise_seed` [nats per token]."""
    noise_seed: int = 1
    outlier: float = 0.0
    """Added to the simulation's loss of one document [nats per token]."""
    windows: tuple[int, ...] = tuple(2 + i % 5 for i in range(30))
    """Windows of each test document."""
    calibrate: int = 6
    """Documents of the calibrate split, of 3 windows each."""
    simulated: int = 0
    """Test and calibrate documents that are simulated; 0 is all."""
    gap: float = 0.5
    spread: float = 0.1
    coder: bytes = b"weights"
    extra: float = 0.0
    """Added to the loss of every arm that goes through the coder [nats per token]."""
    clean: float = 1.5
    names: str = "doc"
    corpus: str = "c0ffee"
    tail: int = 0
    """Position of each window, from its end, that is not simulated; 0 is none."""
    shard: int = 16
    latents: Sequence[int] = range(40)
    missing: float = 0.0
    text: str = 'Fires on "one two" (9).'
    config: Row = field(default_factory=dict)
    ledger: Row | None = None


def losses_of(made: Made) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Each test document's scored tokens and its loss per token in each arm."""
    documents = len(made.windows)
    rng = np.random.default_rng(0)
    clean = made.clean + 0.2 * rng.normal(size=documents)
    coder = clean + 0.07 + 0.02 * rng.normal(size=documents) + made.extra
    gaps = made.gap + made.spread * rng.normal(size=documents)
    noise = made.noise * np.random.default_rng(made.noise_seed).normal(size=documents)
    scored = WINDOW - 2 - (made.tail > 1)
    arms = {"clean": clean, "coder": coder, "zero": coder + gaps, "mean": coder + 0.98 * gaps + 0.01 * gaps**2}
    arms["simulated"] = coder + (1 - made.kept) * gaps + noise
    tokens = np.array(made.windows) * scored
    if made.simulated:
        tokens[made.simulated :] = 0
    arms["simulated"][3] += made.outlier
    return tokens, arms


def make_run(folder: Path, made: Made = Made()) -> Path:
    """The run folder, up to 6_stats.json where the documents allow it."""
    tokens, arms = losses_of(made)
    with Run(folder) as run:
        run.note("config", {"hookpoint": "layers.1.mlp", "analyse": {"alpha": 0.05, "margin": 0.05}} | made.config)
        run.note("corpus", {"sha256": made.corpus})
        if made.ledger is not None:
            run.note("calls", made.ledger)
        run.begin("k", ())
        with run.writing("1_coder") as path:
            (path / "layers.1.mlp").mkdir(parents=True)
            (path / "layers.1.mlp" / "sae.safetensors").write_bytes(made.coder)
            write_json(path / "metrics.json", {"seconds": np.random.default_rng().random()})
        run.begin("k", ["1_coder"])
        with run.writing("2_activations") as path:
            path.mkdir()
            _write_activations(path, made)
        run.begin("k", ["2_activations"])
        with run.writing("3_explanations.jsonl") as path:
            save_explanations(path, [Explanation(latent, made.text) for latent in range(40)])
        run.begin("k", ["2_activations", "3_explanations.jsonl"])
        with run.writing("4_simulations") as path:
            path.mkdir()
            _write_simulations(path, made)
        run.begin("k", ["4_simulations"])
        with run.writing("5_latents.parquet") as path:
            _write_latents(path, made)
        with run.writing("5_losses.parquet") as path:
            _write_losses(path, tokens, arms)
        with run.writing("5_places.parquet") as path:
            write_places(path, tokens, arms)
        with run.writing("5_calibration.safetensors") as path:
            write_calibration(path, 40)
        run.begin("k", ["5_latents.parquet", "5_losses.parquet", "5_places.parquet", "5_calibration.safetensors"])
        if len(made.windows) >= 8:
            analyse.run(load_config(None, ["analyse.resamples=999"]), run)
    return folder


def _splits(made: Made) -> dict[str, tuple[int, ...]]:
    return {"train": (4,) * 5, "calibrate": (3,) * made.calibrate, "test": made.windows}


def _shards(made: Made, split: str) -> list[tuple[str, list[int], Text]]:
    """A split's shards: their documents and their text."""
    windows, found = _splits(made)[split], []
    for number, begin in enumerate(range(0, len(windows), made.shard)):
        documents = list(range(begin, min(begin + made.shard, len(windows))))
        own = [d for d in documents for _ in range(windows[d])]
        ids = np.concatenate([(np.arange(WINDOW) + d) % 7 for d in own]).astype(np.int32)
        asked = np.tile(np.arange(WINDOW) > 0, len(own))
        if made.tail:
            asked[WINDOW - made.tail :: WINDOW] = False
        if made.simulated and split != "train":
            asked &= np.repeat(np.array(own) < made.simulated, WINDOW)
        text = Text(ids, np.arange(len(own) + 1) * WINDOW, tuple("abcdefg"), asked)
        found.append((f"{split}-{number:05d}", own, text))
    return found


def _write_activations(path: Path, made: Made) -> None:
    names: dict[str, list[list[str]]] = {}
    for split in _splits(made):
        names[split] = []
        for name, own, text in _shards(made, split):
            save_shard(path, name, Shard(text, np.array(own, dtype=np.int32), csr_array((len(text.ids), 40))))
            names[split].append([f"{made.names}-{split}-{d}" for d in dict.fromkeys(own)])
    write_json(path / "documents.json", {"vocabulary": list("abcdefg"), "latents": 40, "splits": names})


def _write_simulations(path: Path, made: Made) -> None:
    for split in ("calibrate", "test"):
        for name, _, text in _shards(made, split):
            save_strengths(path, name, Strengths(csr_array((len(text.ids), 40), dtype=np.float32)), text)
    save_simulator(path, "made", 9.0, None)


def _write_latents(path: Path, made: Made) -> None:
    latents = pa.array(list(made.latents), pa.int32())
    columns = {"missing_share": [made.missing] * len(latents), "maximum": [2.0] * len(latents)}
    table = pa.table({"latent": latents} | columns)
    pq.write_table(table.replace_schema_metadata({"latents": "40"}), path)


def _write_losses(path: Path, tokens: np.ndarray, arms: dict[str, np.ndarray]) -> None:
    kept = np.flatnonzero(tokens)
    rows = [
        (int(d), arm, *place, float(loss[d] * tokens[d]), int(tokens[d]))
        for arm, loss in arms.items()
        for place in [(1.0, "best", 0) if arm == "simulated" else (None, "", 0)]
        for d in kept
    ]
    types = [pa.int32(), pa.string(), pa.float64(), pa.string(), pa.int64(), pa.float64(), pa.int64()]
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
    pq.write_table(pa.table(columns, names=list(COLUMNS)), path)


def write_places(path: Path, tokens: np.ndarray, arms: dict[str, np.ndarray]) -> None:
    """Each document's losses per token in each arm, one window a document; a third of its tokens was never seen."""
    tally = Tally(tuple(arms), len(tokens), np.array([0.0, 50.0, 20_000.0]))
    for document in np.flatnonzero(tokens):
        targets = np.full((1, 1 + tokens[document]), -1)
        targets[0, 1:] = np.arange(tokens[document]) % 3
        located = tally.locate(targets, np.array([document]))
        for arm, loss in arms.items():
            tally.add(arm, located, np.full(targets.shape, loss[document]))
    pq.write_table(tally.tabulate(), path)


def write_calibration(path: Path, latents: int) -> None:
    """Nothing fires, and nothing is said to."""
    calibrator, silence = Scaled(np.ones(latents, dtype=np.float32)), csr_array((WINDOW, latents), dtype=np.float32)
    test = measure([Pair(silence, silence)], calibrator, 9.0, np.ones(latents, dtype=bool)).test
    save_curves(path, Curves(9.0, calibrator, find_threshold(calibrator, 9.0, latents), np.zeros(latents), test))


def snapshot(folder: Path) -> list[tuple[str, int, int]]:
    """Every path with its size and times of change."""
    found = [(path, path.stat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), info.st_size, info.st_mtime_ns) for path, info in found]


def edit_manifest(folder: Path, **facts: Any) -> None:
    """Change facts in a run's manifest."""
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
