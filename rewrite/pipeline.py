"""The stages in order: what each reads, what it writes, and which part of the config it depends on.

    train → collect → explain → simulate → score → evaluate → cost → analyse → report

`rewrite.running` runs them; a stage's code is `rewrite.stages`, a file by its name.
"""

from __future__ import annotations

from rewrite.fresh import Stage

SUBJECT = ("hookpoint", "dtype", "device")

STAGES = (
    Stage("train", (), ("1_coder",), (*SUBJECT, "corpus", "coder"), ("subject", "corpus", "coder.path")),
    Stage("collect", ("1_coder",), ("2_activations",), (*SUBJECT, "corpus", "collect"), ("subject", "corpus")),
    Stage(
        "explain",
        ("2_activations",),
        ("3_explanations.jsonl",),
        ("explainer", "explainers", "sample.latents", "sample.seed"),
        ("explain.file",),
        asks="explainer",
    ),
    Stage(
        "simulate",
        ("2_activations", "3_explanations.jsonl"),
        ("4_simulations",),
        ("simulator", "simulators", "sample"),
        asks="simulator",
        version=2,
    ),
    Stage(
        "score",
        ("2_activations", "3_explanations.jsonl", "4_simulations"),
        ("4_scores.parquet",),
        ("score", "analyse.alpha"),
        asks="score",
    ),
    Stage(
        "evaluate",
        ("1_coder", "2_activations", "4_simulations", "4_scores.parquet"),
        ("5_latents.parquet", "5_calibration.safetensors", "5_losses.parquet", "5_places.parquet"),
        (*SUBJECT, "calibrator", "evaluate"),
        ("subject",),
        version=4,
    ),
    Stage(
        "cost",
        ("1_coder", "2_activations", "4_simulations", "4_scores.parquet"),
        ("5_costs.parquet", "5_costs.json"),
        (*SUBJECT, "calibrator", "evaluate.missing", "cost", "analyse.alpha"),
        ("subject",),
    ),
    Stage(
        "analyse",
        ("5_latents.parquet", "5_calibration.safetensors", "5_losses.parquet", "5_places.parquet"),
        ("6_stats.json",),
        ("analyse",),
        version=4,
    ),
    Stage(
        "report",
        (
            "1_coder",
            "2_activations",
            "3_explanations.jsonl",
            "4_simulations",
            "4_scores.parquet",
            "5_latents.parquet",
            "5_calibration.safetensors",
            "5_costs.parquet",
            "5_costs.json",
            "6_stats.json",
        ),
        ("7_report",),
        (
            *("subject", "hookpoint", "corpus", "sample", "coder", "explain", "explainer", "explainers", "simulator"),
            *("simulators", "engine", "calibrator", "score", "evaluate.missing"),
        ),
        version=5,
    ),
)
