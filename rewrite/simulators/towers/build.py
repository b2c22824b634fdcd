"""The simulator: texts read with the heads that were tuned, or with another run's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors.torch import load_file
from scipy.sparse import csr_array

from rewrite.config import TuneConfig
from rewrite.engines.base import Learner, OpenEngine, States
from rewrite.engines.transformers import Settings as EngineSettings
from rewrite.engines.transformers.build import read_states
from rewrite.explainers.base import Explanation
from rewrite.simulators.base import Peek, Strengths, Unread, find_missing
from rewrite.simulators.examples import Lessons
from rewrite.simulators.readers import check_folds, check_reader, list_readers
from rewrite.simulators.towers import Settings
from rewrite.simulators.towers.head import TOP, Head, Queries, ask, read
from rewrite.simulators.towers.learning import HEAD, Material, TowersPupil, learned_with
from rewrite.subject.loading import check_device
from rewrite.text.windows import Text

LEAST = TOP / 180
"""Half a level of the calibrators."""
TOGETHER = 64
"""Explanations that are asked together [latents]."""


@dataclass(frozen=True)
class Tower:
    """A fold's head with what its explanations ask, some latents at a time, and what it asks without one."""

    head: Head
    queries: tuple[tuple[tuple[int, ...], Queries], ...]
    unread: Queries


class Towers:
    """See the package."""

    scale = TOP

    def __init__(self, states: States, towers: Sequence[Tower], latents: int, missing: Mapping[int, str]) -> None:
        self.states, self.towers, self.latents, self.missing = states, towers, latents, dict(missing)

    def simulate(self, text: Text) -> Strengths:
        """See `Simulator.simulate`."""
        counted = text.counted()
        windows = [number for number, (a, b) in enumerate(pairwise(text.starts)) if counted[a:b].any()]
        tokens = list(text.windows())
        asked = [counted[text.starts[number] : text.starts[number + 1]] for number in windows]
        shown = self.states.of_pieces([tokens[number] for number in windows])
        states = [own[mask] for own, mask in zip(shown, asked, strict=True)]
        there = np.concatenate([np.zeros((0, self.states.width), dtype=np.float16), *states])
        values = np.zeros((len(there), self.latents), dtype=np.float32)
        reader = np.zeros(self.latents, dtype=np.int16)
        alone: list[Float[np.ndarray, "position 1"]] = []
        for place, tower in enumerate(self.towers):
            said = read(tower.head, there, [tower.unread, *(queries for _, queries in tower.queries)])
            alone.append(said[0])
            for (own, _), strengths in zip(tower.queries, said[1:], strict=True):
                values[:, list(own)], reader[list(own)] = strengths, place
        values[values < LEAST] = 0
        whole: Any = csr_array(values)
        ends = np.zeros(len(counted) + 1, dtype=np.int64)
        ends[1:][counted] = np.diff(whole.indptr)
        found: Any = csr_array((whole.data, whole.indices, np.cumsum(ends)), shape=(len(counted), self.latents))
        return Strengths(found, dict(self.missing), unread=Unread(np.concatenate(alone, axis=1), reader))


def build(
    explanations: Sequence[Explanation],
    latents: int,
    settings: Settings,
    peek: Peek,
    open_engine: OpenEngine,
    tuned: Path | None = None,
) -> Towers:
    """The simulator with the heads that the run tuned, or with its adapter; the truth is not looked at."""
    if settings.adapter:
        here = learned_with(settings)
        named = list_readers(settings.adapter, latents)
        folds = [(check_reader("towers", adapter, here), own) for adapter, own in named]
    else:
        assert tuned is not None, "what is tuned stands before what reads"
        folds = list(check_folds(tuned))
    states = _open_states(settings)
    texts = {e.latent: e.text for e in explanations if e.text is not None}
    told = dict(zip(texts, states.of_tokens(list(texts.values())), strict=True))
    towers = []
    for place, mine in folds:
        head = Head(states.width, settings.hidden, settings.rank)
        head.load_state_dict(load_file(place / HEAD))
        head = head.to(settings.device)
        own = [latent for latent in told if latent in mine]
        parts = [tuple(own[i : i + TOGETHER]) for i in range(0, len(own), TOGETHER)]
        queries = [(part, ask(head, [told[latent] for latent in part], states.width)) for part in parts]
        empty = np.zeros((0, states.width), dtype=np.float16)
        towers.append(Tower(head, tuple(queries), ask(head, [empty], states.width)))
    return Towers(states, towers, latents, find_missing(explanations, latents))


def pupils(
    lessons: Lessons, settings: Settings, config: TuneConfig, open_learner: Callable[[str], Learner]
) -> Callable[[], TowersPupil]:
    """What opens a pupil for each fold (`rewrite.simulators.base`); texts and explanations are read once for all."""
    material = cache(lambda: Material(_open_states(settings), lessons))
    return lambda: TowersPupil(settings, material(), config.seed)


@lru_cache(maxsize=1)
def _open_states(settings: Settings) -> States:
    """The model that reads, as the transformers engine shows it."""
    check_device("simulators.towers.device", settings.device)
    engine = EngineSettings(device=settings.device, dtype=settings.dtype, batch=16)
    return read_states(settings.model, engine, settings.layers)
