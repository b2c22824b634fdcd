"""What a report tells is what the files say: order and choice are added, never a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.facts_made import make_facts, make_stats

from rewrite.report.gathering import describe_corpus, read_calls, read_rows, read_seconds

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
    rows = make_facts(stats, latent_costs=read_rows(tmp_path / "c.parquet")).costly
    assert [row["latent"] for row in rows] == list(np.argsort(-np.nan_to_num(columns["cost"], nan=-1))[:10])
    assert rows[0]["ci"] == [columns["cost_low"][rows[0]["latent"]], columns["cost_high"][rows[0]["latent"]]]
    few = make_facts(stats, latent_costs=[dict.fromkeys(row) | {"latent": row["latent"]} for row in rows])
    assert few.costly == []  # What is not known is no row.


def test_every_table_has_rows_and_those_without_are_left_out(stats: Row) -> None:
    tables = make_facts(stats).tables
    assert {"settings", "ladder", "fractions", "comparisons", "places", "calibration", "costs", "latents"} <= set(
        tables
    )
    assert tables["latents"][1] == {
        "latent": 1,
        "explanation": "fires on the word w1",
        "missing": "",
        "density": 0.0123,
        "maximum": 1.0,
        "missing_share": 0.0,
    }
    assert tables["scores"][3] == {"latent": 3, "simulation": None, "r2": None}
    assert tables["reasons"][-1] == {"what": "explanation", "reason": "refused", "latents": 1, "example": ""}
    assert "calls" not in tables and all(tables.values())
    assert [row["arm"] for row in tables["places"]][:4] == ["clean", "coder", "simulated", "zero"]


def test_a_price_that_was_not_set_is_not_zero() -> None:
    spent = {"calls": 5, "cost": 0.0, "cost_per_latent": 0.0, "seconds": 90.0}
    made = {"calls": {"simulate": spent, "explain": spent | {"calls": 0}}, "artefacts": {}}
    calls = read_calls(made)
    assert (calls["simulate"]["cost"], calls["simulate"]["cost_per_latent"]) == (None, None)
    assert calls["explain"]["cost"] == 0.0
    priced = {"simulate": spent | {"cost": 0.25, "cost_per_latent": 0.01}}
    assert read_calls({"calls": priced}) == priced


def test_a_stage_that_went_on_took_all_its_waiting() -> None:
    artefacts = {"4_simulations": {"seconds": 2.0}, "1_coder": {"seconds": 3.0}, "7_report": {"seconds": 1.0}}
    manifest = {"artefacts": artefacts, "calls": {"simulate": {"calls": 9, "cost": 1.0, "seconds": 3600.0}}}
    assert read_seconds(manifest) == {"1_coder": 3.0, "4_simulations": 3600.0}


def test_what_the_test_split_shares_with_the_others_is_told() -> None:
    shared = {"test": {"run": 50, "share": 0.0123, "documents": {"a": 0.5, "b": 0.1}}}
    noted = {"documents": {"test": 20}, "shared": shared, "copies": 0, "null": 0}
    told = describe_corpus(noted)
    assert told == {
        "seen before": "2 of 20 test documents share 50 words in a row with a train or calibrate document, 1.2% of the "
        "test split's words"
    }
    more = describe_corpus(noted | {"copies": 3, "null": 1000})
    assert more["left out"] == "3 copies of other documents, 1,000 rows without a text"
    assert more["seen before"] == told["seen before"]
    assert describe_corpus({"sha256": "of a run folder that does not say"}) == {}
