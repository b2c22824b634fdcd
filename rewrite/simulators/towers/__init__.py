"""A reader in two parts: a language model reads each text and each explanation once, and a small head joins them.

1. The model is left as it is. Of a text it gives the hidden states of some layers at each position, of an explanation
   those at each of its tokens (`rewrite.engines.base.States`).
2. The head (`rewrite.simulators.towers.head`) is tuned on the train split with the same folds as any reader, by
   cross-entropy against activation / maximum (`rewrite.simulators.towers.learning`).
3. A prediction costs no token: all latents at all positions of a text are a product of two matrices. Strengths below
   half a level of the calibrators (`rewrite.arms.calibrate.LEVELS`) are stored as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from scipy.sparse import csr_array

from rewrite.config import TuneConfig
from rewrite.engines import transformers
from rewrite.engines.base import Learner, OpenEngine, States
from rewrite.engines.encoding import fingerprint_model
from rewrite.explainers.base import Explanation
from rewrite.run.files import hash_value, write_json
from rewrite.simulators.base import Peek, Strengths, Unread
from rewrite.simulators.examples import Lessons
from rewrite.simulators.readers import READER, Learned, check_folds, check_reader, unfinished
from rewrite.simulators.towers.head import TOP, Head, Queries, ask, read
from rewrite.simulators.towers.learning import HEAD, Library, Settings, TowersPupil
from rewrite.simulators.tuning import Judged
from rewrite.simulators.tuning import tune as learn
from rewrite.subject.loading import check_device
from rewrite.text.windows import Text

__all__ = ["Settings", "build", "tune"]

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
    """See the module."""

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
        for place, tower in enumerate(self.towers):
            for own, queries in tower.queries:
                values[:, list(own)] = read(tower.head, there, queries)
                reader[list(own)] = place
        values[values < LEAST] = 0
        alone = [read(tower.head, there, tower.unread) for tower in self.towers]
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
    """The simulator with the heads that the run tuned; the truth is not looked at."""
    if settings.adapter:
        folds = [(check_reader("towers", settings.adapter, describe(settings)), frozenset(range(latents)))]
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
    missing = {latent: "no explanation" for latent in range(latents) if latent not in texts}
    missing |= {e.latent: e.why or "no explanation" for e in explanations if e.text is None}
    return Towers(states, towers, latents, missing)


def tune(
    lessons: Lessons,
    settings: Settings,
    config: TuneConfig,
    open_learner: Callable[[str], Learner],
    folder: Path,
    made: Mapping[str, object],
    say: Callable[[int, Judged], None],
) -> None:
    """Tune every fold's head that is not there (`rewrite.simulators.base`)."""
    library: Library | None = None
    for fold, place in unfinished(folder, config.folds):
        library = library or Library(_open_states(settings), lessons)
        pupil = TowersPupil(settings, library, config.seed)
        learn(pupil, lessons, fold, config, place, partial(say, fold))
        write_json(place / READER, describe(settings).describe(made))


def describe(settings: Settings) -> Learned:
    """What a head must have in common with who reads with it."""
    own = hash_value([settings.layers, settings.hidden, settings.rank])
    return Learned(settings.model, fingerprint_model(settings.model), own)


@lru_cache(maxsize=1)
def _open_states(settings: Settings) -> States:
    """The model that reads, as the transformers engine shows it."""
    check_device("simulators.towers.device", settings.device)
    engine = transformers.Settings(device=settings.device, batch=16)
    return transformers.read_states(settings.model, engine, settings.layers)
