"""Recovered against words: the share of the gap that explanations of 5, 10, 20, 40, 80 and more words bring back.

    python -m benchmarks.words data/configs/stories260k.toml docs/words.png

Each budget is a run that goes on from one coder and one set of activations. The losses are the test split's.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rewrite.explainers.explanations import load_explanations
from rewrite.patterns.grammar import count_words
from rewrite.run.configs import load_config
from rewrite.run.files import read_json
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.stages import STAGES

BUDGETS = (5, 10, 20, 40, 80, 0)


@dataclass(frozen=True)
class Point:
    """What one budget reached; 0 stands for no limit."""

    budget: int
    words: float
    """Words of an explanation, on average."""
    recovered: float
    low: float
    high: float


def measure(config: Path, budget: int, folder: Path) -> Point:
    """Explain, simulate and evaluate all latents with at most `budget` words each."""
    settings = [f"explainers.patterns.max_words={budget}", "evaluate.fractions=[1.0]", "evaluate.random_seeds=0"]
    with Run(folder, "words") as run:
        go(STAGES, load_config(config, settings), run, "analyse", lambda line: None)
        texts = [e.text or "" for e in load_explanations(run.path("3_explanations.jsonl"))]
        arms = read_json(run.path("6_stats.json"))["arms"]
    full = next(a for a in arms if a["arm"] == "simulated")
    words = sum(map(count_words, texts)) / len(texts)
    return Point(budget, words, full["recovered"], *full["recovered_ci"])


def draw(points: list[Point], title: str, target: Path) -> None:
    """The curve, with 95% intervals clustered by document."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    x, y = [p.words for p in points], [100 * p.recovered for p in points]
    errors = [[100 * (p.recovered - p.low) for p in points], [100 * (p.high - p.recovered) for p in points]]
    axes.errorbar(x, y, yerr=errors, marker="o", color="#0072b2", capsize=3)
    for p in points:
        label = f"{p.budget} words" if p.budget else "no limit"
        axes.annotate(label, (p.words, 100 * p.recovered), xytext=(6, -12), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(4, 500)
    ticks = [5, 10, 20, 40, 80, 160, 320]
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("words of an explanation, mean over latents")
    axes.set_ylabel("share of the gap recovered [%]")
    axes.set_ylim(0, 100)
    axes.set_title(title, loc="left")
    axes.grid(color="#dddddd")
    figure.savefig(target, dpi=150)


def main() -> None:
    """Measure every budget, print a row each, draw the curve."""
    config, target = Path(sys.argv[1]), Path(sys.argv[2])
    points = []
    with tempfile.TemporaryDirectory() as folder:
        for budget in BUDGETS:
            points.append(measure(config, budget, Path(folder)))
            print(points[-1], flush=True)
    resolved = load_config(config)
    draw(points, f"{Path(resolved.subject).name}, {resolved.hookpoint}: all latents simulated", target)


if __name__ == "__main__":
    main()
