"""Explain: write what each latent does, from the train split's true activations.

Where `explain.file` names explanations written or edited elsewhere, those are read, checked and kept instead
(`rewrite.explainers.explanations`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from rewrite.coder.activations import ActivationStore, gather_evidence
from rewrite.config import Config
from rewrite.engines.calls import Calls, Planned
from rewrite.explainers.base import Explainer, Explanation
from rewrite.explainers.explanations import read_explanations, save_explanations
from rewrite.run import plugins
from rewrite.run.store import Run
from rewrite.text.sampling import draw_latents


def run(config: Config, run: Run) -> None:
    """Write `3_explanations.jsonl`."""
    store = ActivationStore(run.path("2_activations"))
    latents = draw_latents(config.sample, store.latents)
    with Calls(config, run, "explain") as calls:
        calls.latents = len(latents)
        progress = tqdm(_explain(config, store, calls), "explain", unit=" latents", total=len(latents), disable=None)
        explanations = list(progress)
    with run.writing("3_explanations.jsonl") as path:
        save_explanations(path, explanations)


def plan(config: Config, run: Run, explained: bool) -> Planned:
    """What explaining would cost at most."""
    with Calls(config, run, "explain", dry=True) as calls:
        for _ in _explain(config, ActivationStore(run.path("2_activations")), calls):
            pass
        return calls.met


def _explain(config: Config, store: ActivationStore, calls: Calls) -> Iterable[Explanation]:
    """An explanation of every latent that is rewritten, from the file or from the explainer."""
    latents = draw_latents(config.sample, store.latents).tolist()
    if config.explain.file:
        every = read_explanations(Path(config.explain.file), store.latents)
        return [every[latent] for latent in latents]
    settings = plugins.settings("explainers", config.explainer, config.explainers.get(config.explainer, {}))
    explainer: Explainer = plugins.load("explainers", config.explainer).build(settings, calls.open)
    return explainer.explain(gather_evidence(store), latents)
