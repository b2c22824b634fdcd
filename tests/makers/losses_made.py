"""Losses as a run leaves them, whose arithmetic is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rewrite.config import AnalyseConfig
from rewrite.statistics import analysis
from rewrite.statistics.losses import COLUMNS, read_losses

FRACTIONS = (0.1, 0.5, 1.0)
SEEDS = 3
DRAWS = 4
QUICK = AnalyseConfig(resamples=999)
Row = dict[str, Any]


def make_rows(documents: int = 30, seed: int = 0, kept: float = 0.6, gap: float = 0.5) -> list[Row]:
    """Losses as a run leaves them: simulating a share f costs (1 - kept) · f of a gap of some 0.5 nats."""
    rng = np.random.default_rng(seed)
    tokens = 50 + rng.integers(0, 200, documents)
    clean = 1.5 + 0.2 * rng.normal(size=documents)
    coder = clean + 0.07 + 0.02 * rng.normal(size=documents)
    gaps = gap + 0.1 * rng.normal(size=documents)
    rows: list[Row] = []

    def add(arm: str, loss: np.ndarray, fraction: float | None = None, order: str = "", draw: int = 0) -> None:
        for number in range(documents):
            rows.append(
                {"document": number, "arm": arm, "fraction": fraction, "order": order, "seed": draw}
                | {"nats": float(loss[number] * tokens[number]), "tokens": int(tokens[number])}
            )

    add("clean", clean)
    add("coder", coder)
    add("zero", coder + gaps)
    add("zero_layer", coder + gaps + 0.1 + 0.02 * rng.normal(size=documents))
    add("mean", coder + 0.98 * gaps)
    add("mean_layer", coder + 0.99 * gaps)
    for fraction in FRACTIONS:
        noise = 0.02 * rng.normal(size=documents)
        add("simulated", coder + (1 - kept) * fraction * gaps + fraction * noise, fraction, "best")
        for draw in range(SEEDS if fraction < 1 else 0):
            add("simulated", coder + (1 - kept) * fraction**0.5 * gaps + 0.01 * draw, fraction, "random", draw)
    return rows


def write_losses(path: Path, rows: list[Row]) -> Path:
    """Rows as the evaluate stage writes them."""
    types = [pa.int32(), pa.string(), pa.float64(), pa.string(), pa.int64(), pa.float64(), pa.int64()]
    columns = zip(COLUMNS, types, strict=True)
    pq.write_table(pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in columns}), path)
    return path


ALL = analysis.Latents(every=1024, rewritten=1024, missing=0.0)


def analyse_rows(folder: Path, rows: list[Row], config: AnalyseConfig = QUICK, latents: analysis.Latents = ALL) -> Row:
    path = write_losses(folder / "5_losses.parquet", rows)
    return analysis.analyse(read_losses(path), config, latents, path)


def find_arm(result: Row, arm: str, fraction: float | None = None, order: str = "") -> Row:
    found = [row for row in result["arms"] if (row["arm"], row["fraction"], row["order"]) == (arm, fraction, order)]
    assert len(found) == 1
    return found[0]


def replace_arm(rows: list[Row], arm: str, source: str) -> list[Row]:
    """The losses of `arm` at fraction 1 made those of `source`, to the last bit."""
    nats = {row["document"]: row["nats"] for row in rows if row["arm"] == source}
    return [
        row | {"nats": nats[row["document"]]} if (row["arm"], row["fraction"]) == (arm, 1.0) else row for row in rows
    ]


def add_controls(rows: list[Row]) -> list[Row]:
    """Also the arms of the split, that lose 20%, 30% and 50% of what is lost, and `shuffled` near the mean."""
    rng = np.random.default_rng(5)
    by_arm = {(row["arm"], row["fraction"], row["document"]): row for row in rows}
    more = []
    for row in rows:
        if row["arm"] != "coder":
            continue
        document, tokens = row["document"], row["tokens"]
        lost = by_arm[("simulated", 1.0, document)]["nats"] - row["nats"]
        noise = 0.01 * rng.normal(size=2) * tokens
        more.append(row | {"arm": "matched", "nats": row["nats"] + 0.2 * lost + noise[0]})
        more.append(row | {"arm": "hits", "nats": row["nats"] + 0.5 * lost + noise[1]})
        mean = by_arm[("mean", None, document)]["nats"]
        for seed in range(DRAWS):
            nats = mean + tokens * (0.01 * rng.normal() + 0.002 * seed)
            more.append(row | {"arm": "shuffled", "fraction": 1.0, "seed": seed, "nats": nats})
    return rows + more
