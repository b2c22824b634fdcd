"""The explainer: prompts, answers, trials of candidates and their revision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rewrite.coder.evidence import Evidence
from rewrite.config import UserError
from rewrite.engines.base import Answer, Engine, Fault, OpenEngine, Question
from rewrite.engines.prompting import Message, fill
from rewrite.explainers.answers import BEGIN, Form, parse
from rewrite.explainers.base import Explanation, Simulate, suppose_text
from rewrite.explainers.exemplars import Firings, Numbers, Windows, by_maximum, by_quantile
from rewrite.explainers.layouts import LAYOUTS, Seen
from rewrite.explainers.llm import Settings
from rewrite.explainers.taught import check_taught, learned_by
from rewrite.explainers.trials import Case, hold_back

NEVER = "Never active on the text seen."
TOGETHER = 256
"""Latents whose prompts are handed to the engine at a time [latents]."""


@dataclass(frozen=True)
class Chosen:
    """The windows shown of a latent: those in which it fires, and those in which it does not."""

    firing: Numbers
    silent: Numbers


class LanguageModelExplainer:
    """Asks an engine for every sentence."""

    def __init__(
        self, settings: Settings, engine: Engine, simulate: Simulate | None = None, taught: bool = False
    ) -> None:
        self.settings, self.engine, self.simulate = settings, engine, simulate
        self.layout = LAYOUTS[settings.layout]
        # Who was taught says the whole sentence; others need its beginning.
        self.beginning = "" if settings.chain_of_thought else BEGIN if taught else self.layout.begun

    def ask(self, windows: Windows, latents: Sequence[int]) -> list[tuple[int, Question]]:
        """The first question about each latent that enough can be shown of."""
        made = [self._open(windows, latent) for latent in latents]
        return [(one.latent, one.questions[0]) for one in made if isinstance(one, Case)]

    def explain(self, evidence: Evidence, latents: Sequence[int]) -> Iterator[Explanation]:
        """See `Explainer.explain`."""
        windows = Windows(evidence, self.settings.window)
        for begin in range(0, len(latents), TOGETHER):
            made = [self._open(windows, latent) for latent in latents[begin : begin + TOGETHER]]
            if self.settings.tries_out:
                yield from self._try_out(made)
            else:
                yield from self._explain(made)

    def _explain(self, made: Sequence[Case | Explanation]) -> Iterator[Explanation]:
        """Answers come in any order, and each is given out when those before it are there."""
        ready = {place: one for place, one in enumerate(made) if isinstance(one, Explanation)}
        asked = [(place, one.questions[0], one.latent) for place, one in enumerate(made) if isinstance(one, Case)]
        due = 0
        for number, reply in self.engine.generate([question for _, question, _ in asked]):
            place, question, latent = asked[number]
            ready[place] = self._read(latent, reply, question)
            while due in ready:
                yield ready.pop(due)
                due += 1
        for place in range(due, len(made)):
            one = made[place]
            latent = one.latent
            yield ready.get(place) or Explanation(latent, None, "not run: the engine gave no answer")

    def _try_out(self, made: Sequence[Case | Explanation]) -> Iterator[Explanation]:
        """Candidates, of which the simulator chooses, and revisions that it must like better."""
        cases = [one for one in made if isinstance(one, Case)]
        self._consider([(case, question) for case in cases for question in case.questions])
        for _ in range(self.settings.rounds):
            wrong = [case for case in cases if case.missed or case.false]
            before = [case.question for case in wrong]
            self._consider([(case, self._revise(case)) for case in wrong])
            for case, question in zip(wrong, before, strict=True):
                if case.question is question:  # The same errors would bring the same answer.
                    case.missed = case.false = ()
        yield from (one.answer if isinstance(one, Case) else one for one in made)

    def _consider(self, asked: Sequence[tuple[Case, Question]]) -> None:
        replies = dict(self.engine.generate([question for _, question in asked]))
        none = Fault("not run", "the engine gave no answer")
        found: dict[int, list[tuple[Question, Explanation]]] = {}
        cases = {case.latent: case for case, _ in asked}
        for number, (case, question) in enumerate(asked):
            read = self._read(case.latent, replies.get(number, none), question)
            found.setdefault(case.latent, []).append((question, read))
        for latent, own in found.items():
            cases[latent].consider(own, self.simulate)

    def _open(self, windows: Windows, latent: int) -> Case | Explanation:
        """What is asked about a latent; an explanation at once where too little can be shown of it."""
        settings = self.settings
        firings = windows.firings(latent)
        found = len(firings.windows)
        if not found:
            return Explanation(latent, NEVER)
        if found < settings.min_windows:
            limit = f"explainers.llm.min_windows = {settings.min_windows}"
            return Explanation(latent, None, f"too rare: fires in {found} windows of the text seen, fewer than {limit}")
        seeds = range(settings.seed, settings.seed + settings.candidates)
        chosen = [self._choose(windows, latent, firings, seed) for seed in seeds]
        questions = [
            self._ask(windows, latent, one, firings.maximum, seed) for one, seed in zip(chosen, seeds, strict=True)
        ]
        if not settings.tries_out:
            return Case(latent, questions, None)
        shown = np.concatenate([part for one in chosen for part in (one.firing, one.silent)])
        return Case(latent, questions, hold_back(windows, latent, shown, settings.trial_windows, settings.seed))

    def _ask(self, windows: Windows, latent: int, chosen: Chosen, maximum: float, seed: int) -> Question:
        settings = self.settings
        firing, silent = (
            [windows.show(latent, number) for number in numbers.tolist()] for numbers in (chosen.firing, chosen.silent)
        )
        messages = fill(
            self.layout.template,
            **self.layout.show(Seen(firing, silent, maximum), settings.threshold),
            examples=(np.random.default_rng([settings.seed, 3]).permutation(3)[: settings.few_shot] + 1).tolist(),
            contrastive=settings.exemplars == "contrastive",
            chain_of_thought=settings.chain_of_thought,
            max_words=settings.max_words,
        )
        return self._question(messages, seed)

    def _question(self, messages: tuple[Message, ...], seed: int) -> Question:
        return Question(
            messages,
            max_tokens=self.settings.longest,
            answer=self.beginning,
            temperature=self.settings.temperature,
            seed=seed,
            # An engine that begins the answer itself may well begin it with an empty line.
            stop=("\n",) if self._begun else (),
        )

    def _revise(self, case: Case) -> Question:
        """The question that the best explanation answered, that answer, and what a reader of it got wrong."""
        assert case.question is not None and case.best is not None, "errors are those of an explanation"
        said = Message("assistant", f"{BEGIN} {case.best.text}")
        revise = fill("explain_revise", missed=case.missed, false=case.false)
        return self._question((*case.question.messages, said, *revise), case.question.seed)

    def _choose(self, windows: Windows, latent: int, firings: Firings, seed: int) -> Chosen:
        count, quantiles = self.settings.windows, self.settings.quantiles
        none = np.zeros(0, dtype=np.int64)
        match self.settings.exemplars:
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
            if reply.kind == "not run" and self.simulate and self.settings.tries_out:
                # A dry run: what would be tried is priced too.
                return Explanation(latent, suppose_text(self.settings.max_words, f"{latent} {question.seed}"))
            return Explanation(latent, None, reply.why)
        form = Form(self.settings.max_words, self.settings.chain_of_thought, self._begun)
        return parse(latent, reply, form, question.messages)


def build(settings: Settings, open_engine: OpenEngine, simulate: Simulate | None = None) -> LanguageModelExplainer:
    """The explainer with its engine open. Raises UserError where no model is named."""
    if not settings.model:
        raise UserError("explainers.llm.model: not set; name a language model, a folder or a hub name")
    if not settings.adapter:
        return LanguageModelExplainer(settings, open_engine(settings.model), simulate)
    engine = open_engine(settings.model, settings.adapter)
    check_taught(settings.adapter, learned_by(settings.model, engine.identity, LAYOUTS[settings.layout].template))
    return LanguageModelExplainer(settings, engine, simulate, taught=True)
