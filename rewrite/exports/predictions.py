"""The predictions of a run as tables, for the forms that hand them on: Parquet files in three folders.

`predictions`, `windows` and `explanations` are told in `rewrite.exports.dataset`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from rewrite.coder.activations import ActivationStore, Shard, Split
from rewrite.explainers.explanations import load_explanations
from rewrite.exports.base import sound
from rewrite.run.finished import Finished
from rewrite.simulators.strengths import Simulations
from rewrite.statistics.curves import Curves, load_curves

ROWS = 1 << 17
"""Rows of one group in a Parquet file, the unit that a reader holds in memory."""
SCORES = {
    "simulation": "correlation of strengths and activations",
    "r2": "R² of the calibrated strengths",
    "detection": "balanced accuracy of detection",
    "fuzz": "balanced accuracy of fuzzing",
}
"""What the scores are, for the card."""
COSTS = ("cost", "cost_low", "cost_high", "q", "precision", "recall", "false_per_token", "missed_per_token")


@dataclass(frozen=True)
class Written:
    """What was written, and what it was written from."""

    source: Source
    counts: dict[str, int]
    """Rows of each folder."""
    explanations: pa.Table


def tabulate(run: Finished, folder: Path) -> Written:
    """Write the three folders into one that is there."""
    source = open_source(run)
    counts = {"predictions": 0, "windows": 0}
    for config in (*counts, "explanations"):
        (folder / config).mkdir()
    shards = source.test.shards
    for number, (name, shard) in enumerate(source.test.walk()):
        tables = {"predictions": source.predictions(name, shard), "windows": source.windows(name, shard)}
        for config, table in tables.items():
            counts[config] += table.num_rows
            _write_table(table, folder / config / f"test-{number:05d}-of-{len(shards):05d}.parquet")
    table = tabulate_explanations(run, source)
    counts["explanations"] = table.num_rows
    _write_table(table, folder / "explanations" / "latents-00000-of-00001.parquet")
    return Written(source, counts, table)


def _write_table(table: pa.Table, file: Path) -> None:
    """Without Arrow's own schema, so that whoever reads the file sees what Parquet itself says."""
    pq.write_table(table, file, row_group_size=ROWS, store_schema=False)


def open_source(run: Finished) -> Source:
    """What the run says of its test split."""
    store = ActivationStore(run.path("2_activations"), ("calibrate", "test"))
    simulations = Simulations(run.path("4_simulations"), store.latents)
    absent = simulations.absent(store.calibrate.shards + store.test.shards)
    return Source(store.test, simulations, load_curves(run.path("5_calibration.safetensors")), absent)


@dataclass(frozen=True)
class Source:
    """Truth and simulations of the test split, with the calibration they were scored by."""

    test: Split
    simulations: Simulations
    curves: Curves
    absent: Bool[np.ndarray, " latent"]
    """Latents without any prediction: their rows say nothing of strengths."""

    def predictions(self, name: str, shard: Shard) -> pa.Table:
        """The rows of one shard, in the order of the text."""
        latents = self.test.latents
        counted = self.simulations.show(name, shard.text).counted()
        truth = _entries(shard.activations, counted, self.simulations.rewritten)
        strengths = self.simulations.strengths(name, len(counted))
        said = _entries(strengths, counted, self.simulations.rewritten)
        key = np.union1d(truth[0], said[0])
        row, latent = key // latents, key % latents
        strength = np.where(self.absent[latent], np.nan, _look_up(*said, key)).astype(np.float32)
        window = np.repeat(np.arange(len(shard.documents)), np.diff(shard.text.starts))[row]
        return pa.table(
            {
                "document": _texts(self.test.names, shard.documents[window]),
                "window": pa.array(_ordinals(shard)[window], pa.int32()),
                "position": pa.array(row - shard.text.starts[window], pa.int32()),
                "token": _texts(self.test.vocabulary, shard.text.ids[row]),
                "latent": pa.array(latent, pa.int32()),
                "true": pa.array(_look_up(*truth, key), pa.float32()),
                "strength": pa.array(strength, pa.float32(), from_pandas=True),
                "simulated": pa.array(self.curves.calibrator.apply(strength, latent), pa.float32(), from_pandas=True),
                "missing": pa.array(np.isnan(strength), pa.bool_()),
            }
            | ({"held": pa.array(self._held(strengths, row, latent), pa.bool_())} if self.screen else {})
        )

    @property
    def screen(self) -> str:
        """The screen that said what was asked; empty where there was none."""
        told = self.simulations.screen(self.test.shards[0])
        return str(told["by"]) if told else ""

    def _held(
        self, strengths: csr_array, row: Int[np.ndarray, " row"], latent: Int[np.ndarray, " row"]
    ) -> Bool[np.ndarray, " row"]:
        """Whether the screen held each pair back: it has no entry, not even 0, and the latent is not missing."""
        asked = np.repeat(np.arange(strengths.shape[0]), np.diff(strengths.indptr)) * self.test.latents
        held: np.ndarray = ~np.isin(row * self.test.latents + latent, asked + strengths.indices) & ~self.absent[latent]
        return held

    def windows(self, name: str, shard: Shard) -> pa.Table:
        """The windows of one shard."""
        counted = self.simulations.show(name, shard.text).counted()
        ends = pa.array(shard.text.starts, pa.int32())
        return pa.table(
            {
                "document": _texts(self.test.names, shard.documents),
                "window": pa.array(_ordinals(shard), pa.int32()),
                "tokens": pa.ListArray.from_arrays(ends, _texts(self.test.vocabulary, shard.text.ids)),
                "simulated": pa.ListArray.from_arrays(ends, pa.array(counted, pa.bool_())),
            }
        )


