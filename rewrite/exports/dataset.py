"""the predictions as a Hugging Face dataset: Parquet files with a card

Three configs, each read by `datasets.load_dataset(folder, config)`:

    predictions   a row per simulated position of the test split and rewritten latent where the latent truly fires, or
                  its strength is not 0, or its prediction is missing; in shards, as the run has them
    windows       a row per window of the test split: its tokens, and which positions were simulated
    explanations  a row per rewritten latent: its explanation, scores and cost, and what stands where no row stands

With `windows` and `rest` of `explanations` every pair of a simulated position and a latent can be had again, those
without a row too. `README.md`, written from `dataset.md.jinja`, says so to whoever gets the folder.
"""

from __future__ import annotations

from pathlib import Path

from rewrite.exports.base import render
from rewrite.exports.predictions import SCORES, Written, tabulate
from rewrite.run.finished import Finished


def write(run: Finished, folder: Path) -> list[str]:
    """Write the three configs and the card."""
    written = tabulate(run, folder)
    (folder / "README.md").write_text(describe(run, written), encoding="utf-8")
    return [f"{config}: {rows:,} rows" for config, rows in written.counts.items()] + ["README.md: the dataset's card"]


def describe(run: Finished, written: Written) -> str:
    """The card."""
    source = written.source
    return render(
        "dataset.md.jinja",
        run,
        scale=source.curves.scale,
        counts=written.counts,
        documents=len(source.test.names),
        latents=source.test.latents,
        absent=int((source.absent & source.simulations.rewritten).sum()),
        scores=[name for name in SCORES if name in written.explanations.column_names],
        meanings=SCORES,
        screen=source.screen,
    )
