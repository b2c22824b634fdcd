"""Losses that allow no analysis, and files that are no losses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.losses_made import (
    Row,
    analyse_rows,
    make_rows,
)

from rewrite.config import UserError
from rewrite.statistics.losses import read_losses


def drop_document(rows: list[Row]) -> list[Row]:
    return [row for row in rows if (row["arm"], row["document"]) != ("mean", 4)]


def drop_clean_document(rows: list[Row]) -> list[Row]:
    return [row for row in rows if (row["arm"], row["document"]) != ("clean", 4)]


def spoil_loss(rows: list[Row]) -> list[Row]:
    return [row | {"nats": float("nan")} if (row["order"], row["document"]) == ("random", 4) else row for row in rows]


def spoil_tokens(rows: list[Row]) -> list[Row]:
    return [row | {"tokens": row["tokens"] - (row["arm"] == "zero")} for row in rows]


def drop_arm(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["arm"] != "zero"]


def keep_few(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["document"] < 5]


def fix_gap(rows: list[Row]) -> list[Row]:
    coder = {row["document"]: row["nats"] for row in rows if row["arm"] == "coder"}
    fixed = {row["document"]: coder[row["document"]] + 0.5 * row["tokens"] for row in rows}
    return [row | {"nats": fixed[row["document"]]} if row["arm"] == "zero" else row for row in rows]


def flatten(rows: list[Row]) -> list[Row]:
    return [row | {"nats": 2.0 * row["tokens"]} if row["arm"] == "mean" else row for row in rows]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_document, "arm mean lacks document 4"),
        (drop_clean_document, "arm clean lacks document 4"),
        (spoil_loss, "loss of document 4 in arm simulated fraction 0.1 random seed 0 is nan"),
        (spoil_tokens, "scored tokens in arm zero"),
        (drop_arm, "no arm zero"),
        (lambda rows: rows + rows[:1], "document 0 is twice in arm clean"),
        (keep_few, "5 documents are too few for a test: at least 8 are needed"),
        (fix_gap, "arm zero against coder: all 30 documents give the same 0.5 nats per token"),
        (flatten, "arm mean: all 30 documents give the same 2 nats per token"),
        (lambda rows: [], "no arm clean"),
        (lambda rows: [row for row in rows if row["order"] != "best"], "no arm simulated, best order"),
    ],
)
def test_losses_that_allow_no_analysis(tmp_path: Path, spoil: Callable[[list[Row]], list[Row]], message: str) -> None:
    with pytest.raises(UserError) as caught:
        analyse_rows(tmp_path, spoil(make_rows()))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "5_losses.parquet"))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_losses(tmp_path: Path) -> None:
    path = tmp_path / "5_losses.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="not readable as Parquet"):
        read_losses(path)
    pq.write_table(pa.table({"document": [1]}), path)
    with pytest.raises(UserError, match="no column arm"):
        read_losses(path)
