"""Explain: write what each latent does, from the train split's true activations.

Where `explain.file` names explanations written or edited elsewhere, those are read, checked and kept instead
(`rewrite.explainers.explanations`). An explainer that writes several for a latent chooses by what the run's simulator
makes of each on the train split.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from rewrite.coder.activations import ActivationStore
from rewrite.coder.evidence import gather_evidence
from rewrite.config import Config, UserError
from rewrite.display.progress import bar
from rewrite.engines.calls import Calls
from rewrite.engines.ledger import Planned
from rewrite.explainers.base import Explainer, Explanation, Simulate
from rewrite.explainers.explanations import read_explanations, save_explanations
from rewrite.explainers.taught import check_unmet
from rewrite.run import plugins
from rewrite.run.store import Run
from rewrite.simulators.base import Simulator
from rewrite.text.sampling import draw_latents, draw_others
from rewrite.text.windows import Text


def run(config: Config, run: Run) -> None:
    """Write `3_explanations.jsonl`."""
    store = open_store(run)
    latents = explained_latents(config, store)
    with Calls(config, run, "explain") as calls:
        calls.latents = len(latents)
        progress = bar(_explain(config, store, calls), "explain", "latents", len(latents))
        explanations = list(progress)
    with run.writing("3_explanations.jsonl") as path:
        save_explanations(path, explanations)


def plan(config: Config, run: Run, awaited: frozenset[str]) -> Planned:
    """What explaining would cost at most."""
    with Calls(config, run, "explain", dry=True) as calls:
        for _ in _explain(config, open_store(run), calls):
            pass
        return calls.met


def open_store(run: Run) -> ActivationStore:
    """The true activations that explanations are made from."""
    return ActivationStore(run.path("2_activations"), ("train",))


def _explain(config: Config, store: ActivationStore, calls: Calls) -> Iterable[Explanation]:
    """An explanation of every latent that needs one, from the file or from the explainer."""
    latents = explained_latents(config, store)
    if config.explain.file:
        every = read_explanations(Path(config.explain.file), store.latents)
        return [every[latent] for latent in latents]
    adapter: str = getattr(plugins.chosen("explainer", config), "adapter", "")
    if adapter:
        check_unmet(adapter, calls.run.manifest["artefacts"]["1_coder"]["sha256"], latents)
    return open_explainer(config, calls).explain(gather_evidence(store.train, latents), latents)


def open_explainer(config: Config, calls: Calls) -> Explainer:
    """The explainer that the config names."""
    module = plugins.load("explainers", config.explainer)
    explainer: Explainer = module.build(plugins.chosen("explainer", config), calls.open, open_simulate(config, calls))
    return explainer


def explained_latents(config: Config, store: ActivationStore) -> list[int]:
    """The latents that are rewritten, and those that a reader learns from (`tune.latents`)."""
    others = draw_others(config, store.latents).tolist() if plugins.learns(config) else []
    return sorted([*draw_latents(config.sample, store.latents).tolist(), *others])


class NoPeek:
    """Shows no truth: explanations are chosen by what a reader makes of them."""

    def __init__(self, latents: int) -> None:
        self.maximum = np.ones(latents, dtype=np.float32)

    def __call__(self, text: Text) -> csr_array:
        """Refuses."""
        raise UserError("simulator: reads no explanations, so none can be tried out with it; use another simulator")


def open_simulate(config: Config, calls: Calls) -> Simulate:
    """How explanations are tried out: the run's simulator reads each as if it were a latent's."""

    def simulate(texts: Sequence[str], text: Text) -> Float[np.ndarray, "counted text"]:
        simulator = open_reader(config, calls, texts)
        strengths = simulator.simulate(text)
        found: np.ndarray = strengths.values[text.counted()].toarray() / simulator.scale
        found[:, list(strengths.missing)] = np.nan
        return found

    return simulate


def open_reader(config: Config, calls: Calls, texts: Sequence[str]) -> Simulator:
    """The run's simulator with some explanations, each as if it were a latent's, by their order."""
    given = [Explanation(number, written) for number, written in enumerate(texts)]
    module, settings = plugins.load("simulators", config.simulator), plugins.chosen("simulator", config)
    simulator: Simulator = module.build(given, len(texts), settings, NoPeek(len(texts)), calls.open)
    return simulator
