"""The verdict: which word a comparison of losses gets, and the sentence that says it with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Literal

Verdict = Literal["better", "worse", "equivalent", "inconclusive"]

AGAINST_SHUFFLED: dict[Verdict, str] = {
    "inconclusive": ", but not shown to be better than with the explanations shuffled among latents",
    "equivalent": ", but equivalent within the margin to what explanations shuffled among latents give",
    "worse": ", and worse than with the explanations shuffled among latents",
}
"""What is added to the sentence by the verdict against `shuffled`."""


def decide(value: float, p_holm: float, p_equivalence: float, alpha: float) -> Verdict:
    """The word for a paired difference of losses; equivalence, which has a margin, goes before significance."""
    if not all(isfinite(number) for number in (value, p_holm, p_equivalence)):
        raise ValueError(f"not finite: value {value}, p {p_holm}, p of equivalence {p_equivalence}")
    if p_equivalence < alpha:
        return "equivalent"
    if p_holm < alpha:
        return "better" if value < 0 else "worse"
    return "inconclusive"


def find_headline(result: dict[str, Any]) -> dict[str, Any]:
    """The comparison that the verdict is about: `simulated` against `zero`, best first, at the largest fraction."""
    rows: list[dict[str, Any]] = result["comparisons"]
    rows = [row for row in rows if (row["arm"], row["reference"], row["order"]) == ("simulated", "zero", "best")]
    return max(rows, key=lambda row: float(row["fraction"]))


def verdict_sentence(result: dict[str, Any]) -> str:
    """The verdict with its numbers in one English sentence, from the content of 6_stats.json and nothing else."""
    row = find_headline(result)
    same = [arm for arm in result["arms"] if all(arm[key] == row[key] for key in ("arm", "fraction", "order"))]
    share, interval, gap = same[0]["recovered"], same[0]["recovered_ci"], result["gap"]
    lost, mass = result["missing"], result.get("mass")
    if row["verdict"] is None and lost["share"] <= lost["most"] and mass:
        return (
            f"No verdict: where ratings are read the model gives the ten digits together a probability of "
            f"{mass['median']:.2g} in the median, at least {mass['least']:.2g} is needed (analyse.least_mass): its "
            "strengths are noise."
        )
    if row["verdict"] is None:
        return (
            f"No verdict: {100 * lost['share']:.3g}% of the predictions are missing, at most {100 * lost['most']:.3g}% "
            "may be (analyse.max_missing); the report says why they are missing."
        )
    whole = "all" if result["rewritten"] == result["latents"] else f"{result['rewritten']:,} of"
    if row["fraction"] == 1:
        subject = f"Simulating {whole} {result['latents']:,} latents"
    else:
        subject = f"Simulating {100 * row['fraction']:.3g}% of {result['rewritten']:,} latents"
    size = f"{result['documents']:,} documents, {result['tokens']:,} tokens"
    if interval is None:
        worth = "lose against having none" if gap["ci"][1] < 0 else "are not told from having none"
        of = "the coder's latents" if result["rewritten"] == result["latents"] else f"{result['rewritten']:,} latents"
        return (
            f"Nothing to recover: the true values of {of} {worth}, a gap of {_range(gap['nats'], gap['ci'])} nats to "
            f"zero ablation, so no share of it is stated. {subject} changes the loss by {row['delta']:+.2g} nats "
            f"against zero ablation: {_describe_word(row)}, {size}."
        )
    recovers = f"recovers {_share(share, interval)} of the {gap['nats']:.2g}-nat gap"
    above = same[0].get("recovered_mean_ci")
    beside = f" ({_share(same[0]['recovered_mean'], above)} of that to the mean)" if above else ""
    return f"{subject} {recovers}{beside}: {_describe_word(row)}{_describe_words(result, row)}, {size}."


def _describe_words(result: dict[str, Any], row: dict[str, Any]) -> str:
    """Where the simulation is better than zero, and not shown to be better than other latents' explanations: what is
    known of it against them. Empty where that is not so, or was not measured."""
    same = ("arm", "fraction", "order")
    rows = [one for one in result["comparisons"] if all(one[key] == row[key] for key in same)]
    shuffled = next((one for one in rows if one["reference"] == "shuffled"), None)
    if row["verdict"] != "better" or shuffled is None:
        return ""
    return AGAINST_SHUFFLED.get(shuffled["verdict"], "")


def _describe_word(row: dict[str, Any]) -> str:
    if row["verdict"] == "equivalent":
        return f"equivalent to zero ablation within {row['margin']:.2g} nats, {format_p(row['p_equivalence'])}"
    if row["verdict"] == "inconclusive":
        found = f"a difference of {row['mde']:.2g} nats would be found four times in five by a single unadjusted test"
        return f"inconclusive against zero ablation, {format_p(row['p_holm'])}, {found}"
    return f"{row['verdict']} than zero ablation, {format_p(row['p_holm'])}"


def _share(value: float, ends: Sequence[float]) -> str:
    return f"{100 * value:.0f}% [{100 * ends[0]:.0f}, {100 * ends[1]:.0f}]"


def _range(value: float, ends: Sequence[float]) -> str:
    return f"{value:.2g} [{ends[0]:.2g}, {ends[1]:.2g}]"


def format_p(p: float) -> str:
    """A p value as a reader meets it: `p = 0.031`, `p = 2e-09`, `p < 1e-15` beyond what any approximation can mean."""
    return "p < 1e-15" if p < 1e-15 else f"p = {p:.2g}"
