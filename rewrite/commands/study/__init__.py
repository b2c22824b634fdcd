"""A rewrite in Python, step by step: `rewrite.study`.

    import rewrite

    study = rewrite.study(model, tokenizer, hookpoint="layers.1.mlp", run="runs/mine")
    study.coder                         # trained, or the one that was given
    study.latent(5)                     # the text on which it fires most
    study.explain(5)                    # the same with its explanation
    study.simulate(5, "for i in range(3):")
    study.calibrate().apply(5, [0, 4.5, 9])
    study.score("simulated")            # what one arm loses
    study.losses().to_pandas()
    study.verdict()

A study is a config and a run folder, and each step runs the stages that it needs and that are not fresh, by the same
runner as the command line: nothing is computed in a second way, a step that was done in another session is not done
again, and `rewrite status`, `compare` and `export` work on the folder. What is asked of one latent, one text or one arm
calls what the stage calls for all of them.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from rewrite.arms.batches import fit
from rewrite.coder.activations import ActivationStore, Shard
from rewrite.coder.coder import Coder
from rewrite.coder.evidence import Evidence, gather_evidence
from rewrite.coder.files import load_coder
from rewrite.commands.study.given import Given, copy_run
from rewrite.commands.study.reading import read_explanation, read_latent
from rewrite.commands.study.shown import Calibration, Latent, Reading, Scored, Verdict
from rewrite.config import Config, Control, UserError
from rewrite.engines.calls import Calls
from rewrite.explainers.base import Explanation
from rewrite.explainers.exemplars import Windows, by_maximum
from rewrite.explainers.explanations import load_explanations
from rewrite.run import plugins
from rewrite.run.configs import change_config
from rewrite.run.files import hash_value, read_json
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.stages import STAGES
from rewrite.stages.collect import Looker
from rewrite.stages.evaluate import open_scorer, train_frequencies
from rewrite.stages.explain import open_explainer
from rewrite.subject.subject import Subject, load_subject
from rewrite.text.windows import cut_windows, token_strings

Row = dict[str, Any]

SHOWN, LENGTH = 10, 32
"""Windows that a latent shows, and their length [tokens]."""


@dataclass(frozen=True, eq=False)
class Study:
    """A config and a run folder; build one with `rewrite.study`. Each step does what it needs and is not done yet."""

    config: Config
    folder: Path
    _reached: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    """By stage, a hash of the artefacts that were there when all up to it were fresh."""
    _open: list[Run] = field(default_factory=list, init=False, repr=False)
    """The run folder while it is locked: a step within a step works in it too."""

    def but(
        self,
        *,
        hookpoint: str | None = None,
        texts: str | Sequence[str] | None = None,
        coder: Coder | str | Path | None = None,
        explanations: Mapping[int, str] | str | Path | None = None,
        simulator: str | type | None = None,
        run: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Study:
        """The same study with something else in it, as in `rewrite.study`; the stages that depend on it run again.

        With another `run` this one's folder stays as it is, and what is finished in it is copied to a new folder.
        """
        folder = Path(run) if run is not None else self.folder
        copy_run(self.folder, folder)
        given = Given(None, None, hookpoint, texts, coder, explanations, simulator)
        named = given.name(folder, self.config.hookpoint)
        return Study(change_config(self.config, named | dict(settings or {})), folder)

    # --- the stages ---------------------------------------------------------------------------------------------------

    def run(self, last: str = STAGES[-1].name) -> Study:
        """Run the stages up to `last` that are not fresh; returns this study."""
        with self._upto(last):
            return self

    @contextmanager
    def _upto(self, last: str) -> Iterator[Run]:
        """The run folder, its stages up to `last` fresh. Another study on the same folder may have changed it."""
        with nullcontext(self._open[0]) if self._open else Run(self.folder, "in Python") as run:
            if self._reached.get(last) != hash_value(run.manifest["artefacts"]):
                go(STAGES, self.config, run, last, say)
                names = [stage.name for stage in STAGES]
                done = {*self._reached, *names[: names.index(last) + 1]}
                self._reached.update(dict.fromkeys(done, hash_value(run.manifest["artefacts"])))
            self._open.append(run)
            try:
                yield run
            finally:
                self._open.pop()

    # --- the subject and its coder ------------------------------------------------------------------------------------

    @cached_property
    def subject(self) -> Subject:
        """The model, its tokenizer and the module that is rewritten."""
        return load_subject(self.config)

    @cached_property
    def coder(self) -> Coder:
        """The sparse coder, trained where none was given (stage `train`)."""
        with self._upto("train") as run:
            return load_coder(run.path("1_coder"), self.config.hookpoint).to(self.subject.device)

    def coder_metrics(self) -> Row:
        """What the coder is worth on held-out text: the fields of `rewrite.coder.metrics.Metrics`."""
        with self._upto("train") as run:
            found: Row = read_json(run.path("1_coder") / "metrics.json")
            return found

    def encode(self, text: str) -> Shard:
        """A text of your own in windows, with every latent's true activations, positions × latents."""
        windows = cut_windows(text, self._looker.tokenizer, self.config.corpus)
        if not windows:
            raise UserError("text: fewer than 3 tokens; give a longer one")
        (shard,), _ = self._looker.encode([(0, window) for window in windows], token_strings(self._looker.tokenizer))
        return shard

    @cached_property
    def _looker(self) -> Looker:
        return Looker(self.config, (self.config.hookpoint,), [self.coder])

    # --- latents ------------------------------------------------------------------------------------------------------

    @cached_property
    def activations(self) -> ActivationStore:
        """The true activations on the three splits (stage `collect`)."""
        with self._upto("collect") as run:
            return ActivationStore(run.path("2_activations"), ("train", "calibrate", "test"))

    @cached_property
    def _evidence(self) -> Evidence:
        return gather_evidence(self.activations.train, at_once=None)

    @cached_property
    def _windows(self) -> Windows:
        return Windows(self._evidence, LENGTH)

    def latent(self, number: int) -> Latent:
        """A latent with its strongest windows of the train split. Raises UserError for a number that there is not."""
        if not 0 <= number < self.activations.latents:
            raise UserError(f"latent {number}: the coder has latents 0 to {self.activations.latents - 1:,}")
        firings = self._windows.firings(number)
        shown = tuple(self._windows.show(number, window) for window in by_maximum(firings, SHOWN).tolist())
        values = self._evidence.column(number).values
        density = float((values > 0).sum() / max(self._evidence.text.counted().sum(), 1))
        return Latent(number, density, firings.maximum, shown)

    def explain(self, number: int) -> Latent:
        """A latent with its windows and the explanation that the run's explainer writes, or the file has, of it."""
        latent = self.latent(number)
        if self.config.explain.file or "explain" in self._reached:
            with self._upto("explain") as run:
                written = load_explanations(run.path("3_explanations.jsonl"))
            one = next((e for e in written if e.latent == number), Explanation(number, None, "not rewritten"))
        else:
            with self._upto("collect") as run, Calls(self.config, run, "explain") as calls:
                (one,) = open_explainer(self.config, calls).explain(self._evidence, [number])
        return Latent(number, latent.density, latent.maximum, latent.windows, one)

    def explanations(self) -> pa.Table:
        """Every explanation (stage `explain`): `latent`, `text`, null where there is none, and `why`."""
        with self._upto("explain") as run:
            written = load_explanations(run.path("3_explanations.jsonl"))
        rows = [{"latent": one.latent, "text": one.text, "why": one.why} for one in written]
        return pa.Table.from_pylist(rows)

    # --- reading ------------------------------------------------------------------------------------------------------

    def simulate(self, explanation: int | str, text: str) -> Reading:
        """A text of your own as the run's simulator reads it.

        With an explanation as a string: what the simulator makes of that. With a latent's number: what it makes of the
        run's explanation of it (stage `explain`), the true activations beside it.
        """
        shard, tuned = self.encode(text), plugins.learns(self.config)
        if isinstance(explanation, str):
            with self._upto("collect") as run:
                return read_explanation(self.config, run, explanation, shard.text)
        with self._upto("tune" if tuned else "explain") as run:
            return read_latent(self.config, run, self.activations, explanation, shard)

    # --- arms and the verdict -----------------------------------------------------------------------------------------

    def calibrate(self) -> Calibration:
        """What strengths are worth (stage `simulate`, then the calibrate split alone)."""
        with self._upto("simulate") as run:
            simulations = Simulations(run.path("4_simulations"), self.activations.latents)
            return Calibration(fit(self.config, self.activations.calibrate, simulations), self.config.calibrator)

    def score(self, arm: str = "simulated", fraction: float = 1.0) -> Scored:
        """What one arm loses on the test split, `simulated` with this share of the latents simulated (stage `score`).

        Raises UserError for an arm that there is none of, naming those there are.
        """
        asked = {"evaluate.controls": [arm] if arm in get_args(Control) else [], "evaluate.fractions": [fraction]}
        config = change_config(self.config, asked | {"evaluate.random_seeds": 0})
        with self._upto("score") as run:
            simulations = Simulations(run.path("4_simulations"), self.activations.latents)
            fitted = fit(config, self.activations.calibrate, simulations)
            scorer = open_scorer(config, run, self.activations, simulations, fitted)
            one = scorer.only([arm])
            if not one.arms:
                there = dict.fromkeys([*(planned.arm.name for planned in scorer.arms), *get_args(Control)])
                raise UserError(f"arm {arm}: none of that name in this run; there are: {', '.join(there)}")
            tokens = train_frequencies(self.activations.train)
            return Scored(one.score(self.activations.test, simulations, tokens).losses)

    def scores(self) -> pa.Table:
        """How good each explanation is (stage `score`): `4_scores.parquet`."""
        return self._table("score", "4_scores.parquet")

    def losses(self) -> pa.Table:
        """Every arm's losses by test document (stage `evaluate`): `5_losses.parquet`; `.to_pandas()` where you like."""
        return self._table("evaluate", "5_losses.parquet")

    def costs(self) -> pa.Table:
        """What each latent's error costs (stage `cost`): `5_costs.parquet`."""
        return self._table("cost", "5_costs.parquet")

    def _table(self, stage: str, artefact: str) -> pa.Table:
        with self._upto(stage) as run:
            return pq.read_table(run.path(artefact))

    def verdict(self) -> Verdict:
        """What the tests say, with the ladder of arms (stage `analyse`)."""
        with self._upto("analyse") as run:
            return Verdict(read_json(run.path("6_stats.json")))

    def report(self) -> Path:
        """The page of the whole run (stage `report`), to be opened in a browser."""
        with self._upto("report") as run:
            return run.path("7_report") / "index.html"


def say(line: str) -> None:
    """Tell what is done; in a notebook, where what goes to stderr looks like an error, among what a cell prints."""
    print(line, file=sys.stdout if hasattr(builtins, "__IPYTHON__") else sys.stderr, flush=True)
