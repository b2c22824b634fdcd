"""How a latent is shown to a language model that explains it.

`windows`    Paulo & Belrose (2025): whole windows, the tokens that the latent fires on between << and >> and listed
             below with floor(10 · activation / the latent's largest activation), an integer from 0 to 10. About 45
             tokens a window of 32.
`contexts`   for small models, which copy the worked examples of the other: of each window the strongest token with the
             few before it, in one line, then the marked tokens of all windows, the strongest first. The answer is
             begun as far as "It responds to". About 12 tokens a window.

Both mark tokens above `threshold` of their window's largest activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rewrite.engines.prompting import mark, show_line, show_token
from rewrite.explainers.answers import BEGIN
from rewrite.explainers.exemplars import Exemplar

LEVELS = 10
BEFORE = 8
"""Tokens shown before the strongest one by `contexts` [tokens]."""
WORDS = 12
"""Most words listed by `contexts`."""


@dataclass(frozen=True)
class Seen:
    """The windows that are shown of a latent: those in which it fires, those in which it does not."""

    firing: Sequence[Exemplar]
    silent: Sequence[Exemplar]
    maximum: float
    """The latent's largest activation."""


@dataclass(frozen=True)
class Row:
    """A line under a window: a marked token as it is shown, and its level."""

    token: str
    level: int


@dataclass(frozen=True)
class Shown:
    """A window as the prompt shows it."""

    text: str
    rows: tuple[Row, ...]


def show(exemplar: Exemplar, threshold: float, maximum: float) -> Shown:
    """A window with its strong tokens marked and listed; `maximum` is the latent's largest activation."""
    active = exemplar.activations.astype(np.float64)
    marked = active > threshold * active.max(initial=0)
    rows = [
        Row(show_token(exemplar.tokens[i]), min(int(LEVELS * active[i] / maximum), LEVELS))
        for i in np.flatnonzero(marked)
        if exemplar.tokens[i]  # A piece of a character shows nothing by itself.
    ]
    return Shown(mark(exemplar.tokens, marked.tolist()), tuple(rows))


def show_context(exemplar: Exemplar, place: int) -> str:
    """A token, marked, with the few before it, in one line."""
    tokens = exemplar.tokens[max(0, place - BEFORE) : place + 1]
    return show_line(mark(tokens, [False] * (len(tokens) - 1) + [True]))


class Layout(Protocol):
    """A way to show windows: the name of its template, how the answer begins, and the template's values."""

    template: str
    begun: str

    def show(self, seen: Seen, threshold: float) -> dict[str, object]:
        """The values that the template wants."""
        ...


class AsWindows:
    """See the module's docstring; the values of `prompts/explain.jinja`."""

    template, begun = "explain", BEGIN

    def show(self, seen: Seen, threshold: float) -> dict[str, object]:
        """See `Layout.show`."""
        return {
            "firing": [show(exemplar, threshold, seen.maximum) for exemplar in seen.firing],
            "silent": [show(exemplar, threshold, seen.maximum) for exemplar in seen.silent],
        }


class AsContexts:
    """See the module's docstring; the values of `prompts/explain_contexts.jinja`."""

    template, begun = "explain_contexts", f"{BEGIN} It responds to"

    def show(self, seen: Seen, threshold: float) -> dict[str, object]:
        """See `Layout.show`."""
        strongest: dict[str, int] = {}
        for exemplar in seen.firing:
            for row in show(exemplar, threshold, seen.maximum).rows:
                word = row.token.strip(" ") or row.token
                strongest[word] = max(strongest.get(word, 0), row.level)
        lines = [show_context(exemplar, int(np.argmax(exemplar.activations))) for exemplar in seen.firing]
        return {
            "firing": list(dict.fromkeys(lines)),
            "words": sorted(strongest, key=lambda word: -strongest[word])[:WORDS],
            "silent": [show_line(mark(e.tokens, [False] * len(e.tokens))) for e in seen.silent],
        }


LAYOUTS: dict[str, Layout] = {"windows": AsWindows(), "contexts": AsContexts()}
