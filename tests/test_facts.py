"""What a report tells is what the files say: order and choice are added, never a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from facts_made import make_facts, make_stats

from rewrite.gathering import read_costs

Row = dict[str, Any]


@pytest.fixture(scope="module")
def stats(tmp_path_factory: pytest.TempPathFactory) -> Row:
    return make_stats(tmp_path_factory.mktemp("facts") / "5_losses.parquet")


def write_costs(path: Path, latents: int = 30) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(5)
    names = ("cost", "cost_low", "cost_high", "q", "alone", "simulation", "density")
    columns = {name: draws.random(latents) for name in names}
    columns["cost"][0] = columns["alone"][:20] = columns["simulation"][4] = np.nan
    table = {"latent": pa.array(range(latents), pa.int32())}
    table |= {name: pa.array(values, pa.float64(), from_pandas=True) for name, values in columns.items()}
    pq.write_table(pa.table(table), path)
    return columns


def test_the_costly_latents_are_those_of_most_cost(stats: Row, tmp_path: Path) -> None:
    columns = write_costs(tmp_path / "c.parquet")
    rows = make_facts(stats, latent_costs=read_costs(tmp_path / "c.parquet")).costly
    assert [row["latent"] for row in rows] == list(np.argsort(-np.nan_to_num(columns["cost"], nan=-1))[:10])
    assert rows[0]["ci"] == [columns["cost_low"][rows[0]["latent"]], columns["cost_high"][rows[0]["latent"]]]
    few = make_facts(stats, latent_costs=[dict.fromkeys(row) | {"latent": row["latent"]} for row in rows])
    assert few.costly == []  # What is not known is no row.


def test_every_table_has_rows_and_those_without_are_left_out(stats: Row) -> None:
    tables = make_facts(stats).tables
    assert {"settings", "ladder", "fractions", "comparisons", "places", "calibration", "costs", "latents"} <= set(
        tables
    )
    assert "calls" not in tables and all(tables.values())
    assert [row["arm"] for row in tables["places"]][:4] == ["clean", "coder", "simulated", "zero"]
