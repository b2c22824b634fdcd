"""One text read with one explanation, as the simulate stage reads all texts with all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from rewrite.coder.activations import ActivationStore, Shard
from rewrite.commands.study.shown import Reading
from rewrite.config import Config, UserError
from rewrite.engines.calls import Calls
from rewrite.explainers.explanations import load_explanations
from rewrite.run import plugins
from rewrite.run.store import Run
from rewrite.simulators.base import Strengths
from rewrite.stages.explain import open_reader
from rewrite.stages.simulate import TrueActivations, open_own
from rewrite.text.windows import Text


@dataclass(frozen=True)
class TrueOf:
    """The `Peek` of a text of one's own."""

    shard: Shard
    stored: TrueActivations

    @property
    def maximum(self) -> np.ndarray:
        """Each latent's largest activation on the train split."""
        return self.stored.maximum

    def __call__(self, text: Text) -> csr_array:
        """The text's true activations."""
        return self.shard.activations


def read_explanation(config: Config, run: Run, explanation: str, text: Text) -> Reading:
    """What the run's simulator makes of an explanation that is no latent's. Raises UserError for one that learned from
    latents."""
    if plugins.learns(config):
        raise UserError(f"simulator = {config.simulator}: learns from latents; read one by its number, as in 5")
    with Calls(config, run, "simulate") as calls:
        simulator = open_reader(config, calls, [explanation])
        said = simulator.simulate(text)
    return Reading(explanation, _tokens(text), _column(said, 0, text), float(simulator.scale))


def read_latent(config: Config, run: Run, store: ActivationStore, latent: int, shard: Shard) -> Reading:
    """What it makes of the run's explanation of a latent, beside the truth. Raises UserError for one that the run
    explains not."""
    written = load_explanations(run.path("3_explanations.jsonl"))
    one = next((e for e in written if e.latent == latent), None)
    if one is None:
        raise UserError(f"latent {latent}: not explained in this run; sample.latents leaves it out, or there is none")
    with Calls(config, run, "simulate") as calls:
        simulator = open_own(config, run, store, TrueOf(shard, TrueActivations(store)), calls)
        said = simulator.simulate(shard.text)
    strengths = _column(said, latent, shard.text)
    true = shard.activations[:, [latent]].toarray()[:, 0].astype(float)
    told = one.text if one.text is not None else f"no explanation: {one.why}"
    activations = np.where(shard.text.counted(), true, np.nan)
    return Reading(told, _tokens(shard.text), strengths, float(simulator.scale), activations)


def _column(said: Strengths, latent: int, text: Text) -> np.ndarray:
    """A latent's strengths, [token]; NaN where nothing is known."""
    strengths: np.ndarray = said.values[:, [latent]].toarray()[:, 0].astype(float)
    strengths[~text.counted()] = np.nan
    return np.full_like(strengths, np.nan) if latent in said.missing else strengths


def _tokens(text: Text) -> tuple[str, ...]:
    return tuple(token for window in text.windows() for token in window)
