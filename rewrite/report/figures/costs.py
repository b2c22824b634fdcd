"""The figure of per-latent costs: what each latent's simulation costs against how well it is simulated.

A latent is a dot, its area what share of positions it is active at. Costs have signs and a long tail, so the axis is
linear near 0 and logarithmic beyond (`symlog`); latents measured alone are circled, at the cost measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from rewrite.report.figures.pictures import BLUE, GREY, RULE, VERMILION, Drawn, draw_twice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
COLUMNS = ("cost", "simulation", "q", "alone", "density")


def draw_costs(rows: Sequence[Row], alpha: float) -> Drawn:
    """Cost against score, from the rows of `5_costs.parquet`; latents without a score are left out, those of q < alpha
    marked."""
    every = {name: _column(rows, name) for name in COLUMNS}
    known = np.isfinite(every["cost"]) & np.isfinite(every["simulation"])
    columns = {name: values[known] for name, values in every.items()}
    sure = int((columns["q"] < alpha).sum())
    return draw_twice(
        "costs",
        "What each latent's simulation costs, against how well it is simulated; the area says how often it is active",
        f"A dot for each of {int(known.sum()):,} latents that have a cost and a correlation, of {len(rows):,}; "
        f"{sure:,} of them cost more than 0 (q < {alpha:.3g}).",
        (4.4, 4.4),
        lambda axes, narrow: _paint(axes, columns, alpha),
    )


def _column(rows: Sequence[Row], name: str) -> Float[np.ndarray, " latent"]:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)


def _paint(axes: Axes, columns: dict[str, np.ndarray], alpha: float) -> None:
    cost, place, q, alone, density = (columns[name] for name in COLUMNS)
    sure = q < alpha
    area = 8 + 60 * np.sqrt(density / max(density.max(initial=0.0), 1e-12))
    for chosen, colour, label in (
        (~sure, GREY, "cost not told from 0"),
        (sure, VERMILION, f"costs more than 0 (q < {alpha:.3g})"),
    ):
        if chosen.any():
            # Pixels, for tens of thousands of dots would make the drawing as large as all the rest.
            dots = axes.scatter(place[chosen], cost[chosen], area[chosen], color=colour, label=label, alpha=0.5, lw=0)
            dots.set_rasterized(True)
    measured = np.isfinite(alone)
    if measured.any():
        axes.scatter(place[measured], alone[measured], 40, facecolor="none", edgecolor=BLUE, label="measured alone")
    # A power of ten, so that the marks beside 0 stand where the axis turns logarithmic.
    typical = max(float(np.median(np.abs(cost))) if len(cost) else 0.0, 1e-9)
    axes.set_yscale("symlog", linthresh=10 ** np.ceil(np.log10(typical)))
    axes.set_axisbelow(True)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("correlation of the simulation")
    axes.set_ylabel("cost of simulating the latent [nats]")
    axes.grid(color=RULE)
    if len(cost):
        axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.0, 1.0))
