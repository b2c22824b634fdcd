"""The pattern simulator in predictions (positions × latents) a second, beside reading one latent at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import seconds
from benchmarks.setting import finished_run
from rewrite.coder.activations import ActivationStore
from rewrite.engines.base import Engine
from rewrite.explainers.explanations import load_explanations
from rewrite.run import plugins
from rewrite.stages.simulate import TrueActivations
from rewrite.text.corpus import SPLITS
from rewrite.text.windows import Text


def nobody(model: str) -> Engine:
    """No language model is asked."""
    raise AssertionError(model)


def bench() -> Iterator[str]:
    """All latents on every test shard; the naive way gives the same simulator one latent and one window at a time."""
    folder = finished_run()
    store = ActivationStore(folder / "2_activations", SPLITS)
    explanations = load_explanations(folder / "3_explanations.jsonl")
    module = plugins.load("simulators", "patterns")
    settings = plugins.settings("simulators", "patterns", {})
    peek = TrueActivations(store)
    simulator = module.build(explanations, store.latents, settings, peek, nobody)
    texts = [store.test.load(shard).text for shard in store.test.shards]
    predictions = sum(len(text.ids) for text in texts) * store.latents
    fast = predictions / seconds(lambda: [simulator.simulate(text) for text in texts])
    yield f"{fast / 1e6:,.0f} million predictions a second ({predictions / 1e6:,.0f} million predictions)"

    begin, end = texts[0].starts[:2]
    window = Text(texts[0].ids[begin:end], np.array([0, end - begin]), texts[0].vocabulary)
    few = [module.build([e], store.latents, settings, peek, nobody) for e in explanations[:64]]
    naive = (end - begin) * len(few) / seconds(lambda: [one.simulate(window) for one in few])
    yield f"{fast / naive:,.0f} times one latent and one window at a time ({naive:,.0f} a second)"
