"""Recovered against words: what share of the gap explanations of some words each bring back, a curve for each reader.

    rewrite sweep --config CONFIG --grid explainers.patterns.max_words=5,10,20,40 --out runs/words
    python -m benchmarks.words docs/words.png TITLE "read as rules=runs/words" [NAME=FOLDER,FOLDER ...]

A curve is finished runs with all latents simulated: the folder of a sweep, or run folders. The losses are the test
split's, the intervals clustered by document.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rewrite.explainers.explanations import load_explanations
from rewrite.patterns.grammar import count_words
from rewrite.run.files import read_json
from rewrite.run.finished import LAST, Finished, open_finished

COLOURS = ("#0072b2", "#d55e00", "#009e73")


@dataclass(frozen=True)
class Point:
    """What one run reached."""

    words: float
    """Words of an explanation, mean over those that there are [words]."""
    recovered: float
    low: float
    high: float


def measure(run: Finished) -> Point:
    """The words of a run's explanations, and what share of the gap they bring back with all latents simulated."""
    texts = [e.text for e in load_explanations(run.path("3_explanations.jsonl")) if e.text is not None]
    arms = read_json(run.path(LAST))["arms"]
    full = next(a for a in arms if a["arm"] == "simulated" and a["fraction"] == 1)
    return Point(sum(map(count_words, texts)) / len(texts), full["recovered"], *full["recovered_ci"])


def list_runs(folders: Sequence[Path]) -> list[Finished]:
    """The run folders, and those in the folder of a sweep."""
    runs = [folder for folder in folders if (folder / LAST).exists()]
    points = [place for folder in folders if folder not in runs for place in sorted(folder.iterdir())]
    return [open_finished(place) for place in (*runs, *points) if (place / LAST).exists()]


def draw(curves: Mapping[str, Sequence[Point]], title: str, target: Path) -> None:
    """The curves, with 95% intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, points), colour in zip(curves.items(), COLOURS, strict=False):
        x, y = [p.words for p in points], [100 * p.recovered for p in points]
        errors = [[100 * (p.recovered - p.low) for p in points], [100 * (p.high - p.recovered) for p in points]]
        axes.errorbar(x, y, yerr=errors, marker="o", color=colour, capsize=3, label=name)
    axes.set_xscale("log")
    ticks = [5, 10, 20, 40, 80, 160, 320]
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(4, 1.3 * max(p.words for points in curves.values() for p in points))
    axes.set_xlabel("words of an explanation, mean over latents")
    axes.set_ylabel("share of the gap recovered [%]")
    axes.set_ylim(0, 100)
    axes.set_title(title, loc="left")
    axes.legend(frameon=False, loc="lower right")
    axes.grid(color="#dddddd")
    figure.savefig(target, dpi=150)


def read_curves(asked: Sequence[str]) -> dict[str, list[Point]]:
    """Of each `NAME=FOLDER,FOLDER` its runs, by their words."""
    named = [one.partition("=") for one in asked]
    runs = {name: list_runs([Path(folder) for folder in folders.split(",")]) for name, _, folders in named}
    return {name: sorted(map(measure, own), key=lambda point: point.words) for name, own in runs.items()}


def main(target: str, title: str, *asked: str) -> None:
    """Read every run, print a row each, draw the curves."""
    curves = read_curves(asked)
    for name, points in curves.items():
        print(name, *points, sep="\n  ")
    draw(curves, title, Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
