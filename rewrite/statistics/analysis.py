"""Losses → arms, comparisons and the verdict.

1. Estimate each arm's loss, its increase over the clean model and its share of the gap (`rewrite.statistics.paired`).
2. Compare. Primary family, adjusted together by Holm: every simulated arm against `zero`. Secondary family, adjusted
   by itself: simulated arms at the largest fraction, best first, against `coder` and the other baselines. Third family,
   adjusted by itself: the controls that are told nothing of their latents against `mean`.
3. Split what simulating every latent lost, coder → simulated, into magnitude, sensitivity and specificity: differences
   between neighbours on a path of arms (`rewrite.arms.controls`), so that they add up to the whole.
4. The verdict is the primary comparison of `simulated` at the largest fraction, best first. Where more predictions are
   missing than `analyse.max_missing` allows, or the mass on digits is below `analyse.least_mass`, there is no verdict,
   of this comparison or any other.

The equivalence margin is a share of the gap, set in the config, and the gap's own uncertainty counts
(`rewrite.statistics.paired.Region`); where the gap's interval reaches 0 there is nothing to recover: no share is
stated and nothing is called equivalent. Everything is sorted and every draw is named, so the same losses give the same
bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rewrite.arms.controls import DRAWN, SPLIT
from rewrite.config import AnalyseConfig, UserError
from rewrite.statistics import paired as stats
from rewrite.statistics import resampling
from rewrite.statistics.losses import Key, Losses, name_arm
from rewrite.statistics.verdict import decide, find_headline, verdict_sentence

SIMULATED = ("simulated", "simulated_topk")
BASELINES = ("coder", "mean", "mean_layer", "zero_layer", "shuffled", "random", "unread", "token_table", "linear_probe")


@dataclass(frozen=True)
class Latents:
    """How many latents the coder has, how many of them are rewritten, the share of predictions that are missing, and
    the mass on digits (`rewrite.statistics.mass`), None where the simulator reads no probabilities."""

    every: int
    rewritten: int
    missing: float
    mass: dict[str, Any] | None = None


def analyse(losses: Losses, config: AnalyseConfig, latents: Latents, source: Path) -> dict[str, Any]:
    """The content of 6_stats.json. Raises UserError, naming `source`, where there is too little to judge by."""
    with _naming(str(source)):
        with _naming("arm zero against coder"):
            gap = stats.difference(losses.find("zero"), losses.find("coder"), losses.tokens)
        interval = gap.interval(config.alpha)
        region = stats.Region(losses.find("zero") - losses.find("coder"), losses.tokens, config.margin, config.alpha)
        result: dict[str, Any] = {
            "schema": 1,
            "unit": "document",
            "documents": len(losses.documents),
            "tokens": int(losses.tokens.sum()),
            "latents": latents.every,
            "rewritten": latents.rewritten,
            "missing": {"share": latents.missing, "most": config.max_missing},
            "mass": None
            if latents.mass is None
            else latents.mass | {"least": config.least_mass, "low": config.low_mass},
            "alpha": config.alpha,
            "gap": {"nats": gap.value, "ci": [interval.low, interval.high], "se": gap.se},
            "arms": [_describe(key, nats, losses, config.alpha) for key, nats in losses.single.items()],
            "averages": [_describe_average(key, losses, config.alpha) for key in losses.averaged],
            "comparisons": _compare_primary(losses, config, region)
            + _compare_secondary(losses, config, region)
            + _compare_controls(losses, config, region),
            "split": split_loss(losses, config.alpha),
            "warnings": warn_of_mass(latents.mass, config)
            + (warn_of_coder(losses, config) if latents.rewritten == latents.every else [])
            + warn_of_skewness(losses, config),
        }
    if latents.missing > config.max_missing or (latents.mass and latents.mass["median"] < config.least_mass):
        for row in result["comparisons"]:
            row["verdict"] = None
    chosen = find_headline(result)
    result["verdict"] = {"verdict": chosen["verdict"], "sentence": verdict_sentence(result)} | {
        name: chosen[name] for name in ("arm", "reference", "fraction", "order", "delta", "ci", "p_holm")
    }
    return result


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Put a file's or an arm's name before the message of a UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


def _describe(key: Key, nats: stats.Documents, losses: Losses, alpha: float) -> dict[str, Any]:
    """An arm's loss, what it adds to the clean model's (paired), and the share that it recovers of the gap to `zero`
    and of that to `mean`."""
    with _naming(f"arm {key}"):
        loss = stats.estimate(nats, losses.tokens, constant=key.arm == "zero_layer")
        increase = stats.difference(nats, losses.find("clean"), losses.tokens)
        share = stats.recovered(nats, losses.find("zero"), losses.find("coder"), losses.tokens, alpha)
        above = stats.Recovered(None, None)
        if losses.has("mean"):
            above = stats.recovered(nats, losses.find("mean"), losses.find("coder"), losses.tokens, alpha)
    added = increase.interval(alpha)
    return {
        "arm": key.arm,
        "fraction": key.fraction,
        "order": key.order,
        "seed": key.seed,
        "loss": loss.value,
        "se": loss.se,
        "increase": increase.value,
        "increase_ci": [added.low, added.high],
        "recovered": share.value,
        "recovered_ci": _ends(share),
        "recovered_mean": above.value,
        "recovered_mean_ci": _ends(above),
    }


def _ends(share: stats.Recovered) -> list[float] | None:
    return [share.interval.low, share.interval.high] if share.interval else None


def _describe_average(key: Key, losses: Losses, alpha: float) -> dict[str, Any]:
    """The same for a drawn arm with its seeds averaged; `sd_seeds` is the spread of the seeds' losses."""
    draws = [nats for one, nats in losses.single.items() if replace(one, seed=None) == key]
    means = [float(nats.sum() / losses.tokens.sum()) for nats in draws]
    described = _describe(key, losses.averaged[key], losses, alpha)
    del described["seed"]
    return described | {"seeds": len(draws), "sd_seeds": float(np.std(means, ddof=1)) if len(draws) > 1 else None}


