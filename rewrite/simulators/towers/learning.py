"""How a head of `towers` learns: what a model holds of the train split, read once, and a pupil that draws from it.

A step takes some latents, positions at which each of them fires, and others, and scores every latent at all of these
positions. What is left out of an explanation, token by token, keeps a head from knowing latents by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from rewrite.config import TuneConfig
from rewrite.display.progress import bar
from rewrite.engines import learning
from rewrite.engines.base import States
from rewrite.engines.fingerprints import fingerprint_model
from rewrite.engines.learned import Learned
from rewrite.engines.learning import Step
from rewrite.run.files import hash_value
from rewrite.simulators.examples import Example, Lessons
from rewrite.simulators.towers import Settings
from rewrite.simulators.towers.head import Head, ask, pad, read

HEAD = "head.safetensors"
TOWERS = 7
"""Tells its draws from those of `rewrite.simulators.examples`."""


def learned_with(settings: Settings) -> Learned:
    """What a head must have in common with who reads with it."""
    shape = hash_value([settings.layers, settings.hidden, settings.rank])
    return Learned(settings.model, fingerprint_model(settings.model), shape)


class Material:
    """The states of texts and explanations that a head learns from, read once."""

    def __init__(self, states: States, lessons: Lessons) -> None:
        self.states = states
        windows = list(lessons.evidence.text.windows())
        self.text = np.concatenate(list(bar(states.of_pieces(windows), "read text", "windows", len(windows))))
        told = states.of_tokens(list(lessons.texts.values()))
        self.explanations = dict(zip(lessons.texts, told, strict=True))
        self.windows: dict[tuple[str, ...], Float[np.ndarray, "token width"]] = {}

    def window(self, tokens: Sequence[str]) -> Float[np.ndarray, "token width"]:
        """The states of a window that a head is judged on."""
        key = tuple(tokens)
        if key not in self.windows:
            self.windows[key] = next(iter(self.states.of_pieces([tokens])))
        return self.windows[key]


class TowersPupil:
    """A head that learns (`rewrite.simulators.tuning.Pupil`)."""

    def __init__(self, settings: Settings, material: Material, seed: int) -> None:
        torch.manual_seed(seed)
        self.settings, self.material, self.seed = settings, material, seed
        self.head = Head(material.states.width, settings.hidden, settings.rank).to(settings.device)
        some = material.text[:: max(1, len(material.text) // 4096)].astype(np.float32)
        self.head.spread.copy_(torch.from_numpy(np.sqrt((some**2).mean(0)) + 1e-6))
        self.weights = dict(self.head.named_parameters())
        self.optimizer = torch.optim.AdamW(self.head.parameters(), weight_decay=0.05)
        self.steps, self.tokens = 0, 0

    @property
    def learned(self) -> Learned:
        """See `Pupil.learned`."""
        return learned_with(self.settings)

    def spent(self, config: TuneConfig) -> float:
        """See `Pupil.spent`."""
        return self.steps / self.settings.steps

    def learn(self, lessons: Lessons, fold: int, step: int, rate: float) -> Step:
        """See `Pupil.learn`."""
        generator = np.random.default_rng([self.seed, TOWERS, fold, step])
        torch.manual_seed(int(generator.integers(1 << 62)))
        latents = generator.choice(lessons.teachers(fold), self.settings.latents).tolist()
        places, truth = self._draw(lessons, latents, generator)
        told = [self._leave_out(self.material.explanations[latent], lessons, generator) for latent in latents]
        self.head.train()
        queries = self.head.ask(*pad(told, self.material.states.width, self.settings.device))
        logits = self.head(self.head.hold(self._tensor(self.material.text[places])), queries)
        loss = F.binary_cross_entropy_with_logits(logits, self._tensor(truth.T))
        learning.step(loss, self.optimizer, rate)
        self.steps, self.tokens = self.steps + 1, self.tokens + len(places)
        return Step(float(loss.detach()), frozenset(latents))

    def _draw(
        self, lessons: Lessons, latents: Sequence[int], generator: np.random.Generator
    ) -> tuple[Int[np.ndarray, " place"], Float[np.ndarray, "place latent"]]:
        """Positions, and what each of the latents truly does there, as a share of its maximum."""
        own = [generator.permutation(lessons.column(latent)[0])[: self.settings.firings] for latent in latents]
        places = np.unique(np.concatenate([generator.choice(lessons.counted, self.settings.others), *own]))
        truth = np.zeros((len(places), len(latents)), dtype=np.float32)
        for number, latent in enumerate(latents):
            rows, values = lessons.column(latent)
            found = np.minimum(np.searchsorted(rows, places), len(rows) - 1)
            truth[:, number] = np.where(rows[found] == places, values[found] / values.max(), 0)
        return places, truth

    def _leave_out(
        self, told: Float[np.ndarray, "token width"], lessons: Lessons, generator: np.random.Generator
    ) -> Float[np.ndarray, "kept width"]:
        """An explanation without some of its tokens, now and then without any."""
        share = 1.0 if generator.random() < lessons.config.unread else self.settings.dropped
        return told[generator.random(len(told)) >= share]

    def read(self, groups: Sequence[Sequence[Example]]) -> list[Float[np.ndarray, " asked"]]:
        """See `Pupil.read`."""
        found = []
        for group in groups:
            told = self.material.explanations[group[0].latent]
            queries = ask(self.head, [told], self.material.states.width)
            for example in group:
                states = self.material.window(example.tokens)[example.asked]
                found.append(read(self.head, states, [queries])[0][:, 0].astype(np.float64))
        return found

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.settings.device)

    def save(self, folder: Path) -> None:
        """See `Pupil.save`."""
        from safetensors.torch import save_file

        save_file({name: one.contiguous() for name, one in self.head.state_dict().items()}, folder / HEAD)

    def keep(self, file: Path, told: dict[str, Any]) -> None:
        """See `Pupil.keep`."""
        learning.keep(file, self.weights, self.optimizer, {"steps": self.steps, "tokens": self.tokens, "told": told})

    def go_on(self, file: Path) -> dict[str, Any]:
        """See `Pupil.go_on`."""
        kept = learning.go_on(file, self.weights, self.optimizer)
        self.steps, self.tokens = kept["steps"], kept["tokens"]
        told: dict[str, Any] = kept["told"]
        return told
