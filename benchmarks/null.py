"""A null that cannot be doubted: how often strengths that know nothing are called better than the mean.

python -m benchmarks.null [draws]

On the planted model, each draw calibrated by itself and held against `mean` on the same test documents, by the
two-sided test at 5%: 2.5% may come out `better` by chance. `random` draws strengths that know nothing of the text: a
null. `shuffled` gives each latent another's true rule, which is none: where another rule holds, a latent's own mostly
does not, and a calibrator makes of that what is to be made of it. How much that is stands beside it, as a share of the
gap to `mean`.

`called better` is the verdict's own word, with which equality within the margin goes before significance: a difference
that is sure and a quarter of a per cent of the gap is called equivalent.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rewrite.commands.planted import build, settings
from rewrite.config import AnalyseConfig
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.stages import STAGES
from rewrite.statistics import paired as stats
from rewrite.statistics.losses import read_losses
from rewrite.statistics.verdict import decide

ALPHA = 0.05
NULLS = ("random", "shuffled")
CHEAP = ('evaluate.controls=["mean", "random", "shuffled"]', "evaluate.fractions=[1.0]", "evaluate.random_seeds=0")
Row = dict[str, float]


def count(draws: int, folder: Path) -> dict[str, Row]:
    """Of each control the shares of draws that the test calls better and worse than the mean, and what they recover."""
    build(folder)
    with Run(folder / "null", "benchmark") as run:
        go(STAGES, settings(folder, "true", f"evaluate.control_seeds={draws}", *CHEAP), run, "evaluate", print)
    losses = read_losses(folder / "null" / "5_losses.parquet")
    mean, tokens = losses.find("mean"), losses.tokens
    region = stats.Region(losses.find("zero") - losses.find("coder"), tokens, AnalyseConfig().margin, ALPHA)
    gap = float((mean - losses.find("coder")).sum() / tokens.sum())
    found: dict[str, Row] = {}
    for name in NULLS:
        draws_of = [nats for key, nats in losses.single.items() if key.arm == name]
        own = [stats.difference(nats, mean, tokens) for nats in draws_of]
        sure = [one for one in own if one.p_value() < ALPHA]
        found[name] = {
            "draws": len(own),
            "called better": sum(
                decide(one.value, one.p_value(), region.p_equivalence(nats - mean), ALPHA) == "better"
                for one, nats in zip(own, draws_of, strict=True)
            )
            / len(own),
            "better": sum(one.value < 0 for one in sure) / len(own),
            "worse": sum(one.value > 0 for one in sure) / len(own),
            "recovered of the gap to mean": -sum(one.value for one in own) / len(own) / gap,
        }
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for name, row in count(int(sys.argv[1]) if len(sys.argv) > 1 else 200, Path(place)).items():
            print(name, {key: round(value, 4) for key, value in row.items()})
