"""Finished run folders of any size, made in seconds: all that the report reads, with numbers that nothing has computed.

Activations are drawn: each position has the same number of active latents, one of each stretch of latents, those at a
stretch's begin the most often. The simulation fires at most of them, and falsely as often as it misses one. Counts of
firings and the statistics are computed by the package from what was drawn; all other numbers are draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from makers.diagnosis_made import make_diagnosis, make_readers
from scipy.sparse import csr_array

from rewrite.arms.batches import document_pairs
from rewrite.arms.calibrate import LEVELS, Calibrator, Pair, Table
from rewrite.arms.controls import find_threshold
from rewrite.coder.activations import ActivationStore, Shard, save_shard
from rewrite.config import Config
from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import save_explanations
from rewrite.run.configs import load_config
from rewrite.run.files import write_json
from rewrite.run.store import Run
from rewrite.simulators.base import Strengths
from rewrite.simulators.strengths import Simulations, save_simulator, save_strengths
from rewrite.stages import analyse, cost
from rewrite.statistics import places
from rewrite.statistics.costs import check_costs, predict
from rewrite.statistics.curves import Curves, measure, save_curves
from rewrite.statistics.firings import count_firings, pool, rate_latents
from rewrite.statistics.losses import COLUMNS
from rewrite.statistics.places import BINS
from rewrite.text.corpus import SPLITS
from rewrite.text.windows import Text

SCALE = 9.0
SHARD = 16
ALPHA = 0.05
PLACED = (*places.PLACED, "simulated")
WORDS = (
    "the of a to and in that was his he it with is for as had you not be her on at by which have or from this him but"
)


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    latents: int = 32_768
    documents: int = 1_000
    """Of the test split, and as many of the train split; a tenth of it of the calibrate split."""
    tokens: int = 200
    """Of a document, about."""
    active: int = 32
    """Latents at a position."""
    vocabulary: int = 50_000
    window: int = 100
    missing: int = 97
    """One latent in so many has no explanation, and no prediction."""

    @property
    def absent(self) -> np.ndarray:
        """Latents without a prediction."""
        return np.arange(self.latents) % self.missing == self.missing - 1

    @property
    def splits(self) -> dict[str, int]:
        """Documents of each split."""
        return {"train": self.documents, "calibrate": max(self.documents // 10, 2), "test": self.documents}

    @property
    def maximum(self) -> np.ndarray:
        """Each latent's scale."""
        return np.random.default_rng(1).lognormal(1.0, 1.0, self.latents).astype(np.float32)


SMALL = Size(latents=300, documents=12, tokens=60, active=6, vocabulary=500, window=40, missing=50)


def big_config(*more: str) -> Config:
    """The config that the run claims to be made with."""
    judged = ['score.scorers=["detection", "fuzz"]', "score.model=somebody/judge", "analyse.resamples=999"]
    return load_config(None, [*judged, *more])


def make_big_run(folder: Path, size: Size = Size()) -> Path:
    """The run folder up to 6_stats.json."""
    config = big_config()
    with Run(folder) as run:
        run.describe(config)
        run.begin("k", ())
        with run.writing("1_coder") as path:
            path.mkdir()
            write_json(path / "metrics.json", {"fvu": 0.12, "l0": float(size.active), "dead": 0.01})
        with run.writing("2_activations") as activations:
            activations.mkdir()
            with run.writing("4_simulations") as simulations:
                simulations.mkdir()
                _write_splits(size, activations, simulations)
        with run.writing("3_explanations.jsonl") as path:
            save_explanations(path, _explain(size))
        with run.writing("4_scores.parquet") as path:
            pq.write_table(_score(size), path)
        with run.writing("5_latents.parquet") as path:
            pq.write_table(_describe_latents(size), path)
        store = ActivationStore(run.path("2_activations"), SPLITS)
        with run.writing("5_calibration.safetensors") as path:
            save_curves(path, _calibrate(size, store, Simulations(run.path("4_simulations"), size.latents)))
        with run.writing("5_losses.parquet") as path:
            pq.write_table(_lose(size), path)
        with run.writing("5_places.parquet") as path:
            pq.write_table(_place(size), path)
        _write_costs(run, size)
        run.begin("k", ["5_latents.parquet", "5_losses.parquet"])
        analyse.run(config, run)
    return folder


