"""Shared beginnings and branches in one pass, in every family: the answers are those of a plain forward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from makers.reading_families import FAMILIES, SIZES, VOCABULARY

from rewrite.engines.transformers.trunk import Reader, Row, can_branch, can_cut_back, plan_batches

pytestmark = pytest.mark.timeout(300)


WHOLE = {"mamba", "llama4_text"}
"""Families whose caches cannot be cut back."""


SEPARATE = WHOLE | {"mistral", "gemma2", "gemma3_text", "bloom"}
"""Families that take no mask of ours: sliding windows, ALiBi, other caches."""


def rows_of(seed: int, number: int, branch: int = 0) -> list[Row]:
    """Trunks that begin alike to various lengths, with three branches each, some of them within what is alike."""
    random = np.random.default_rng(seed)
    beginning = random.integers(3, VOCABULARY, 20)
    rows = []
    for at in range(number):
        rest = random.integers(3, VOCABULARY, random.integers(6, 30))
        ids = np.concatenate([beginning[: random.integers(10, 20)], rest])
        first = 6 if at == 3 else min(22, len(ids) - 4)
        ends = np.sort(random.choice(np.arange(first, len(ids)), 3, replace=False)) + 1
        # Rows of one batch may differ in how long their branches are.
        rows.append(Row(at, ids[: ends[-1]], ends, random.integers(3, VOCABULARY, branch + at % 2 * bool(branch))))
    return sorted(rows, key=lambda row: row.ids.tolist())


def make_family(family: str, dtype: str = "float32") -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family])
    return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()


def alone(model: Any, row: Row) -> np.ndarray:
    """The digits of each branch as a prompt of its own, in a plain forward."""
    import torch

    found = []
    for end in row.ends:
        ids = np.concatenate([row.ids[:end], row.branch])
        with torch.no_grad():
            logits = model(torch.from_numpy(ids)[None], use_cache=False).logits[0, -1]
        found.append(logits.float().softmax(-1)[20:30].numpy())
    return np.stack(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_beginnings_change_no_answer(family: str) -> None:
    model = make_family(family)
    reuse = can_cut_back(model.config)
    assert reuse == (family not in WHOLE)
    reader = Reader(model, np.arange(20, 30), reuse)
    for most in (1, 3):
        rows = rows_of(most, 7)
        processed = 0
        for batch in plan_batches(rows, most, reader.ids, reuse):
            some = rows[batch.begin : batch.end]
            for row, reading in zip(some, reader.read(some, batch.shared), strict=True):
                np.testing.assert_allclose(reading.digits, alone(model, row), rtol=1e-3, atol=1e-6)
                processed += reading.spent.processed
        whole = sum(row.length for row in rows)
        assert processed < whole if reuse else processed == whole


@pytest.mark.parametrize("family", FAMILIES)
def test_branches_in_one_pass_are_prompts_of_their_own(family: str) -> None:
    """Whatever came before, in batches of trunks and branches of different lengths, which are padded."""
    model = make_family(family)
    assert can_branch(model.config) == (family not in SEPARATE)
    if family in SEPARATE:
        return
    reader = Reader(model, np.arange(20, 30), True)
    for most in (1, 3, 7):
        rows = rows_of(most, 7, branch=2)
        for batch in plan_batches(rows, most, reader.ids):
            some = rows[batch.begin : batch.end]
            for row, reading in zip(some, reader.read(some, batch.shared), strict=True):
                np.testing.assert_allclose(reading.digits, alone(model, row), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_branches_in_half_precision(dtype: str) -> None:
    model = make_family("llama", dtype)
    reader, rows = Reader(model, np.arange(20, 30), True), rows_of(5, 7, branch=2)
    for batch in plan_batches(rows, 7, reader.ids):
        some = rows[batch.begin : batch.end]
        for row, reading in zip(some, reader.read(some, batch.shared), strict=True):
            assert np.isfinite(reading.digits).all()
            np.testing.assert_allclose(reading.digits, alone(model, row), rtol=0.1, atol=0.01)