@dataclass(frozen=True)
class _Pair:
    """Two arms to compare."""

    key: Key
    reference: str
    nats: stats.Documents


def _compare_primary(losses: Losses, config: AnalyseConfig, region: stats.Region) -> list[dict[str, Any]]:
    curves = [key for key in losses.single if key.arm in SIMULATED and key.order != "random"]
    arms = {key: losses.single[key] for key in curves} | losses.averaged
    pairs = [_Pair(key, "zero", arms[key]) for key in sorted(arms, key=lambda key: key.place) if key.arm in SIMULATED]
    return _compare(pairs, "primary", losses, config, region)


def _compare_secondary(losses: Losses, config: AnalyseConfig, region: stats.Region) -> list[dict[str, Any]]:
    pairs = []
    for arm in SIMULATED:
        keys = [key for key in losses.single if key.arm == arm and key.order == "best"]
        for key in sorted(keys, key=lambda key: key.place)[-1:]:
            # The baselines replace every latent: beside them a part of the latents would win by what it leaves true.
            names = BASELINES if key.fraction == 1 else ("coder",)
            pairs += [_Pair(key, name, losses.single[key]) for name in names if losses.has(name)]
    return _compare(pairs, "secondary", losses, config, region)


def _compare_controls(losses: Losses, config: AnalyseConfig, region: stats.Region) -> list[dict[str, Any]]:
    keys = [Key(arm, 1.0, "", None) for arm in DRAWN if losses.has(arm) and losses.has("mean")]
    return _compare([_Pair(key, "mean", losses.averaged[key]) for key in keys], "controls", losses, config, region)


def split_loss(losses: Losses, alpha: float) -> list[dict[str, Any]]:
    """The parts of what `simulated` loses against `coder` where all latents are simulated; empty without the arms.

    `share` is None where nothing is lost that could be shared out.
    """
    whole = Key("simulated", 1.0, "best", 0)
    if whole not in losses.single or not (losses.has("matched") and losses.has("hits")):
        return []
    lost = stats.difference(losses.single[whole], losses.find("coder"), losses.tokens)
    parts = []
    for part, before, after in SPLIT:
        with _naming(f"the split's {part}"):
            nats = losses.single[whole] if after == "simulated" else losses.find(after)
            found = stats.difference(nats, losses.find(before), losses.tokens)
        ends = found.interval(alpha)
        share = found.value / lost.value if lost.interval(alpha).low > 0 else None
        parts.append({"part": part, "nats": found.value, "ci": [ends.low, ends.high], "share": share})
    return parts


