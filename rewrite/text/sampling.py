"""What is simulated where not everything can be paid for: seeded draws of latents, documents, windows, positions.

Every draw depends on the seed and on what it is drawn from, never on how a split is cut into shards, so that a stage
can make it again shard by shard. What is not asked is neither written nor scored, in every arm alike.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from rewrite.config import Config, SampleConfig, UserError
from rewrite.text.windows import Text

LATENTS, DOCUMENTS, WINDOWS, POSITIONS, OTHERS, FULL = range(6)
SPLITS = {"calibrate": 0, "test": 1}
LEAST_FULL = 8
"""Fewest documents of a split that a simulator that screens is asked about in full: with fewer no loss is estimated
(`rewrite.statistics.paired.MINIMUM_DOCUMENTS`)."""


def draw_latents(config: SampleConfig, latents: int) -> Int[np.ndarray, " chosen"]:
    """The latents that are rewritten, sorted. Raises UserError for one that is named and is not there."""
    if isinstance(config.latents, int):
        return _draw(config.latents, latents, [config.seed, LATENTS])
    if not config.latents or max(config.latents) >= latents:
        named = f"{max(config.latents)}: the coder has latents 0 to {latents - 1:,}" if config.latents else "names none"
        raise UserError(f"sample.latents {named}; name some of those, or say how many")
    return np.unique(np.array(config.latents))


def draw_others(config: Config, latents: int) -> Int[np.ndarray, " chosen"]:
    """The latents that are explained only for a reader to learn from, sorted."""
    others = np.setdiff1d(np.arange(latents), draw_latents(config.sample, latents))
    drawn: np.ndarray = others[_draw(config.tune.latents, len(others), [config.tune.seed, OTHERS])]
    return drawn


def ask(
    text: Text, documents: Int[np.ndarray, " window"], split: str, count: int, config: SampleConfig
) -> Bool[np.ndarray, " position"]:
    """The positions of a shard that are simulated.

    `documents` says whose each window of `text` is; the split has `count` documents in all.
    """
    if not config.documents and not config.windows and config.positions == "all":
        return text.counted()
    number = SPLITS[split]
    chosen = _draw(config.documents, count, [config.seed, DOCUMENTS, number])
    asked = np.zeros(len(text.ids), dtype=bool)
    for document in np.intersect1d(documents, chosen):
        own = np.flatnonzero(documents == document)
        for window in own[_draw(config.windows, len(own), [config.seed, WINDOWS, number, int(document)])]:
            begin, end = text.starts[window : window + 2]
            place = [config.seed, POSITIONS, number, int(document), int(window - own[0])]
            asked[begin + _positions(config, int(end - begin), place)] = True
    counted: np.ndarray = asked & text.counted()
    return counted


def draw_full(split: str, count: int, config: SampleConfig, share: float, seed: int) -> Int[np.ndarray, " document"]:
    """The documents of a split, of `count` in all, about which a simulator that screens is asked in full: a share of
    those that are simulated, drawn without replacement, and at least `LEAST_FULL` where there are so many; sorted."""
    number = SPLITS[split]
    chosen = _draw(config.documents, count, [config.seed, DOCUMENTS, number])
    wanted = max(int(np.ceil(share * len(chosen))), LEAST_FULL)
    drawn: np.ndarray = chosen[_draw(wanted, len(chosen), [seed, FULL, number])]
    return drawn


def _positions(config: SampleConfig, length: int, seed: list[int]) -> Int[np.ndarray, " chosen"]:
    """Positions within a window: the last one has no next token, so a draw of few leaves it out."""
    if config.positions == "all":
        return np.arange(length)
    if config.positions == "last":
        return np.array([length - 2])
    return 1 + _draw(config.positions, max(length - 2, 0), seed)


def _draw(wanted: int, count: int, seed: list[int]) -> Int[np.ndarray, " chosen"]:
    """`wanted` of `count` numbers without replacement, sorted; all of them where 0 or too many are wanted."""
    if wanted == 0 or wanted >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:wanted])
