"""Losses → arms, comparisons and the verdict: 5_losses.parquet → 6_stats.json.

1. Read one loss per document and arm; refuse losses that are missing, not finite, or counted over different tokens.
2. Average the seeds of a random order within each document: one arm, and one comparison, per fraction.
3. Estimate each arm's loss, its increase over the clean model and its share of the gap (`rewrite.stats`).
4. Compare. Primary family, adjusted together by Holm: every simulated arm against `zero`. Secondary family, adjusted
   by itself: simulated arms at the largest fraction, best first, against `coder` and the other baselines.
5. The verdict is the primary comparison of `simulated` at the largest fraction, best first. Where more predictions are
   missing than `analyse.max_missing` allows there is no verdict, of this comparison or any other.

The equivalence margin is a share of the gap, set in the config; where the gap's interval reaches 0 the margin is 0 and
nothing is called equivalent. Everything is sorted and every draw is named, so the same losses give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rewrite import stats
from rewrite.config import AnalyseConfig, Config, UserError
from rewrite.store import Run, write_json

SIMULATED = ("simulated", "simulated_topk")
NEEDED = ("clean", "coder", "zero")
BASELINES = ("coder", "mean", "mean_layer", "zero_layer")
COLUMNS = ("document", "arm", "fraction", "order", "seed", "nats", "tokens")


@dataclass(frozen=True)
class Key:
    """What names an arm's losses; `fraction` is None where nothing is simulated, `seed` where several are averaged."""

    arm: str
    fraction: float | None
    order: str
    seed: int | None

    def __str__(self) -> str:
        parts = [f"fraction {self.fraction}" if self.fraction is not None else "", self.order]
        seed = [f"seed {self.seed}"] if self.order == "random" and self.seed is not None else []
        return " ".join([self.arm, *filter(None, parts), *seed])

    @property
    def place(self) -> tuple[str, float, str, int]:
        """Its place in every list that is written."""
        return (
            self.arm,
            -1.0 if self.fraction is None else self.fraction,
            self.order,
            -1 if self.seed is None else self.seed,
        )


@dataclass(frozen=True)
class Losses:
    """Losses per document, summed over its scored tokens; the same documents and tokens for every arm.

    `single` holds each seed's arm, `averaged` the random orders with their seeds averaged within each document.
    """

    documents: tuple[int, ...]
    tokens: stats.Tokens
    single: dict[Key, stats.Documents]
    averaged: dict[Key, stats.Documents]

    def find(self, arm: str) -> stats.Documents:
        """The losses of an arm that is not simulated."""
        return self.single[Key(arm, None, "", 0)]

    def has(self, arm: str) -> bool:
        return Key(arm, None, "", 0) in self.single


def run(config: Config, run: Run) -> None:
    """Read 5_losses.parquet and write 6_stats.json. Raises UserError where the losses allow no analysis."""
    source = run.path("5_losses.parquet")
    result = analyse(read_losses(source), config.analyse, read_latents(run.path("5_latents.parquet")), source)
    with run.writing("6_stats.json") as path:
        write_json(path, result)


@dataclass(frozen=True)
class Latents:
    """How many latents the coder has, how many of them are rewritten, and the share of predictions that are missing."""

    every: int
    rewritten: int
    missing: float


def read_latents(path: Path) -> Latents:
    """What the analysis needs to know of the latents."""
    table = pq.read_table(path)
    shares = table.column("missing_share").to_numpy()
    return Latents(int(table.schema.metadata[b"latents"]), len(shares), float(shares.mean()))


def read_losses(path: Path) -> Losses:
    """The losses of every arm, documents sorted; documents without a scored token in any arm count for nothing.

    Raises UserError naming the file and the arm for a loss that is missing, twice there or not a finite number, for
    tokens that differ between arms, and for an arm that is needed and absent.
    """
    rows = _read_rows(path)
    for arm in NEEDED:
        if Key(arm, None, "", 0) not in rows:
            raise UserError(f"{path}: no arm {arm} in this file; evaluate again")
    if not any((key.arm, key.order) == ("simulated", "best") for key in rows):
        raise UserError(f"{path}: no arm simulated, best order; set evaluate.fractions and evaluate again")
    every = sorted({document for losses in rows.values() for document in losses})
    keys = sorted(rows, key=lambda key: key.place)
    clean = rows[Key("clean", None, "", 0)]
    for key in keys:
        _check_arm(path, key, rows[key], every, clean)
    documents = tuple(document for document in every if clean[document].tokens > 0)
    tokens = np.array([clean[document].tokens for document in documents], dtype=np.int64)
    single = {key: np.array([rows[key][document].nats for document in documents], dtype=np.float64) for key in keys}
    return Losses(documents, tokens, single, _average_seeds(single))


@dataclass(frozen=True)
class _Loss:
    """One document's loss in one arm, summed over its scored tokens."""

    nats: float
    tokens: int


def _read_rows(path: Path) -> dict[Key, dict[int, _Loss]]:
    """The losses by arm and document, as they stand in the file, in any order."""
    rows: dict[Key, dict[int, _Loss]] = {}
    for document, arm, fraction, order, seed, nats, tokens in zip(*_read_columns(path), strict=True):
        key = Key(arm, fraction, order, seed)
        losses = rows.setdefault(key, {})
        if document in losses:
            raise UserError(f"{path}: document {document} is twice in arm {key}; evaluate again")
        if nats is None or not np.isfinite(nats):
            raise UserError(f"{path}: the loss of document {document} in arm {key} is {nats}; evaluate again")
        losses[document] = _Loss(nats, tokens)
    return rows


