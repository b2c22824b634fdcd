"""What a report tells, made in memory: statistics of drawn losses, latents with hostile explanations, costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from makers.diagnosis_made import make_diagnosis

from rewrite.config import AnalyseConfig, Config
from rewrite.report.facts import Facts, Kind, Latent
from rewrite.report.gathering import describe_setting
from rewrite.statistics import analysis
from rewrite.statistics.firings import NAMES
from rewrite.statistics.losses import COLUMNS, read_losses

CONFIG = Config(subject="/somebody/home/stories", analyse=AnalyseConfig(resamples=999))
LATENTS = 40
HOSTILE = 'fires on "`|\n<b>*x*_y_\u2028" and $5$, \\ and\ttab, [a](b) 🙂'
Row = dict[str, Any]


def write_losses(path: Path, topk: bool) -> None:
    """Losses with the shape of a real run's: clean 1.48, coder 1.55, zero 2.04."""
    rng = np.random.default_rng(1)
    count = 40
    tokens = 100 + rng.integers(0, 300, count)
    clean = 1.48 + 0.2 * rng.normal(size=count)
    coder, gap = clean + 0.07 + 0.02 * rng.normal(size=count), 0.49 + 0.1 * rng.normal(size=count)
    arms: list[tuple[str, float | None, str, int, np.ndarray]] = [
        ("clean", None, "", 0, clean),
        ("coder", None, "", 0, coder),
        ("zero", None, "", 0, coder + gap),
        ("mean", None, "", 0, coder + 0.98 * gap),
    ]
    for arm in ("simulated", "simulated_topk") if topk else ("simulated",):
        for fraction in (0.01, 0.5, 1.0):
            noise = 0.02 * rng.normal(size=count)
            arms.append((arm, fraction, "best", 0, coder + 0.4 * fraction * gap + noise))
            if fraction < 1:
                arms += [(arm, fraction, "random", k, coder + (0.5 + 0.02 * k) * fraction * gap) for k in range(3)]
    rows = [
        (number, name, fraction, order, seed, float(loss[number] * tokens[number]), int(tokens[number]))
        for name, fraction, order, seed, loss in arms
        for number in range(count)
    ]
    types = [pa.int32(), pa.string(), pa.float64(), pa.string(), pa.int64(), pa.float64(), pa.int64()]
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
    pq.write_table(pa.table(columns, names=list(COLUMNS)), path)


def make_stats(path: Path, topk: bool = False) -> Row:
    """The content of 6_stats.json; `path` is where the losses are written first."""
    write_losses(path, topk)
    stats = analysis.analyse(read_losses(path), CONFIG.analyse, analysis.Latents(LATENTS, LATENTS, 0.05), path)
    return stats | {"places": make_places(), "calibration": make_calibration()}


def make_places() -> list[Row]:
    """Three bins, the last of them with too few documents for an interval."""
    known = {"increase_ci": [0.1, 0.3], "recovered": 0.6, "recovered_ci": [0.5, 0.7]}
    unknown = {"increase_ci": None, "recovered": None, "recovered_ci": None}
    bins = [("position", 1, 2, known), ("position", 2, 4, unknown), ("frequency", 0, None, known)]
    return [
        {
            "by": by,
            "low": low,
            "high": high,
            "tokens": 1234,
            "documents": 9,
            "arms": [
                {"arm": arm, "loss": 1.5 + added, "increase": added, **rest}
                for arm, added in (("clean", 0.0), ("coder", 0.0625), ("simulated", 0.25), ("zero", 0.5))
            ],
        }
        for by, low, high, rest in bins
    ]


def make_calibration() -> list[Row]:
    """Strength 4 was never said."""
    return [
        {"strength": s, "predictions": 0, "predicted": None, "true": None}
        if s == 4
        else {"strength": s, "predictions": 10_000 - s, "predicted": 0.0625 * s, "true": 0.05 * s}
        for s in range(10)
    ]


def make_latents() -> list[Latent]:
    """Correlations fall from 0.9 with the latent's number; 3 is silent, 4 and 5 were not understood, 6 has no text."""
    latents = []
    for i, correlation in enumerate(np.linspace(0.9, 0.1, LATENTS).tolist()):
        why = {4: "cannot parse: “gibberish of 4”", 5: "cannot parse: “5”"}.get(i, "")
        text = {0: HOSTILE, 6: ""}.get(i, f"fires on the word w{i}")
        known = None if i == 3 else correlation
        latents.append(Latent(i, text, known, 0.0 if i == 3 else 0.0123, 1.0, why, known and known**2))
    return latents


def make_costs() -> Row:
    """The content of 5_costs.json."""
    rho: Row = {"n": 25, "value": 0.875, "ci": [0.5, 0.9375]}
    unclear: Row = {"n": 2, "value": None, "ci": None}
    return {
        "documents": 40,
        "tokens": 9000,
        "steps": 4,
        "loss": {"coder": 1.55, "simulated": 1.75},
        "sum": 0.199,
        "completeness_share": 0.005,
        "alpha": 0.05,
        "costly": 3,
        "tested": LATENTS,
        "check": {"latents": 25, "all": {"spearman": rho}, "random": {"spearman": unclear}},
        "predictors": [
            {"score": "density", "n": 40, "rho": -0.25, "ci": [-0.5, 0.0], "rho_signed": None, "ci_signed": None}
        ],
        "firings": {"latents": LATENTS} | {name: {"value": 0.125, "ci": [0.1, 0.15]} for name in NAMES},
    }


def make_latent_costs() -> list[Row]:
    """Costs that fall with the latent's number; one is unknown, three are sure, two were measured alone."""
    rows = []
    for i, cost in enumerate(np.linspace(0.02, -0.001, LATENTS).tolist()):
        known = {"cost": cost, "cost_low": cost - 0.01, "cost_high": cost + 0.01}
        row = {"latent": i, **(dict.fromkeys(known) if i == 7 else known), "q": 0.01 if i < 3 else 0.5}
        row |= {"alone": 0.03 if i < 2 else None, "simulation": 0.9 - 0.02 * i, "density": 0.0123}
        rows.append(row)
    return rows


def make_facts(stats: Row, **changed: Any) -> Facts:
    """All that a report tells, with some of it changed."""
    facts = Facts(
        stats=stats,
        costs=make_costs(),
        latent_costs=make_latent_costs(),
        latent_scores=[{"latent": row.number, "simulation": row.correlation, "r2": row.r2} for row in make_latents()],
        setting=describe_setting(CONFIG, stats),
        scorers=(),
        latents=make_latents(),
        faults={},
        unjudged={},
        unexplained=[Kind("refused", 1, "")],
        metrics={"fvu": "0.1313", "dead": "12"},
        seconds={"1_coder": 12.25, "5_losses.parquet": 3.5},
        calls={},
        learned=[],
        diagnosis=make_diagnosis(),
    )
    return replace(facts, **changed)