# --- text, activations and strengths ----------------------------------------------------------------------------------


def _write_splits(size: Size, activations: Path, simulations: Path) -> None:
    rng = np.random.default_rng(0)
    vocabulary = tuple(f" {word}" if i % 3 else word for i, word in enumerate(_words(rng, size.vocabulary)))
    names: dict[str, list[list[str]]] = {}
    for split, documents in size.splits.items():
        names[split] = []
        for number, begin in enumerate(range(0, documents, SHARD)):
            own = np.arange(begin, min(begin + SHARD, documents))
            name = f"{split}-{number:05d}"
            shard = _draw_shard(rng, size, own, vocabulary)
            save_shard(activations, name, shard)
            names[split].append([f"{split} document {d}" for d in own.tolist()])
            if split != "train":
                missing = {int(i): "no explanation" for i in np.flatnonzero(size.absent)}
                strengths = Strengths(_simulate(rng, size, shard.activations), missing, {"unparsed": 1})
                save_strengths(simulations, name, strengths, shard.text)
    save_simulator(simulations, "made", SCALE, None)
    write_json(
        activations / "documents.json", {"vocabulary": list(vocabulary), "latents": size.latents, "splits": names}
    )


def _words(rng: np.random.Generator, count: int) -> list[str]:
    """Words of one to nine letters, all different: the number is in them."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    drawn = letters[rng.integers(0, 26, (count, 5))]
    return ["".join(row[: 1 + i % 5]) + np.base_repr(i, 36).lower() for i, row in enumerate(drawn)]


def _draw_shard(rng: np.random.Generator, size: Size, documents: np.ndarray, vocabulary: tuple[str, ...]) -> Shard:
    lengths = rng.integers(size.tokens // 2, size.tokens * 3 // 2 + 1, len(documents))
    pieces = [np.diff([*range(0, int(n), size.window), int(n)]) for n in lengths]
    starts = np.concatenate([[0], np.cumsum(np.concatenate(pieces))]).astype(np.int64)
    # Token ranks as frequent as words are (Zipf).
    ids = (size.vocabulary ** rng.random(starts[-1]) - 1).astype(np.int32)
    text = Text(ids, starts, vocabulary)
    rows = np.where(text.counted(), size.active, 0)
    latent = _draw_latents(rng, size, int(text.counted().sum()))
    value = rng.beta(1.2, 3, latent.size).astype(np.float32) * size.maximum[latent.ravel()]
    indptr = np.concatenate([[0], np.cumsum(rows)])
    truth = csr_array((value, latent.ravel().astype(np.int32), indptr), shape=(len(ids), size.latents))
    return Shard(text, np.repeat(documents, [len(p) for p in pieces]).astype(np.int32), truth)


def _draw_latents(rng: np.random.Generator, size: Size, positions: int) -> np.ndarray:
    """A latent of each stretch for every position, so that those of a position are sorted and all different."""
    edges = np.linspace(0, size.latents, size.active + 1).astype(np.int64)
    share = rng.random((positions, size.active), dtype=np.float32) ** 1.5
    return np.minimum(edges[:-1] + (share * np.diff(edges)).astype(np.int64), edges[1:] - 1)


def _simulate(rng: np.random.Generator, size: Size, truth: csr_array) -> csr_array:
    """Strengths that are right two times in three; elsewhere another latent of the stretch is said to fire."""
    right = rng.random(truth.nnz) < 0.67
    latent = np.where(right, truth.indices, _draw_latents(rng, size, truth.nnz // size.active).ravel())
    strength = np.rint(SCALE * truth.data / size.maximum[truth.indices] + rng.normal(0, 1, truth.nnz))
    strength = np.clip(np.where(right, strength, rng.integers(1, 6, truth.nnz)), 0, SCALE).astype(np.float32)
    strength[rng.random(truth.nnz) < 0.001] = np.nan
    made = csr_array((strength, latent.astype(np.int32), truth.indptr), shape=truth.shape)
    known = ~size.absent[made.indices] & (made.data != 0)
    rows = np.repeat(np.arange(truth.shape[0]), np.diff(truth.indptr))[known]
    return csr_array((made.data[known], (rows, made.indices[known])), shape=truth.shape)


# --- tables -----------------------------------------------------------------------------------------------------------


def _explain(size: Size) -> list[Explanation]:
    rng = np.random.default_rng(2)
    words = np.array(WORDS.split())
    explanations = []
    for latent, absent in enumerate(size.absent.tolist()):
        quoted = [" ".join(words[rng.integers(0, len(words), 2)]) for _ in range(15)]
        text = "Fires on " + ", ".join(f'"{item}"' for item in quoted) + f" ({1 + latent % 9})."
        explanations.append(Explanation(latent, None, "refused") if absent else Explanation(latent, text))
    return explanations


def _score(size: Size) -> pa.Table:
    rng = np.random.default_rng(3)
    why = np.where(size.absent, "no explanation", "")
    columns: dict[str, pa.Array] = {"latent": pa.array(range(size.latents), pa.int32())}
    for name in ("simulation", "r2", "detection", "fuzz"):
        value = np.where(size.absent, np.nan, rng.beta(3, 3, size.latents))
        for ending, add in (("", 0.0), ("_low", -0.05), ("_high", 0.05)):
            columns[name + ending] = pa.array(value + add, pa.float64(), from_pandas=True)
        columns[f"{name}_why"] = pa.array(why.tolist(), pa.string())
        if name in ("detection", "fuzz"):
            columns[f"{name}_precision"] = pa.array(value / 2, pa.float64(), from_pandas=True)
            columns[f"{name}_faults"] = pa.array(["{}"] * size.latents, pa.string())
    return pa.table(columns)


def _describe_latents(size: Size) -> pa.Table:
    rng = np.random.default_rng(4)
    table = pa.table(
        {
            "latent": pa.array(range(size.latents), pa.int32()),
            "density": pa.array(rng.lognormal(-7, 1, size.latents)),
            "maximum": pa.array(size.maximum),
            "mean": pa.array(0.001 * size.maximum.astype(np.float64)),
            "missing": pa.array(np.where(size.absent, "no explanation", "").tolist(), pa.string()),
            "missing_share": pa.array(np.where(size.absent, 1.0, 0.001)),
        }
    )
    return table.replace_schema_metadata({"latents": str(size.latents)})


def calibrator(size: Size) -> Calibrator:
    """Level by level, from a hundredth of a latent's maximum to seven tenths of it."""
    levels = 0.01 + 0.69 * np.arange(LEVELS) / (LEVELS - 1)
    return Table(SCALE, (size.maximum[:, None] * levels).astype(np.float32))