def _read_columns(path: Path) -> list[list[Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: not readable as Parquet ({str(error).splitlines()[0]}); evaluate again") from None
    absent = [name for name in COLUMNS if name not in table.column_names]
    if absent:
        raise UserError(f"{path}: no column {absent[0]}; evaluate again")
    return [table.column(name).to_pylist() for name in COLUMNS]


def _check_arm(path: Path, key: Key, losses: dict[int, _Loss], documents: list[int], clean: dict[int, _Loss]) -> None:
    """Every arm is scored on the same documents and the same positions."""
    for document in documents:
        if document not in losses:
            raise UserError(f"{path}: arm {key} lacks document {document}; evaluate again")
        found, expected = losses[document].tokens, clean[document].tokens if document in clean else None
        if expected is not None and found != expected:
            raise UserError(
                f"{path}: document {document} has {found} scored tokens in arm {key} and {expected} in arm clean; "
                "evaluate again"
            )


def _average_seeds(single: dict[Key, stats.Documents]) -> dict[Key, stats.Documents]:
    groups: dict[Key, list[stats.Documents]] = {}
    for key, nats in single.items():
        if key.order == "random":
            groups.setdefault(replace(key, seed=None), []).append(nats)
    return {key: np.mean(group, axis=0) for key, group in groups.items()}


def analyse(losses: Losses, config: AnalyseConfig, latents: Latents, source: Path) -> dict[str, Any]:
    """The content of 6_stats.json. Raises UserError, naming `source`, where there is too little to judge by."""
    with _naming(str(source)):
        with _naming("arm zero against coder"):
            gap = stats.difference(losses.find("zero"), losses.find("coder"), losses.tokens)
        interval = gap.interval(config.alpha)
        margin = config.margin * gap.value if interval.low > 0 else 0.0
        result: dict[str, Any] = {
            "schema": 1,
            "unit": "document",
            "documents": len(losses.documents),
            "tokens": int(losses.tokens.sum()),
            "latents": latents.every,
            "rewritten": latents.rewritten,
            "missing": {"share": latents.missing, "most": config.max_missing},
            "alpha": config.alpha,
            "gap": {"nats": gap.value, "ci": [interval.low, interval.high], "se": gap.se},
            "arms": [_describe(key, nats, losses, config.alpha) for key, nats in losses.single.items()],
            "averages": [_describe_average(key, losses, config.alpha) for key in losses.averaged],
            "comparisons": _compare_primary(losses, config, margin) + _compare_secondary(losses, config, margin),
        }
    if latents.missing > config.max_missing:
        for row in result["comparisons"]:
            row["verdict"] = None
    chosen = stats.find_headline(result)
    result["verdict"] = {"verdict": chosen["verdict"], "sentence": stats.verdict_sentence(result)} | {
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
    """An arm's loss, what it adds to the clean model's (paired), and the share of the gap it recovers."""
    with _naming(f"arm {key}"):
        loss = stats.estimate(nats, losses.tokens)
        increase = stats.difference(nats, losses.find("clean"), losses.tokens)
        share = stats.recovered(nats, losses.find("zero"), losses.find("coder"), losses.tokens, alpha)
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
        "recovered_ci": [share.interval.low, share.interval.high] if share.interval else None,
    }


def _describe_average(key: Key, losses: Losses, alpha: float) -> dict[str, Any]:
    """The same for a random order with its seeds averaged; `sd_seeds` is the spread of the seeds' losses."""
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


def _compare_primary(losses: Losses, config: AnalyseConfig, margin: float) -> list[dict[str, Any]]:
    curves = [key for key in losses.single if key.arm in SIMULATED and key.order != "random"]
    arms = {key: losses.single[key] for key in curves} | losses.averaged
    pairs = [_Pair(key, "zero", arms[key]) for key in sorted(arms, key=lambda key: key.place) if key.arm in SIMULATED]
    return _compare(pairs, "primary", losses, config, margin)


def _compare_secondary(losses: Losses, config: AnalyseConfig, margin: float) -> list[dict[str, Any]]:
    pairs = []
    for arm in SIMULATED:
        keys = [key for key in losses.single if key.arm == arm and key.order == "best"]
        for key in sorted(keys, key=lambda key: key.place)[-1:]:
            pairs += [_Pair(key, name, losses.single[key]) for name in BASELINES if losses.has(name)]
    return _compare(pairs, "secondary", losses, config, margin)


def _compare(
    pairs: list[_Pair], family: str, losses: Losses, config: AnalyseConfig, margin: float
) -> list[dict[str, Any]]:
    """One family of comparisons, adjusted by Holm among themselves."""
    estimates = []
    for pair in pairs:
        with _naming(f"arm {pair.key} against {pair.reference}"):
            estimates.append(stats.difference(pair.nats, losses.find(pair.reference), losses.tokens))
    differences = np.stack([pair.nats - losses.find(pair.reference) for pair in pairs])
    adjusted = stats.holm([estimate.p_value() for estimate in estimates])
    flipped = stats.sign_flip(differences, losses.tokens, config.resamples, config.seed)
    rows = []
    for pair, estimate, p_holm, p_flip in zip(pairs, estimates, adjusted, flipped.tolist(), strict=True):
        interval = estimate.interval(config.alpha)
        p_equivalence = estimate.p_equivalence(margin)
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
                "p_sign_flip": p_flip,
                "margin": margin,
                "p_equivalence": p_equivalence,
                "mde": estimate.detectable(config.alpha),
                "verdict": stats.decide(estimate.value, p_holm, p_equivalence, config.alpha),
            }
        )
    return rows
