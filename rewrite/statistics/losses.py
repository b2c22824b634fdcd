"""`5_losses.parquet` → the losses of each arm, one per document, checked.

Losses that are missing, not finite, twice there or counted over different tokens are refused, by file and arm. The
seeds of an arm that is drawn, a random order or a control, are averaged within each document before anything else: they
are one arm, and their spread is kept beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rewrite.arms.controls import AUDITED, DRAWN, NEEDED
from rewrite.config import UserError
from rewrite.statistics import paired as stats

Row = dict[str, Any]

COLUMNS = ("document", "arm", "fraction", "order", "seed", "nats", "tokens")


@dataclass(frozen=True)
class Key:
    """What names an arm's losses; `fraction` is None where nothing is simulated, `seed` where several are averaged."""

    arm: str
    fraction: float | None
    order: str
    seed: int | None

    def __str__(self) -> str:
        parts = [f"fraction {self.fraction}" if self.fraction is not None else "", self.order]
        seed = [f"seed {self.seed}"] if self.drawn and self.seed is not None else []
        return " ".join([self.arm, *filter(None, parts), *seed])

    @property
    def drawn(self) -> bool:
        """Whether seeds draw it: it simulates latents in a random order, or is a control made of draws."""
        return self.order == "random" or self.arm in DRAWN

    @property
    def place(self) -> tuple[str, float, str, int]:
        """Its place in every list that is written."""
        return (
            self.arm,
            -1.0 if self.fraction is None else self.fraction,
            self.order,
            -1 if self.seed is None else self.seed,
        )


@dataclass(frozen=True)
class Losses:
    """Losses per document, summed over its scored tokens; the same documents and tokens for every arm.

    `single` holds each seed's arm, `averaged` the arms that are drawn with their seeds averaged within each document.
    """

    documents: tuple[int, ...]
    tokens: stats.Tokens
    single: dict[Key, stats.Documents]
    averaged: dict[Key, stats.Documents]

    def find(self, arm: str) -> stats.Documents:
        """The losses of an arm that stands once, or of a drawn control, its seeds averaged."""
        return self.averaged[Key(arm, 1.0, "", None)] if arm in DRAWN else self.single[Key(arm, None, "", 0)]

    def has(self, arm: str) -> bool:
        return Key(arm, 1.0, "", None) in self.averaged if arm in DRAWN else Key(arm, None, "", 0) in self.single


def read_losses(path: Path) -> Losses:
    """The losses of every arm, documents sorted; documents without a scored token in any arm count for nothing.

    Raises UserError naming the file and the arm for a loss that is missing, twice there or not a finite number, for
    tokens that differ between arms, and for an arm that is needed and absent.
    """
    rows = _read_rows(path)
    for arm in NEEDED:
        if Key(arm, None, "", 0) not in rows:
            raise UserError(f"{path}: no arm {arm} in this file; evaluate again")
    if not any((key.arm, key.order) == ("simulated", "best") for key in rows):
        raise UserError(f"{path}: no arm simulated, best order; set evaluate.fractions and evaluate again")
    every = sorted({document for losses in rows.values() for document in losses})
    keys = sorted(rows, key=lambda key: key.place)
    clean = rows[Key("clean", None, "", 0)]
    for key in keys:
        _check_arm(path, key, rows[key], every, clean)
    documents = tuple(document for document in every if clean[document].tokens > 0)
    tokens = np.array([clean[document].tokens for document in documents], dtype=np.int64)
    single = {key: np.array([rows[key][document].nats for document in documents], dtype=np.float64) for key in keys}
    return Losses(documents, tokens, single, _average_seeds(single))


@dataclass(frozen=True)
class _Loss:
    """One document's loss in one arm, summed over its scored tokens."""

    nats: float
    tokens: int


def read_audit(path: Path) -> Losses | None:
    """The losses of an audit's arms (`rewrite.arms.audit`), on its documents, sorted; None where there are none."""
    rows = _read_rows(path, audited=True)
    if not rows:
        return None
    keys = [Key(arm, None, "", 0) for arm in AUDITED]
    first = rows[keys[0]]
    documents = tuple(sorted(document for document in first if first[document].tokens > 0))
    tokens = np.array([first[document].tokens for document in documents], dtype=np.int64)
    single = {key: np.array([rows[key][document].nats for document in documents], dtype=np.float64) for key in keys}
    return Losses(documents, tokens, single, {})


def _read_rows(path: Path, audited: bool = False) -> dict[Key, dict[int, _Loss]]:
    """The losses by arm and document, as they stand in the file, in any order: those of an audit's arms, or of all
    others, which stand on all documents."""
    rows: dict[Key, dict[int, _Loss]] = {}
    for document, arm, fraction, order, seed, nats, tokens in zip(*read_columns(path, COLUMNS), strict=True):
        if (arm in AUDITED) != audited:
            continue
        key = Key(arm, fraction, order, seed)
        losses = rows.setdefault(key, {})
        if document in losses:
            raise UserError(f"{path}: document {document} is twice in arm {key}; evaluate again")
        if nats is None or not np.isfinite(nats):
            raise UserError(f"{path}: the loss of document {document} in arm {key} is {nats}; evaluate again")
        losses[document] = _Loss(nats, tokens)
    return rows


def read_columns(path: Path, names: Sequence[str]) -> list[list[Any]]:
    """Columns of a Parquet file that evaluate wrote. Raises UserError naming the file where it has them not."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: not readable as Parquet ({str(error).splitlines()[0]}); evaluate again") from None
    absent = [name for name in names if name not in table.column_names]
    if absent:
        raise UserError(f"{path}: no column {absent[0]}; evaluate again")
    return [table.column(name).to_pylist() for name in names]


def _check_arm(path: Path, key: Key, losses: dict[int, _Loss], documents: list[int], clean: dict[int, _Loss]) -> None:
    """Every arm is scored on the same documents and the same positions."""
    for document in documents:
        if document not in losses:
            raise UserError(f"{path}: arm {key} lacks document {document}; evaluate again")
        found, expected = losses[document].tokens, clean[document].tokens if document in clean else None
        if expected is not None and found != expected:
            raise UserError(
                f"{path}: document {document} has {found} scored tokens in arm {key} and {expected} in arm clean; "
                "evaluate again"
            )


def _average_seeds(single: dict[Key, stats.Documents]) -> dict[Key, stats.Documents]:
    groups: dict[Key, list[stats.Documents]] = {}
    for key, nats in single.items():
        if key.drawn:
            groups.setdefault(replace(key, seed=None), []).append(nats)
    return {key: np.mean(group, axis=0) for key, group in groups.items()}


def name_arm(row: Row) -> str:
    """An arm as a reader meets it: `simulated, 40% best`, `shuffled, mean of 5 draws`."""
    if row["fraction"] is None:
        return str(row["arm"])
    if row["order"] == "":
        return f"{row['arm']}, mean of {row['seeds']} draws" if "seeds" in row else str(row["arm"])
    return f"{row['arm']}, {100 * row['fraction']:.3g}%" + (f" {row['order']}" if row["fraction"] < 1 else "")