def _calibrate(size: Size, store: ActivationStore, simulations: Simulations) -> Curves:
    fitted = calibrator(size)
    test = measure(_pairs(store, simulations), fitted, SCALE, ~size.absent).test
    mean = (0.001 * size.maximum).astype(np.float64)
    return Curves(SCALE, fitted, find_threshold(fitted, SCALE, size.latents), mean, test)


def _pairs(store: ActivationStore, simulations: Simulations) -> Iterator[Pair]:
    """Truth and strengths of the test split, a shard at a time."""
    for name in store.test.shards:
        shard = store.test.load(name)
        counted = simulations.show(name, shard.text).counted()
        yield Pair(shard.activations[counted], simulations.strengths(name, len(counted))[counted])


def _arms(size: Size) -> dict[tuple[str, float | None, str, int], np.ndarray]:
    """Each arm's loss a token, by document."""
    rng = np.random.default_rng(6)
    clean = 2.4 + 0.2 * rng.normal(size=size.documents)
    coder, gap = clean + 0.07 + 0.02 * rng.normal(size=size.documents), 0.5 + 0.1 * rng.normal(size=size.documents)
    shares = {"mean": 0.98, "mean_layer": 1.1, "zero_layer": 1.4, "quantised": 0.01, "matched": 0.1, "hits": 0.3}
    arms: dict[tuple[str, float | None, str, int], np.ndarray] = {("clean", None, "", 0): clean}
    arms |= {("coder", None, "", 0): coder, ("zero", None, "", 0): coder + gap}
    arms |= {
        (arm, None, "", 0): coder + share * gap + 0.01 * rng.normal(size=size.documents)
        for arm, share in shares.items()
    }
    for fraction in (0.01, 0.1, 0.5, 1.0):
        noise = 0.02 * rng.normal(size=size.documents)
        arms["simulated", fraction, "best", 0] = coder + 0.4 * fraction * gap + noise
        for seed in range(3 if fraction < 1 else 0):
            arms["simulated", fraction, "random", seed] = coder + (0.5 + 0.02 * seed) * fraction * gap
    return arms