def warn_of_mass(mass: dict[str, Any] | None, config: AnalyseConfig) -> list[str]:
    """A sentence where the simulator's model seldom meant to say a digit."""
    if mass is None or mass["median"] >= config.low_mass:
        return []
    return [
        f"Where a rating was read, the model gave the ten digits together a probability of {mass['median']:.2g} in the "
        f"median (10th percentile {mass['p10']:.2g}): it had other words in mind, and the strengths are mostly noise "
        "made to look like ratings. Another scheme, prompt or model may answer with digits."
    ]


def warn_of_coder(losses: Losses, config: AnalyseConfig) -> list[str]:
    """A sentence where the coder itself costs more than its latents are worth."""
    lost = stats.difference(losses.find("coder"), losses.find("clean"), losses.tokens)
    gap = stats.difference(losses.find("zero"), losses.find("coder"), losses.tokens)
    if lost.interval(config.alpha).low <= max(gap.value, 0.0):
        return []
    return [
        f"The coder with its true latents costs {lost.value:.2g} nats above the clean model, and its latents are worth "
        f"{gap.value:.2g}: whatever is recovered is a share of the smaller part of what the layer does."
    ]


def warn_of_skewness(losses: Losses, config: AnalyseConfig) -> list[str]:
    """One sentence where the tests that matter most, those of the headline's arm and of the gap, are not to be trusted,
    and the bootstrap-t intervals that are."""
    curve = [key for key in losses.single if (key.arm, key.order) == ("simulated", "best")]
    headline = max(curve, key=lambda key: key.place)
    name = name_arm(vars(headline))
    pairs = [(name, losses.single[headline], arm) for arm in ("zero", "coder")]
    pairs.append(("zero", losses.find("zero"), "coder"))
    found, ends = [], []
    for name, nats, reference in pairs:
        differences = nats - losses.find(reference)
        skewed = resampling.find_skew(differences, losses.tokens)
        if skewed:
            found.append(skewed)
            drawn = resampling.bootstrap_t(differences, losses.tokens, config.alpha, config.resamples, config.seed)
            shown = f"[{drawn.low:.4f}, {drawn.high:.4f}]" if drawn else "without end"
            ends.append(f"{name} against {reference} {shown} (skewness {skewed.skewness:+.1f})")
    if not found:
        return []
    needed = max(skewed.needed for skewed in found)
    return [
        f"The differences of these {len(losses.documents)} documents are skewed, so the t test may be wrong more often "
        f"than it says: score {needed:,} documents, or read the bootstrap-t intervals, in nats per token: "
        + "; ".join(ends)
        + "."
    ]


def _compare(
    pairs: list[_Pair], family: str, losses: Losses, config: AnalyseConfig, region: stats.Region
) -> list[dict[str, Any]]:
    """One family of comparisons, adjusted by Holm among themselves."""
    if not pairs:
        return []
    estimates = []
    for pair in pairs:
        with _naming(f"arm {pair.key} against {pair.reference}"):
            estimates.append(stats.difference(pair.nats, losses.find(pair.reference), losses.tokens))
    differences = np.stack([pair.nats - losses.find(pair.reference) for pair in pairs])
    adjusted = stats.holm([estimate.p_value() for estimate in estimates])
    flipped = resampling.sign_flip(differences, losses.tokens, config.resamples, config.seed)
    rows = []
    for number, (pair, estimate, p_holm) in enumerate(zip(pairs, estimates, adjusted, strict=True)):
        interval = estimate.interval(config.alpha)
        p_equivalence = region.p_equivalence(differences[number])
        rows.append(
            {
                "arm": pair.key.arm,
                "reference": pair.reference,
                "fraction": pair.key.fraction,
                "order": pair.key.order,
                "family": family,
                "delta": estimate.value,
                "ci": [interval.low, interval.high],
                "p": estimate.p_value(),
                "p_holm": p_holm,
                "p_sign_flip": float(flipped[number]),
                "margin": region.margin,
                "p_equivalence": p_equivalence,
                "mde": estimate.detectable(config.alpha),
                "verdict": decide(estimate.value, p_holm, p_equivalence, config.alpha),
            }
        )
    return rows