def _entries(
    matrix: csr_array, rows: Bool[np.ndarray, " position"], columns: Bool[np.ndarray, " latent"]
) -> tuple[Int[np.ndarray, " entry"], Float[np.ndarray, " entry"]]:
    """The entries other than 0 in these rows and columns: their keys, row · columns + column, sorted, and values."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    kept = rows[row] & columns[matrix.indices] & (matrix.data != 0)
    key = row[kept] * matrix.shape[1] + matrix.indices[kept]
    order = np.argsort(key, kind="stable")
    return key[order], matrix.data[kept][order]


def _look_up(
    keys: Int[np.ndarray, " entry"], values: Float[np.ndarray, " entry"], wanted: Int[np.ndarray, " row"]
) -> Float[np.ndarray, " row"]:
    """The value at each wanted key, 0 where there is none."""
    found = np.zeros(len(wanted), dtype=np.float32)
    found[np.searchsorted(wanted, keys)] = values
    return found


def _texts(texts: Sequence[str], numbers: Int[np.ndarray, " row"]) -> pa.Array:
    """The texts by their numbers."""
    return pa.array(texts, pa.string()).take(pa.array(numbers, pa.int32()))


def _ordinals(shard: Shard) -> Int[np.ndarray, " window"]:
    """0, 1, 2, ... for the windows of each document."""
    return np.arange(len(shard.documents)) - np.searchsorted(shard.documents, shard.documents)


def tabulate_explanations(run: Finished, source: Source) -> pa.Table:
    """A row per rewritten latent; null where something is not known."""
    latents = np.flatnonzero(source.simulations.rewritten)
    said = {e.latent: e for e in load_explanations(run.path("3_explanations.jsonl"))}
    texts = [said[i].text if i in said else None for i in latents.tolist()]
    why = [said[i].why if i in said else "not explained" for i in latents.tolist()]
    rest = source.curves.calibrator.apply(np.zeros(len(latents), dtype=np.float32), latents)
    fitted = _rows_of(pq.read_table(run.path("5_latents.parquet")), latents)
    scores = _rows_of(pq.read_table(run.path("4_scores.parquet")), latents)
    costs = _rows_of(pq.read_table(run.path("5_costs.parquet")), latents)
    columns = {
        "latent": pa.array(latents, pa.int32()),
        "explanation": pa.array([None if text is None else sound(text) for text in texts], pa.string()),
        "unexplained": pa.array([sound(reason) for reason in why], pa.string()),
    }
    for name in ("density", "maximum", "mean", "missing", "missing_share"):
        columns[name] = fitted[name]
    columns["rest"] = pa.array(np.where(source.absent[latents], np.nan, rest), pa.float32(), from_pandas=True)
    for name in SCORES:
        if name in scores.column_names:
            columns |= {part: scores[part] for part in (name, f"{name}_low", f"{name}_high", f"{name}_why")}
    return pa.table(columns | {name: costs[name] for name in COSTS})


def _rows_of(table: pa.Table, latents: Int[np.ndarray, " chosen"]) -> pa.Table:
    """The rows of these latents from a table that has them in order."""
    return table.take(np.searchsorted(table["latent"].to_numpy(), latents))
