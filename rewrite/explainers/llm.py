"""A language model reads windows of text with a latent's activations and writes one sentence, on any engine.

1. `rewrite.explainers.exemplars` chooses windows: by quantile of their largest activation, the largest, or half of them
   firing and beside each one much like it in which the latent does not fire.
2. Tokens above `threshold` of their window's largest activation are marked <<so>>, and listed under the window with
   floor(10 · activation / the latent's largest activation), an integer from 0 to 10 (arXiv:2501.18838).
3. The prompt is `prompts/explain.jinja`; the sentence is what its answer has after [EXPLANATION]: in one line. Without
   a chain of thought an engine that can is given that beginning, and stops at the end of the line.
4. A sentence longer than `max_words` is cut there. An answer without a sentence is a missing explanation, with the
   reason and the answer; it is never made up. A latent that never fires on the evidence is said to, without a call.

The windows, marks and levels are the paper's. Its temperature is 0.7, where 0 is the default here; the words of the
prompt are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from rewrite.coder.activations import Evidence
from rewrite.config import Place, Section, UserError
from rewrite.engines.base import Answer, Engine, Fault, OpenEngine, Question
from rewrite.engines.prompting import fill, mark, show_token
from rewrite.explainers.answers import BEGIN, Form, parse
from rewrite.explainers.base import Explanation
from rewrite.explainers.exemplars import Exemplar, Firings, Numbers, Windows, by_maximum, by_quantile

NEVER = "Never active on the text seen."
LEVELS = 10
TOGETHER = 256
"""Latents whose prompts are handed to the engine at a time [latents]."""


class Settings(Section):
    """Settings under `explainers.llm`."""

    model: Place = ""
    """The language model: a folder, a GGUF file or a hub name, or the name that a server knows it by."""
    exemplars: Literal["quantile", "top", "contrastive"] = "quantile"
    """Which windows are shown: as many of each quantile of those in which the latent fires, those with the largest
    activation, or half by quantile and beside each one like it in which the latent does not fire."""
    windows: int = Field(40, ge=1)
    """Windows shown for a latent [windows]."""
    window: int = Field(32, ge=4)
    """Length of a window that is shown [tokens]."""
    quantiles: int = Field(10, ge=1)
    """Quantiles that windows are drawn from [quantiles]; no effect on `top`."""
    threshold: float = Field(0.2, ge=0, lt=1)
    """Tokens above this share of their window's largest activation are marked and listed."""
    min_windows: int = Field(1, ge=1)
    """A latent that fires in fewer windows has no explanation [windows]; the paper asks for 200."""
    few_shot: int = Field(3, ge=0, le=3)
    """Worked examples in the prompt [examples]."""
    chain_of_thought: bool = False
    """Let the model think before it answers."""
    temperature: float = Field(0.0, ge=0)
    """Temperature of the answers."""
    seed: int = Field(0, ge=0)
    """Names the draws of windows, and of answers at a temperature above 0."""
    max_words: int = Field(40, ge=0)
    """Longest explanation [words, as `count_prose` counts them]; asked for, and cut there; 0 is unlimited."""
    max_tokens: int = Field(0, ge=0)
    """Longest answer [tokens]; 0 is 4 for each of `max_words` (400 without a limit), and 1,000 more for a chain of
    thought."""

    @property
    def longest(self) -> int:
        """Longest answer [tokens]."""
        return self.max_tokens or (4 * self.max_words or 400) + 1000 * self.chain_of_thought


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


@dataclass(frozen=True)
class Chosen:
    """The windows shown of a latent: those in which it fires, and those in which it does not."""

    firing: Numbers
    silent: Numbers


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


class LanguageModelExplainer:
    """Asks an engine for every sentence."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings, self.engine = settings, engine

    def explain(self, evidence: Evidence, latents: Sequence[int]) -> Iterator[Explanation]:
        """See `Explainer.explain`."""
        windows = Windows(evidence, self.settings.window)
        for begin in range(0, len(latents), TOGETHER):
            yield from self._explain(windows, latents[begin : begin + TOGETHER])

    def _explain(self, windows: Windows, latents: Sequence[int]) -> Iterator[Explanation]:
        """Some latents: answers come in any order, and each is given out when those before it are there."""
        made = [self._ask(windows, latent) for latent in latents]
        ready = {place: one for place, one in enumerate(made) if isinstance(one, Explanation)}
        asked = [(place, one) for place, one in enumerate(made) if isinstance(one, Question)]
        due = 0
        for number, reply in self.engine.generate([question for _, question in asked]):
            place = asked[number][0]
            ready[place] = self._read(latents[place], reply, asked[number][1])
            while due in ready:
                yield ready.pop(due)
                due += 1
        for place in range(due, len(latents)):
            yield ready.get(place) or Explanation(latents[place], None, "not run: the engine gave no answer")

    def _ask(self, windows: Windows, latent: int) -> Question | Explanation:
        """What is asked about a latent; an explanation at once where too little can be shown of it."""
        settings = self.settings
        firings = windows.firings(latent)
        found = len(firings.windows)
        if not found:
            return Explanation(latent, NEVER)
        if found < settings.min_windows:
            limit = f"explainers.llm.min_windows = {settings.min_windows}"
            return Explanation(latent, None, f"too rare: fires in {found} windows of the text seen, fewer than {limit}")
        chosen = self._choose(windows, latent, firings)
        firing, silent = (
            [show(windows.show(latent, number), settings.threshold, firings.maximum) for number in numbers.tolist()]
            for numbers in (chosen.firing, chosen.silent)
        )
        messages = fill(
            "explain",
            firing=firing,
            silent=silent,
            few_shot=settings.few_shot,
            contrastive=settings.exemplars == "contrastive",
            chain_of_thought=settings.chain_of_thought,
            max_words=settings.max_words,
        )
        return Question(
            messages,
            max_tokens=settings.longest,
            answer="" if settings.chain_of_thought else BEGIN,
            temperature=settings.temperature,
            seed=settings.seed,
            # An engine that begins the answer itself may well begin it with an empty line.
            stop=("\n",) if self._begun else (),
        )

    def _choose(self, windows: Windows, latent: int, firings: Firings) -> Chosen:
        settings = self.settings
        count, quantiles, seed = settings.windows, settings.quantiles, settings.seed
        none = np.zeros(0, dtype=np.int64)
        match settings.exemplars:
            case "top":
                return Chosen(by_maximum(firings, count), none)
            case "quantile":
                return Chosen(by_quantile(firings, count, quantiles, seed, latent), none)
            case "contrastive":
                firing = by_quantile(firings, count - count // 2, quantiles, seed, latent)
                return Chosen(firing, windows.beside(firings, firing, count // 2))

    @property
    def _begun(self) -> bool:
        """Whether the engine gives the model the beginning of its answer."""
        return self.engine.can.begun and not self.settings.chain_of_thought

    def _read(self, latent: int, reply: Answer | Fault, question: Question) -> Explanation:
        if isinstance(reply, Fault):
            return Explanation(latent, None, reply.why)
        form = Form(self.settings.max_words, self.settings.chain_of_thought, self._begun)
        return parse(latent, reply, form, question.messages)


def build(settings: Settings, open_engine: OpenEngine) -> LanguageModelExplainer:
    """The explainer with its engine open. Raises UserError where no model is named."""
    if not settings.model:
        raise UserError("explainers.llm.model: not set; name a language model, a folder or a hub name")
    return LanguageModelExplainer(settings, open_engine(settings.model))
