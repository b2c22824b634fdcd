"""The figure of per-latent costs: what each latent's simulation costs against how well it is simulated.

A latent is a dot, its area what share of positions it is active at. Costs have signs and a long tail, so the axis is
linear near 0 and logarithmic beyond (`symlog`); latents measured alone are circled, at the cost measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rewrite.figures import BLUE, DPI, GREY, VERMILION, open_figure

LABELS = {"simulation": "correlation of the simulation with the true activations", "r2": "R² of the simulation"}


def draw_costs(costs: Path, path: Path, alpha: float, score: str = "simulation") -> None:
    """Cost against a score, from `5_costs.parquet`; latents without a score are left out, those of q < alpha marked."""
    import pyarrow.parquet as pq

    table = pq.read_table(costs, columns=["cost", "q", "alone", "density", score])
    columns: dict[str, Any] = {
        name: table.column(name).to_numpy(zero_copy_only=False).astype(np.float64) for name in table.column_names
    }
    known = np.isfinite(columns["cost"]) & np.isfinite(columns[score])
    cost, place, q, alone, density = (columns[name][known] for name in ("cost", score, "q", "alone", "density"))
    sure = q < alpha
    figure = open_figure(7.6, 4.6)
    axes = figure.subplots()
    area = 8 + 60 * np.sqrt(density / max(density.max(initial=0.0), 1e-12))
    for chosen, colour, label in (
        (~sure, GREY, "cost not told from 0"),
        (sure, VERMILION, f"costs more than 0 (q < {alpha:.3g})"),
    ):
        if chosen.any():
            axes.scatter(place[chosen], cost[chosen], area[chosen], color=colour, alpha=0.5, linewidth=0, label=label)
    measured = np.isfinite(alone)
    if measured.any():
        axes.scatter(place[measured], alone[measured], 40, facecolor="none", edgecolor=BLUE, label="measured alone")
    # A power of ten, so that the marks beside 0 stand where the axis turns logarithmic.
    typical = max(float(np.median(np.abs(cost))) if len(cost) else 0.0, 1e-9)
    axes.set_yscale("symlog", linthresh=10 ** np.ceil(np.log10(typical)))
    axes.set_axisbelow(True)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel(LABELS.get(score, score))
    axes.set_ylabel("cost of simulating the latent [nats per token]")
    axes.set_title("What each latent's simulation costs (area: how often it is active)", loc="left", fontsize=11)
    axes.grid(color="#dddddd")
    if len(cost):
        axes.legend(frameon=False, fontsize=9, loc="best")
    figure.savefig(path, dpi=DPI)