def _lose(size: Size) -> pa.Table:
    tokens = size.tokens - np.arange(size.documents) % 7
    rows = [
        (d, *key, float(loss[d] * tokens[d]), int(tokens[d]))
        for key, loss in _arms(size).items()
        for d in range(len(loss))
    ]
    types = [pa.int32(), pa.string(), pa.float64(), pa.string(), pa.int64(), pa.float64(), pa.int64()]
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
    return pa.table(columns, names=list(COLUMNS))


def _place(size: Size) -> pa.Table:
    """Losses of some arms by place: nine tokens of each document in every bin."""
    arms = {key[0]: loss.tolist() for key, loss in _arms(size).items() if key[1] in (None, 1.0) and key[0] in PLACED}
    rows = [
        (one.by, one.low, one.high, arm, d, 9 * loss, 9)
        for one in BINS
        if one.by == "frequency" or one.low < size.window - 1
        for arm, losses in arms.items()
        for d, loss in enumerate(losses)
    ]
    types = [pa.string(), pa.int64(), pa.int64(), pa.string(), pa.int32(), pa.float64(), pa.int64()]
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
    return pa.table(columns, names=list(places.COLUMNS))


def _write_costs(run: Run, size: Size) -> None:
    """The costs are drawn; the firings are counted."""
    rng = np.random.default_rng(7)
    store = ActivationStore(run.path("2_activations"), SPLITS)
    simulations = Simulations(run.path("4_simulations"), store.latents)
    fitted = calibrator(size)
    pairs = document_pairs(store.test, simulations)
    firings = count_firings(pairs, fitted, find_threshold(fitted, SCALE, size.latents), ~size.absent)
    value = rng.normal(1e-6, 1e-5, size.latents)
    checked = np.isin(np.arange(size.latents), rng.permutation(size.latents)[:50])
    alone = np.where(checked, value * rng.uniform(0.5, 1.5, size.latents), np.nan)
    scores = {name: rng.beta(3, 3, size.latents) for name in ("simulation", "r2", "density", "size")}
    columns = {"cost": value, "cost_low": value - 1e-5, "cost_high": value + 1e-5, "p": rng.random(size.latents)}
    columns |= {"q": rng.random(size.latents), "alone": alone, "alone_low": alone - 1e-5, "alone_high": alone + 1e-5}
    columns |= scores | vars(firings.latents) | rate_latents(firings)
    with run.writing("5_costs.parquet") as path:
        pq.write_table(cost.tabulate(columns, np.ones(size.latents, dtype=bool)), path)
    content = {"schema": 1, "documents": 60, "tokens": 60 * size.tokens, "steps": 4}
    content |= {"loss": {"coder": 2.47, "simulated": 2.67}, "sum": 0.199, "completeness_error": -0.001}
    content |= {"completeness_share": 0.005, "alpha": ALPHA, "costly": 7, "tested": size.latents}
    content["check"] = check_costs(value, alone, np.flatnonzero(checked)[25:], ALPHA)
    content["predictors"] = predict(value, scores, ALPHA)
    content["firings"] = pool(firings, ALPHA)
    with run.writing("5_costs.json") as path:
        write_json(path, content)
    with run.writing("5_heads.parquet") as path:
        pq.write_table(make_readers(), path)
    with run.writing("5_diagnosis.json") as path:
        write_json(path, make_diagnosis(ALPHA))
