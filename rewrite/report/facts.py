"""All that a report tells, as plain data: the page, the Markdown, the figures and the CSV files are made from it.

A number comes from a file that a stage before wrote; what is added here is order and choice, never a figure.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rewrite.report import arms
from rewrite.report.damage import Damage
from rewrite.report.screen import list_missed, tell_screen
from rewrite.statistics.costs import PREDICTORS
from rewrite.statistics.firings import rows_of_rates
from rewrite.statistics.losses import name_arm
from rewrite.statistics.verdict import find_headline

# Rows in each of the lists of best, worst and costliest latents, and kinds of missing predictions listed.
SHOWN, KINDS = 10, 12
TASTE = 5
"""Of the costliest, on the first screen."""


Row = dict[str, Any]


@dataclass(frozen=True)
class Latent:
    """A latent's explanation and its scores on the calibrate split; `correlation` is None where it is undefined, and
    `scores` are those that a language model gave, in the words of their cells."""

    number: int
    text: str
    correlation: float | None
    density: float
    maximum: float
    missing: str
    r2: float | None = None
    scores: tuple[str, ...] = ()
    missing_share: float = 0.0
    """Of its predictions on the test split."""
    answer: str = ""
    """What a language model said where `text` is not all of it."""


@dataclass(frozen=True)
class Kind:
    """Predictions or explanations that are missing for the same reason; `example` is one reason in full."""

    reason: str
    latents: int
    example: str


@dataclass(frozen=True)
class Facts:
    """All that a report tells."""

    stats: Row
    """The content of 6_stats.json."""
    costs: Row
    """The content of 5_costs.json."""
    latent_costs: list[Row]
    """The rows of 5_costs.parquet, by latent; a number that is not known is None."""
    latent_scores: list[Row]
    """The same of 4_scores.parquet."""
    setting: dict[str, str]
    """What was run, in words."""
    scorers: tuple[str, ...]
    latents: list[Latent]
    """By number."""
    faults: dict[str, int]
    """Single predictions that failed, by kind."""
    unjudged: dict[str, int]
    """Windows that a scorer's language model did not judge, by scorer and kind of failure."""
    unexplained: list[Kind]
    metrics: dict[str, str]
    """The coder's, in words."""
    seconds: dict[str, float]
    """Of each artefact, in the order of the stages."""
    calls: dict[str, Row]
    """The ledger of calls of language models, by stage."""
    learned: list[Row]
    """How the run's readers learned: a row a judgement, by reader; empty where none was tuned."""
    diagnosis: Row = field(default_factory=dict)
    """The content of 5_diagnosis.json; empty where the run has none."""

    @property
    def cover(self) -> str:
        """What intervals cover: "95%"."""
        return arms.cover(self.stats)

    @property
    def headline(self) -> Row:
        """The comparison that the verdict is about."""
        return find_headline(self.stats)

    @property
    def headline_arm(self) -> Row:
        """What the verdict's arm reached."""
        names = ("arm", "fraction", "order")
        place = [self.headline[name] for name in names]
        return next(row for row in self.stats["arms"] if [row[name] for name in names] == place)

    @property
    def ladder(self) -> list[Row]:
        """The arms, best loss first."""
        return arms.select_ladder(self.stats)

    @property
    def controls(self) -> dict[str, str]:
        """What the controls that were run write."""
        run = {row["arm"] for row in self.stats["arms"]}
        return {name: told for name, told in arms.CONTROLS.items() if name in run}

    @property
    def parts(self) -> dict[str, str]:
        """The parts of what was lost, in words."""
        return arms.PARTS

    @property
    def curves(self) -> list[tuple[str, list[Row]]]:
        """Loss against the share simulated, a curve for each order."""
        return [(label, arms.select_curve(self.stats, *place)) for place, label in arms.CURVES.items()]

    @property
    def disagreeing(self) -> list[Row]:
        """Comparisons where the t test and the sign-flip test, unadjusted, fall on different sides of alpha."""
        alpha = self.stats["alpha"]
        return [row for row in self.stats["comparisons"] if (row["p"] < alpha) != (row["p_sign_flip"] < alpha)]

    @cached_property
    def scored(self) -> list[Latent]:
        """The latents that have a score, best first."""
        known = [row for row in self.latents if row.correlation is not None and not row.missing]
        return sorted(known, key=lambda row: (-(row.correlation or 0.0), row.number))

    @property
    def best(self) -> list[Latent]:
        return self.scored[: self._half]

    @property
    def worst(self) -> list[Latent]:
        """Worst first; no latent is among the best too."""
        return self.scored[self._half :][::-1][:SHOWN]

    @property
    def _half(self) -> int:
        return min(SHOWN, (len(self.scored) + 1) // 2)

    @property
    def missing(self) -> list[Kind]:
        """Latents without predictions, by reason."""
        return group_reasons([row.missing for row in self.latents if row.missing])

    @property
    def silent(self) -> int:
        """Latents that never fire on the calibrate split."""
        return sum(row.density == 0 for row in self.latents)

    @property
    def costly(self) -> list[Row]:
        """The latents of most cost, largest first."""
        known = [row for row in self.latent_costs if row["cost"] is not None]
        rows = sorted(known, key=lambda row: (-row["cost"], row["latent"]))[:SHOWN]
        return [row | {"ci": None if row["cost_low"] is None else [row["cost_low"], row["cost_high"]]} for row in rows]

    @property
    def taste(self) -> list[tuple[float, Latent]]:
        """The few latents of most cost that have an explanation, each with that cost [nats]."""
        found = {latent.number: latent for latent in self.latents if not latent.missing}
        rows = [(row["cost"], found[row["latent"]]) for row in self.costly if row["latent"] in found]
        return rows[:TASTE]

    @property
    def reads_nothing(self) -> Row | None:
        """The arm that reads nothing and is not zero: every latent at its mean."""
        return next((row for row in self.ladder if row["arm"] == "mean" and row["recovered_ci"]), None)

    @property
    def rates(self) -> list[Row]:
        """False and missed firings, pooled."""
        return rows_of_rates(self.costs["firings"])

    @property
    def predictors(self) -> dict[str, str]:
        """What a cost is set against, in words."""
        return PREDICTORS

    @property
    def screen(self) -> list[str]:
        """What a screen did, in sentences; empty where there was none."""
        told = self.stats.get("screen")
        return tell_screen(told, self.cover) if told else []

    @property
    def screen_missed(self) -> list[Row]:
        """The simulator's firings that a screen held back."""
        told = self.stats.get("screen")
        return list_missed(told) if told else []

    @property
    def damage(self) -> Damage:
        """Where the damage goes; empty tables where that was not asked for."""
        return Damage(self.diagnosis)

    @property
    def dollars(self) -> float | None:
        """What all calls cost; None where calls were made and no price was set."""
        costs = [row["cost"] for row in self.calls.values()]
        return None if None in costs else sum(costs)

    @cached_property
    def tables(self) -> dict[str, list[Row]]:
        """Every table as rows, by the name of its file; those that have none are left out."""
        stats, costs = self.stats, self.costs
        places = [
            {key: row[key] for key in ("by", "low", "high", "tokens", "documents")} | arm
            for row in stats["places"]
            for arm in row["arms"]
        ]
        named = {
            "settings": [{"setting": name, "value": value} for name, value in self.setting.items()],
            "ladder": [{"name": name_arm(row)} | row for row in self.ladder],
            "fractions": [{"curve": label} | row for label, rows in self.curves for row in rows],
            "comparisons": stats["comparisons"],
            "split": stats["split"],
            "places": places,
            "calibration": stats["calibration"],
            "costs": self.latent_costs,
            "predictors": costs["predictors"],
            "firings": self.rates,
            **self.damage.tables,
            "metrics": [{"metric": name, "value": value} for name, value in self.metrics.items()],
            "latents": [_row_of(latent) for latent in self.latents],
            "scores": self.latent_scores,
            "mass": (stats.get("mass") or {}).get("positions", []),
            "screen": self.screen_missed,
            "missing": [{"failed": kind, "predictions": number} for kind, number in self.faults.items()],
            "unjudged": [{"failed": kind, "windows": number} for kind, number in self.unjudged.items()],
            "reasons": [
                {"what": what} | vars(kind)
                for what, kinds in (("prediction", self.missing), ("explanation", self.unexplained))
                for kind in kinds
            ],
            "learned": self.learned,
            "seconds": [{"artefact": name, "seconds": value} for name, value in self.seconds.items()],
            "calls": [{"stage": name} | row for name, row in self.calls.items()],
        }
        return {name: rows for name, rows in named.items() if rows}


def _row_of(latent: Latent) -> Row:
    numbers = {"density": latent.density, "maximum": latent.maximum, "missing_share": latent.missing_share}
    return {"latent": latent.number, "explanation": latent.text, "missing": latent.missing} | numbers


def group_reasons(reasons: list[str]) -> list[Kind]:
    """Reasons counted by what stands before a colon or a quotation mark: what follows is about one latent only."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for reason in reasons:
        kind = re.split(r"[:\"“]", reason, maxsplit=1)[0].strip() or "no reason given"
        counts[kind] += 1
        examples.setdefault(kind, reason if reason != kind else "")
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = [Kind(reason, number, examples[reason]) for reason, number in ordered[:KINDS]]
    rest = sum(number for _, number in ordered[KINDS:])
    return kinds + ([Kind("other reasons", rest, "")] if rest else [])
