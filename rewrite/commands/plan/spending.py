"""What a run takes, and what a larger or smaller one like it would take: positions, calls, dollars, hours.

1. A run's `Size` is counted from what it left: documents, simulated positions, tokens, latents.
2. `Spending.grow` is the size with other numbers of test documents and latents.
3. `Spending.price` scales the run's own ledger and seconds: explaining and judging by latents, simulating by
   predictions (positions × latents), collecting by tokens, scoring arms by test documents.
4. `price_calls` is the price list of a dry run: what the calls would cost that a run is about to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rewrite.commands.documents import count_tokens, read_documents
from rewrite.config import UserError
from rewrite.display.tables import Row
from rewrite.run.configs import read_recorded
from rewrite.run.finished import ASKED, Finished
from rewrite.run.plugins import asked_model
from rewrite.stages import STAGES

# What each artefact's time grows with; one that is not named grows with the test documents.
GROWS = {
    "1_coder": "nothing",
    "2_activations": "tokens",
    "3_explanations.jsonl": "latents",
    "4_simulations": "predictions",
    "4_scores.parquet": "latents",
    "6_stats.json": "nothing",
    "7_report": "nothing",
}


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    documents: int
    """Test documents that are scored."""
    test: float
    """Positions simulated on the test split."""
    calibrate: float
    """Positions simulated on the calibrate split."""
    tokens: float
    """Tokens of all three splits that run through the subject."""
    latents: int

    @property
    def predictions(self) -> float:
        return (self.test + self.calibrate) * self.latents


@dataclass(frozen=True)
class Bill:
    """What a run takes; None where the pilot does not tell: the cache answered it, or another run has what it took."""

    positions: int
    predictions: int
    calls: int | None
    tokens: int | None
    dollars: float | None
    hours: float | None


@dataclass(frozen=True)
class Spending:
    """A run's size and what it took."""

    run: Finished
    size: Size
    splits: dict[str, int]
    """Documents that the corpus has for each split."""
    calibrated: int
    """Documents of the calibrate split that were simulated."""
    train: int
    """Tokens of the train split that were kept."""

    def grow(self, documents: int, latents: int) -> Size:
        """The same run with other numbers of test documents and latents.

        The calibrate split stays, but where `sample.documents` drew from it: then it grows alike, as far as it goes.
        """
        drawn = bool(self.run.setting("sample.documents", 0))
        calibrated = min(documents, self.splits["calibrate"]) if drawn else self.calibrated
        held = self.size.tokens - self.train
        share = max(documents / self.splits["test"], 1.0) if drawn else documents / self.size.documents
        return Size(
            documents=documents,
            test=self.size.test * documents / self.size.documents,
            calibrate=self.size.calibrate * calibrated / max(self.calibrated, 1),
            tokens=self.train + held * share,
            latents=latents,
        )

    def price(self, size: Size) -> Bill:
        """What a run of some size takes, at this one's prices and speed."""
        factors = {
            "nothing": 1.0,
            "tokens": size.tokens / max(self.size.tokens, 1),
            "latents": size.latents / self.size.latents,
            "predictions": size.predictions / max(self.size.predictions, 1),
            "documents": size.documents / self.size.documents,
        }
        seconds = sum(took * factors[GROWS.get(artefact, "documents")] for artefact, took in self.run.seconds.items())
        scales = {stage: factors[GROWS[artefact]] for stage, artefact in ASKED.items()}
        calls, tokens, dollars = scale_ledger(self.run.ledger, scales)
        if asked_elsewhere(self.run):
            calls = tokens = dollars = None
        hours = None if taken_over(self.run) else seconds / 3600
        return Bill(round(size.test + size.calibrate), round(size.predictions), calls, tokens, dollars, hours)


def taken_over(run: Finished) -> dict[str, str]:
    """The stages of which something was taken over from another run, which has what it took; that run's name."""
    entries = run.manifest["artefacts"]
    pairs = [(stage.name, entries.get(artefact, {}).get("from")) for stage in STAGES for artefact in stage.writes]
    return {stage: str(name) for stage, name in pairs if name is not None}


def asked_elsewhere(run: Finished) -> list[str]:
    """Those of them that ask a language model, so that their calls are in the other run's ledger; where that cannot be
    known, they may have."""
    taken = taken_over(run)
    stages = [stage for stage in STAGES if stage.name in ASKED and stage.name in taken]
    try:
        config = read_recorded(run.folder / "manifest.json", run.manifest).config
        return [stage.name for stage in stages if stage.asks and asked_model(stage.asks.role, config) is not None]
    except UserError:
        return [stage.name for stage in stages]


def tell_taken(taken: Mapping[str, str]) -> list[str]:
    """A note that says what was taken over from which run; none where nothing was."""
    told = ", ".join(f"{stage} ({name})" for stage, name in taken.items())
    return [f"Taken over from another run, which has what it took: {told}."] if told else []


def scale_ledger(ledger: Mapping[str, Row], scales: Mapping[str, float]) -> tuple[int | None, int | None, float | None]:
    """Calls, tokens and dollars of a ledger, scaled stage by stage.

    What the cache answered cost this run nothing, but a larger one asks it anew: it counts as a call like the others.
    """
    calls = tokens = dollars = 0.0
    for stage, spent in ledger.items():
        if not spent["calls"]:
            if spent["cached"]:
                return None, None, None
            continue
        factor = scales.get(stage, 1.0) * (spent["calls"] + spent["cached"]) / spent["calls"]
        calls += factor * spent["calls"]
        tokens += factor * (spent["tokens_in"] + spent["tokens_out"])
        dollars += factor * spent["cost"]
    return round(calls), round(tokens), dollars if dollars or not calls else None


def read_spending(run: Finished, latents: int) -> Spending:
    """What a run that rewrote so many latents was and took."""
    scored = {split: read_documents(run, split) for split in ("calibrate", "test")}
    simulated = {split: [d.positions for d in documents if d.positions] for split, documents in scored.items()}
    tokens = {split: count_tokens(run, split) for split in ("train", "calibrate", "test")}
    return Spending(
        run=run,
        size=Size(
            documents=len(simulated["test"]),
            test=float(sum(simulated["test"])),
            calibrate=float(sum(simulated["calibrate"])),
            tokens=float(sum(tokens.values())),
            latents=latents,
        ),
        splits={split: len(documents) for split, documents in scored.items()},
        calibrated=len(simulated["calibrate"]),
        train=tokens["train"],
    )


# --- a dry run's price list -------------------------------------------------------------------------------------------
