"""Texts in the planted language, in which the next word really depends on the units that fire.

Signs, quotes and brackets are laid out first, then the words are drawn from left to right."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from rewrite.commands.planted.language import (
    CONTENT,
    LATENTS,
    PAIRS,
    UNKNOWN,
    WINDOW,
    WORDS,
    Units,
    compile_latents,
    next_logits,
)


def draw_texts(count: int, seed: int) -> list[list[str]]:
    """Texts as lists of words, at most `WINDOW` long, all beginning with a new line; `seed` names the draw."""
    generator = np.random.default_rng([seed, 1])
    layouts = [_lay_out(generator) for _ in range(count)]
    units, logits = compile_latents(), next_logits() * np.array([latent.gain for latent in LATENTS])[:, None] / 9
    free = np.isin(WORDS, CONTENT)
    ids = np.array([[WORDS.index(word or UNKNOWN) for word in layout] for layout in layouts])
    for t in range(1, WINDOW):
        strengths = units.fire(_look(units, ids[:, :t]))
        drawn = np.where(free, strengths @ logits + generator.gumbel(size=(count, len(WORDS))), -np.inf).argmax(1)
        ids[:, t] = np.where(ids[:, t] == 0, drawn, ids[:, t])
    lengths = generator.integers(WINDOW // 2, WINDOW + 1, count)
    return [[WORDS[i] for i in row[:length]] for row, length in zip(ids, lengths, strict=True)]


def _lay_out(generator: np.random.Generator) -> list[str]:
    """A text's signs where they will stand, with an empty string for each word that is yet to be drawn."""
    layout: list[str] = []
    while len(layout) < WINDOW:
        layout.append("\n")
        for _ in range(generator.integers(1, 3)):
            layout += [""] * int(generator.integers(3, 8))
            for left, right in (("“", "”"), ("(", ")")):
                if generator.random() < 0.4:
                    layout += [left, *[""] * int(generator.integers(3, 7)), right]
                    layout += [""] * int(generator.integers(1, 3))
            layout += [",", *[""] * int(generator.integers(3, 6))] if generator.random() < 0.4 else []
            layout.append(".")
    return layout[:WINDOW]


def _look(units: Units, ids: Int[np.ndarray, "text position"]) -> Float[np.ndarray, "text feature"]:
    """The features of the last position of each text."""
    words = np.array(WORDS)[ids]
    nothing = np.full(len(words), "")
    now, before = words[:, -1], words[:, -2] if words.shape[1] > 1 else nothing
    before2 = words[:, -3] if words.shape[1] > 2 else nothing
    columns = []
    for feature in units.features:
        match feature.where:
            case "now":
                columns.append(now == feature.what)
            case "before":
                columns.append(before == feature.what)
            case "before2":
                columns.append(before2 == feature.what)
            case "near":
                columns.append((before == feature.what) | (before2 == feature.what))
            case "inside":
                left, right = PAIRS[feature.what]
                columns.append((words[:, :-1] == left).sum(1) > (words[:, :-1] == right).sum(1))
    return np.stack(columns, axis=1).astype(np.float64)
