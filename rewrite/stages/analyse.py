"""Analyse: what evaluate wrote → 6_stats.json.

1. Read one loss per document and arm, the seeds of a drawn arm averaged within each document
   (`rewrite.statistics.losses`), and say what they come to (`rewrite.statistics.analysis`).
2. Inside each bin of `rewrite.statistics.places` the same estimates again.
3. The curve of `rewrite.statistics.curves`, pooled over latents.
4. Where the simulator screens, what that misses (`rewrite.statistics.screening`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float

from rewrite.config import Config
from rewrite.run.files import write_json
from rewrite.run.store import Run
from rewrite.statistics import curves, places
from rewrite.statistics.analysis import Latents, analyse
from rewrite.statistics.losses import read_audit, read_losses
from rewrite.statistics.mass import unpack
from rewrite.statistics.screening.estimating import describe_screen
from rewrite.statistics.screening.measuring import read_screen


def run(config: Config, run: Run) -> None:
    """Read what evaluate wrote and write 6_stats.json. Raises UserError where the losses allow no analysis."""
    source = run.path("5_losses.parquet")
    latents = run.path("5_latents.parquet")
    result = analyse(
        read_losses(source), config.analyse, read_latents(latents, config.evaluate.missing == "leave_out"), source
    )
    result["places"] = places.describe(places.read_places(run.path("5_places.parquet")), config.analyse.alpha)
    test = curves.load_curves(run.path("5_calibration.safetensors")).test
    result["calibration"] = curves.pool(test, read_maxima(latents))
    measured = read_screen(pq.read_table(latents))
    told = None if measured is None else describe_screen(measured, read_audit(source), config.analyse.alpha)
    result["screen"] = told
    with run.writing("6_stats.json") as path:
        write_json(path, result)


def read_latents(path: Path, left_out: bool = False) -> Latents:
    """What the analysis needs to know of the latents; those without a prediction are not rewritten where they are
    `left_out`."""
    table = pq.read_table(path)
    shares = table.column("missing_share").to_numpy()
    rewritten = table.column("missing").to_pylist().count("") if left_out else len(shares)
    mass = unpack(table.schema.metadata.get(b"mass", b"").decode())
    return Latents(int(table.schema.metadata[b"latents"]), rewritten, float(shares.mean()), mass)


def read_maxima(path: Path) -> Float[np.ndarray, " latent"]:
    """Each latent's largest activation on the calibrate split; 0 where it is not rewritten."""
    table = pq.read_table(path)
    maxima = np.zeros(int(table.schema.metadata[b"latents"]))
    maxima[table.column("latent").to_numpy()] = table.column("maximum").to_numpy()
    return maxima
