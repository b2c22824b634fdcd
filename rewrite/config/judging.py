"""What is written at the hookpoint, and what is made of the losses."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from rewrite.config.base import Place, Section

Control = Literal[
    "mean",
    "mean_layer",
    "zero_layer",
    "quantised",
    "true_active",
    "simulated_active",
    "matched",
    "hits",
    "shuffled",
    "random",
    "token_table",
    "linear_probe",
    "unread",
]


class EvaluateConfig(Section):
    """The arms: which are written at the hookpoint, in what order and how often."""

    missing: Literal["mean", "leave_out"] = "mean"
    """What stands for a latent whose prediction is missing: its mean on the calibrate split, or it leaves the
    comparison and keeps its true activation."""
    order_by: Literal["simulation", "detection", "fuzz"] = "simulation"
    """The score that orders the latents from best to worst explained."""
    fractions: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Shares of the latents that are simulated, the others keeping their true activations."""
    random_seeds: int = Field(5, ge=0)
    """Draws of the random order in which latents are simulated [draws]."""
    controls: tuple[Control, ...] = get_args(Control)
    """The arms beside `clean`, `coder`, `zero` and the simulated ones; without `matched` and `hits` the report does not
    split what is lost."""
    control_seeds: int = Field(5, ge=1)
    """Draws of the controls that are drawn, `shuffled` and `random` [draws]."""
    topk: bool = False
    """Also write every simulated arm after keeping only each position's k strongest latents (the paper's splice)."""


class CostConfig(Section):
    """What each latent's simulation costs in loss (`rewrite.arms.attribution`)."""

    steps: int = Field(4, ge=1)
    """Points on the line from true to simulated activations at which gradients are taken [backward passes]."""
    documents: int = Field(60, ge=0)
    """Test documents that costs are taken on, drawn from those that are simulated [documents]; 0 takes all."""
    check: int = Field(50, ge=0)
    """Latents whose cost is also measured alone, all others true, a forward pass each: half of them those of most cost,
    half drawn from the others [latents]."""
    seed: int = 0
    """Names the draws of documents and of latents to check."""


class DiagnoseConfig(Section):
    """Where the damage goes: what a rewrite costs along its way through the later parts of the subject."""

    documents: int = Field(0, ge=0)
    """Test documents that are taken apart, drawn from those that are simulated; costs are taken on the same first ones
    where `cost.seed` agrees [documents]; 0 leaves the stage out."""
    heads: int = Field(8, ge=0)
    """Of those documents, on how many each later head is measured by itself, two runs a head [documents]; 0 is none."""
    routes: int = Field(8, ge=0)
    """On how many of them the routes of information are followed, a window of each [documents]; 0 is none."""
    task: Place = ""
    """A task that is tried before and after: `laundry`, or a JSONL file with `prompt`, `right` and `wrong`."""
    items: int = Field(100, ge=8)
    """Items of the task, the first so many of a file [items]."""
    seed: int = 0
    """Names the draw of the documents, of the random texts that heads are tried on, and of the items of `laundry`."""

    @model_validator(mode="after")
    def _tried(self) -> Self:
        if self.task and not self.documents:
            raise ValueError("a task is tried where documents are taken apart; set documents too")
        return self

    @model_validator(mode="after")
    def _within(self) -> Self:
        for key, number in (("heads", self.heads), ("routes", self.routes)):
            if 0 < self.documents < number:
                raise ValueError(
                    f"{key} = {number} is more than documents = {self.documents}, of which they are; set {key} to at "
                    f"most {self.documents}, or documents to {number} or more"
                )
        return self

    @field_validator("documents", "heads", "routes")
    @classmethod
    def _enough(cls, number: int) -> int:
        if 0 < number < 8:
            raise ValueError("fewer than 8 documents allow no interval; set 8 or more, or 0")
        return number


class AnalyseConfig(Section):
    """The tests, their intervals, and when there is no verdict."""

    max_missing: float = Field(0.05, ge=0, le=1)
    """Largest share of the predictions that may be missing; beyond it there is no verdict."""
    low_mass: float = Field(0.5, ge=0, le=1)
    """Median probability of the ten digits together, where ratings are read, below which the report warns."""
    least_mass: float = Field(0.1, ge=0, le=1)
    """The same below which there is no verdict: such strengths are noise."""
    margin: float = Field(0.05, gt=0)
    """Half-width of the equivalence region, as a share of the gap."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Error rate of every test; intervals cover 1 - alpha."""
    resamples: int = Field(10_000, ge=999)
    """Draws of a permutation test or a bootstrap [draws]."""
    seed: int = 0
    """Names the draws of the permutation tests and bootstraps."""
