"""The content of a 5_diagnosis.json, made in milliseconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from rewrite.statistics.mediation import (
    describe_alike,
    describe_closed,
    describe_heads,
    describe_scores,
    describe_task,
    describe_terms,
    describe_way,
)

Row = dict[str, Any]
NAMES = [(1, "direct"), *((layer, kind) for layer in (2, 3) for kind in ("values", "pattern", "mlp"))]
HEADS = [(2, 0), (2, 1), (3, 0), (3, 1)]
DOCUMENTS = 12
ARMS = ("clean", "coder", "simulated", "zero")
MARGINS = {arm: np.linspace(-1, size, 20) for arm, size in (("clean", 3), ("coder", 2), ("zero", 0.5))}
RIGHT = {arm: margin > 0 for arm, margin in MARGINS.items()}


def make_diagnosis(alpha: float = 0.05) -> Row:
    """Two later blocks of two heads; head 3.1 is an induction head and carries most."""
    rng = np.random.default_rng(0)
    tokens = np.arange(50, 50 + DOCUMENTS)
    coder = (2 + 0.1 * rng.normal(size=DOCUMENTS)) * tokens
    losses, steps = {"coder": coder}, {}
    for arm, size in (("simulated", 0.01), ("zero", 0.05)):
        own = size * np.arange(1, 8)[:, None] * (1 + 0.2 * rng.normal(size=(7, DOCUMENTS))) * tokens
        losses[arm] = coder + own.sum(0)
        steps |= {(arm, "forward"): own, (arm, "backward"): own[::-1]}
    carried = 0.001 * rng.normal(size=(2, len(HEADS), DOCUMENTS)) * tokens
    carried[:, 3] += 0.01 * tokens
    bounds = describe_heads(carried, tokens, alpha)
    looks = 0.1 + 0.02 * rng.random((len(ARMS), len(HEADS), DOCUMENTS))
    scores = describe_scores(looks * tokens, tokens, alpha)
    heads = [
        {
            "layer": layer,
            "head": head,
            "copying": 0.5,
            "alone": bounds[0][number],
            "needed": bounds[1][number],
            "previous": {arm: each[number] for arm, each in zip(ARMS, scores, strict=True)},
            "induction": {arm: each[number] for arm, each in zip(ARMS, scores, strict=True)},
            "reads": {"query": 1.25, "key": -0.5, "value": None},
            "writes": [[[" cat", "<b>x"], ["=1+1", "\n"]], [[" a", ""], [" of", "|"]]],
            "trigrams": [{"source": " cat", "end": "<b>x", "next": "=1+1", "sd": 4.5}],
        }
        for number, (layer, head) in enumerate(HEADS)
    ]
    every = [(layer, head) for layer in range(4) for head in range(2)]
    repeated = [{"layer": a, "head": b, "previous": 0.1, "induction": 0.5 * ((a, b) == (3, 1))} for a, b in every]
    alike = np.sort(rng.random((len(ARMS), 2, DOCUMENTS)), 0)[::-1]
    lost = np.array([0.04, 0.02, 0.03])[:, None] * tokens * (1 + 0.1 * rng.random((3, DOCUMENTS)))
    cut = {
        "coder": np.stack([1.4 * coder, coder]),
        "simulated": np.stack([1.5 * coder, losses["simulated"]]),
    }
    (closed,) = describe_closed(tokens, coder, coder + lost[:1], (coder + lost[1:])[None], alpha)
    return {
        "schema": 2,
        "documents": DOCUMENTS,
        "head_documents": DOCUMENTS,
        "tokens": int(tokens.sum()),
        "alpha": alpha,
        "way": describe_way(losses, steps, NAMES, tokens, alpha),
        "heads": heads[::-1],
        "joined": [
            {"layer": 3, "head": 1, "way": "key", "earlier_layer": 0, "earlier_head": 1, "component": 2}
            | {"z": 12.5, "least": 5.25, "whole": 1.75}
        ],
        "repeated": {"losses": {"clean": [5.0, 3.5], "coder": [5.1, 3.7], "zero": [5.2, 5.1]}, "heads": repeated},
        "terms": [row for arm in cut for row in describe_terms(cut, arm, tokens, alpha)],
        "routes": {
            "documents": DOCUMENTS,
            "windows": DOCUMENTS,
            "alike": describe_alike(alike, np.ones(DOCUMENTS, dtype=np.int64), ARMS, (0.01, 0.04), alpha),
            "classes": [
                {"class": "content", "part": part, "positions": int(tokens.sum())}
                | {"arms": {arm: own[0] for arm, own in zip(ARMS, scores, strict=True)}}
                for part in ("attention", "mlp")
            ],
            "parts": [{"layer": 0, "part": "mlp"} | dict.fromkeys(ARMS, 0.25)],
        },
        "closed": {
            "layer": 3,
            "head": 1,
            "way": "value",
            "ranks": [{"rank": 1, "own_removed": 0.02, "random_removed": 0.01} | closed],
        },
        "task": {
            "task": "laundry",
            "count": 20,
            "channel": {"layer": 3, "head": 1, "way": "value", "directions": 4},
            "arms": describe_task(RIGHT, MARGINS, alpha),
        },
        "reading": [
            {
                "way": "query",
                "how": "most",
                "n": 40,
                "rho": 0.25,
                "ci": [0.0, 0.5],
                "rho_signed": None,
                "ci_signed": None,
            }
        ],
    }


def make_readers() -> pa.Table:
    """A 5_heads.parquet: latent 0 is read by head 3.1, latent 1 by none that stands out."""
    rows = {
        "layer": [3, 3],
        "head": [1, 1],
        "latent": [0, 1],
        "query": [4.5, 0.1],
        "key": [3.25, -1.0],
        "value": [0.0, 0.0],
    }
    return pa.table(rows).replace_schema_metadata({"least": "[[3, 1, 3.0, 3.0, 3.0]]"})
