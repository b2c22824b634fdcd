"""What of the statistics a report shows, in which order and by what name.

Whatever shows a number, the page, the Markdown, a figure or a CSV file, chooses it here, so that all show the same."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

CURVES = {
    ("simulated", "best"): "best-explained latents first",
    ("simulated", "random"): "random order",
    ("simulated_topk", "best"): "best first, k strongest kept",
    ("simulated_topk", "random"): "random order, k strongest kept",
}
"""The curves of loss against the share simulated, by arm and order."""
PARTS = {
    "magnitude": "magnitude: wrong strength where both fire",
    "sensitivity": "sensitivity: firings missed",
    "specificity": "specificity: firings added, and rest",
}


PLAIN = {
    "clean": "the model itself",
    "coder": "true latents",
    "quantised": "true latents, in 10 levels",
    "matched": "strengths simulated",
    "true_active": "strengths simulated, misses at mean",
    "simulated_active": "firings simulated",
    "hits": "simulated, without false firings",
    "simulated": "simulated from words",
    "simulated_topk": "simulated, k strongest kept",
    "shuffled": "another latent's words",
    "random": "random strengths",
    "unread": "the reader, no words",
    "token_table": "mean at each token, no words",
    "linear_probe": "linear probe, no words",
    "mean": "every latent at its mean",
    "mean_layer": "the layer's mean output",
    "zero": "no latents",
    "zero_layer": "no layer",
}
"""What arms are, in the figures, where a reader meets them first; an arm that is not here goes by its name."""


def name_plainly(row: Row) -> str:
    """An arm in words; a share stands with it where not all latents are simulated."""
    told = PLAIN.get(row["arm"], str(row["arm"]))
    return f"{told}, {100 * row['fraction']:.3g}%" if (row["fraction"] or 1) < 1 else told


def select_ladder(stats: Row) -> list[Row]:
    """The arms that stand once, the drawn controls, and the simulated ones at the largest fraction; best loss first."""
    best = [row for row in stats["arms"] if row["order"] == "best"]
    largest = max(row["fraction"] for row in best)
    rows = [row for row in stats["arms"] if row["fraction"] is None]
    rows += [row for row in stats["averages"] if row["order"] == ""]
    rows += [row for row in best if row["fraction"] == largest]
    return sorted(rows, key=lambda row: (row["loss"], row["arm"]))


def select_curve(stats: Row, arm: str, order: str) -> list[Row]:
    """One row per fraction, ascending; a random order ends in the fraction 1 that it shares with the best order."""
    source = stats["averages"] if order == "random" else stats["arms"]
    rows = [row for row in source if (row["arm"], row["order"]) == (arm, order)]
    if rows and order == "random":
        rows += [row for row in stats["arms"] if (row["arm"], row["fraction"], row["order"]) == (arm, 1.0, "best")]
    return sorted(rows, key=lambda row: float(row["fraction"]))


def cover(stats: Row) -> str:
    """What intervals cover: "95%"."""
    return f"{100 * (1 - stats['alpha']):.3g}%"


# The arms of the ladder that are controls, as the page tells them.
CONTROLS = {
    "quantised": "the true activations in 10 levels: the finest that a reader who says 0 to 9 could do",
    "matched": "which latents fire is true, and how strongly is simulated where the simulation fires too, else true",
    "true_active": "which latents fire is true, and how strongly is simulated; what the simulation misses has its mean "
    "when active",
    "simulated_active": "which latents fire is simulated, and how strongly is true; what fires falsely has its mean "
    "when active",
    "hits": "only what truly fires and is simulated to, as strongly as simulated",
    "shuffled": "every latent reads another latent's explanation, calibrated anew",
    "random": "strengths drawn as often and as high as each latent's own, calibrated anew",
    "unread": "what the tuned reader says of a latent whose explanation it is not told, calibrated anew",
    "token_table": "each latent's mean activation at the current token, from the train split; no explanation is read",
    "linear_probe": "a ridge regression from the last 8 tokens' embeddings, from the train split; none is read",
    "mean": "every latent at its mean",
    "mean_layer": "the layer's mean output",
    "zero": "every latent 0, the coder's bias and skip path in place",
    "zero_layer": "the zero vector",
}
