"""Simulate: read the explanations, predict a strength for every latent at every counted position.

1. The latents that are rewritten, and the positions that are asked for, are drawn (`rewrite.text.sampling`; all by
   default).
2. The simulator sees the explanations and one shard of text at a time; its strengths are written as
   `rewrite.simulators.strengths` says. An interrupted run goes on from its last finished shard.
3. Shards are independent of each other, so that several workers may make them (`rewrite.run.parts`), each with a
   simulator of its own; whoever makes a shard leaves the same bytes and, until all are there, how much it met in the
   cache and how much failed and may be asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from rewrite.coder.activations import ActivationStore, Split
from rewrite.config import Config, UserError
from rewrite.engines.calls import Calls
from rewrite.engines.ledger import Planned
from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import load_explanations, suppose
from rewrite.run import plugins
from rewrite.run.arrays import load_arrays
from rewrite.run.files import remove
from rewrite.run.parts import Arrays, Share
from rewrite.run.store import Borrowed, Run
from rewrite.simulators.base import Peek, Simulator, Strengths
from rewrite.simulators.readers import check_unmet
from rewrite.simulators.strengths import save_simulator, save_strengths
from rewrite.text.sampling import ask, draw_full, draw_latents
from rewrite.text.windows import Text

MET = ".met"
"""The folder of what was met at each shard, which is there until all shards are."""


class TrueActivations:
    """The `Peek` of a run: what the collect stage stored for the shard at hand and the train split's maxima. Only the
    oracle, whose strengths are the truth, asks for the first."""

    def __init__(self, store: ActivationStore):
        self._store = store
        self._split, self._shard = store.calibrate, ""

    def show(self, split: Split, shard: str) -> None:
        """Say which shard's text is simulated next."""
        self._split, self._shard = split, shard

    @cached_property
    def maximum(self) -> Float[np.ndarray, " latent"]:
        """Each latent's largest activation on the train split."""
        highest = np.zeros(self._store.latents, dtype=np.float32)
        for _, shard in self._store.train.walk():
            np.maximum.at(highest, shard.activations.indices, shard.activations.data)
        return highest

    def __call__(self, text: Text) -> csr_array:
        """The true activations of the shard at hand."""
        return self._split.load(self._shard).activations


def open_store(run: Run) -> ActivationStore:
    """The texts to simulate on, and the train split's maxima."""
    return ActivationStore(run.path("2_activations"), ("train", "calibrate", "test"))


def run(config: Config, run: Run) -> None:
    """Write `4_simulations`."""
    with Calls(config, run, "simulate") as calls, run.writing("4_simulations", resumable=True) as folder:
        maker = open_maker(config, run, calls, folder)
        adapter: str = getattr(plugins.chosen("simulator", config), "adapter", "")
        if adapter:
            coder = run.manifest["artefacts"]["1_coder"]["sha256"]
            check_unmet(config.simulator, adapter, coder, maker.chosen.tolist())
        calls.latents = len(maker.chosen)
        parts = folder / MET
        parts.mkdir(exist_ok=True)
        # No forks: an engine's threads are not theirs, and patterns gain nothing, as each fork meets all words anew.
        share = Share(config, parts, "shards", forks=False, check=partial(check_elsewhere, config))
        before = set(parts.iterdir())
        try:
            met = list(share(make_shard, maker, dict.fromkeys(maker.splits, 1), "simulate"))
        finally:
            made = set(parts.glob("*.safetensors")) - before if config.executor != "local" else set()
            calls.met.cached += sum(int(load_arrays(part)["cached"].sum()) for part in made)
        run.unanswered = sum(int(part["failed"].sum()) for part in met)
        remove(parts)
        rewritten = maker.chosen if len(maker.chosen) < maker.store.latents else None
        save_simulator(folder, config.simulator, maker.simulator.scale, rewritten)


@dataclass(frozen=True)
class Maker:
    """Makes shards, one after the other, with a simulator that was opened once; another process opens its own."""

    config: Config
    run: Run
    store: ActivationStore
    truth: TrueActivations
    simulator: Simulator
    calls: Calls
    folder: Path
    chosen: Int[np.ndarray, " chosen"]
    """The latents that are rewritten."""

    @cached_property
    def splits(self) -> dict[str, Split]:
        """Of every shard, by its name."""
        return {shard: split for split, shard in _shards(self.store)}

    def __reduce__(self) -> tuple[Callable[..., Maker], tuple[str, str, str]]:
        run, folder = (str(path.resolve()) for path in (self.run.folder, self.folder))
        return open_elsewhere, (run, folder, self.config.model_dump_json())


def make_shard(maker: Maker, shard: str) -> Arrays:
    """Write a shard; what was met of it."""
    split, calls = maker.splits[shard], maker.calls
    cached, failed = calls.met.cached, calls.run.unanswered
    maker.truth.show(split, shard)
    text = asked_text(maker.config, split, shard)
    save_strengths(maker.folder, shard, _only(maker.simulator.simulate(text), maker.chosen), text)
    return {"cached": np.array([calls.met.cached - cached]), "failed": np.array([calls.run.unanswered - failed])}


def open_maker(config: Config, run: Run, calls: Calls, folder: Path) -> Maker:
    """What makes the run's shards in a folder."""
    store = open_store(run)
    truth = TrueActivations(store)
    chosen = draw_latents(config.sample, store.latents)
    return Maker(config, run, store, truth, open_own(config, run, store, truth, calls), calls, folder, chosen)


def open_elsewhere(run: str, folder: str, config: str) -> Maker:
    """What makes shards of a run that another process has locked. Its calls end with this process: each is in the
    ledger when it is made."""
    own, borrowed = Config.model_validate_json(config), Borrowed(Path(run))
    return open_maker(own, borrowed, Calls(own, borrowed, "simulate"), Path(folder))


def check_elsewhere(config: Config, machines: int) -> None:
    """Refuse workers, for a simulator that calls a language model, where they would share what only one can keep: a
    budget, or, on several machines, the ledger of the run."""
    if not plugins.asked_model("simulator", config):
        return
    limits = [name for name in ("max_calls", "max_tokens", "max_cost") if getattr(config.calls, name)]
    if limits:
        raise UserError(f"calls.{limits[0]}: several workers cannot keep to one budget; set executor = local")
    if machines > 1:
        raise UserError(
            f"executor = {config.executor}: {machines} machines cannot share the ledger of a run's calls; set executor "
            "= processes, or serve the model on all of them and name the servers in engines.openai.base_url"
        )


def plan(config: Config, run: Run, awaited: frozenset[str]) -> Planned:
    """What simulating would cost at most; explanations that are not there yet are supposed, and where no reader is
    tuned yet its model stands for it."""
    if not getattr(plugins.chosen("simulator", config), "calls", True):
        return Planned()
    store = open_store(run)
    if "explain" not in awaited:
        explanations = load_explanations(run.path("3_explanations.jsonl"))
    else:
        explanations = suppose(config, draw_latents(config.sample, store.latents).tolist())
    tunes = plugins.learns(config)
    tuned = run.path("4_reader") if tunes and "tune" not in awaited else None
    met = _count(config, run, store, explanations, tuned)
    if tunes and tuned is None:
        # Every reader reads all texts without an explanation; the stand-in did so once.
        for _ in range(config.tune.folds - 1):
            met.planned += _count(config, run, store, (), None).planned
    return met


def _count(
    config: Config, run: Run, store: ActivationStore, explanations: Sequence[Explanation], tuned: Path | None
) -> Planned:
    """What these explanations would cost."""
    with Calls(config, run, "simulate", dry=True) as calls:
        simulator = open_simulator(config, store, explanations, TrueActivations(store), calls, tuned)
        for split, shard in _shards(store):
            simulator.simulate(asked_text(config, split, shard))
        return calls.met


def open_own(config: Config, run: Run, store: ActivationStore, truth: Peek, calls: Calls) -> Simulator:
    """The run's simulator with the run's explanations, and with its readers where it tunes some."""
    explanations = load_explanations(run.path("3_explanations.jsonl"))
    tuned = run.path("4_reader") if plugins.learns(config) else None
    return open_simulator(config, store, explanations, truth, calls, tuned)


def open_simulator(
    config: Config,
    store: ActivationStore,
    explanations: Sequence[Explanation],
    truth: Peek,
    calls: Calls,
    tuned: Path | None = None,
) -> Simulator:
    """The simulator that the config names, given the explanations of the latents that are rewritten, and what was tuned
    of it."""
    chosen = set(draw_latents(config.sample, store.latents).tolist())
    settings = plugins.settings("simulators", config.simulator, config.simulators.get(config.simulator, {}))
    simulator: Simulator = plugins.load("simulators", config.simulator).build(
        [e for e in explanations if e.latent in chosen],
        *(store.latents, settings, truth, calls.open),
        *(() if tuned is None else (tuned,)),
    )
    return simulator


def asked_text(config: Config, split: Split, shard: str) -> Text:
    """The text of a shard with the positions that are simulated and, for a simulator that screens, those about which it
    is asked in full."""
    loaded, documents = split.load(shard), len(split.names)
    text = replace(loaded.text, asked=ask(loaded.text, loaded.documents, split.name, documents, config.sample))
    settings = plugins.chosen("simulator", config)
    share: float = getattr(settings, "audits", 0.0)
    if not share:
        return text
    seed: int = getattr(settings, "audit_seed", 0)
    full = np.isin(loaded.documents, draw_full(split.name, documents, config.sample, share, seed))
    return replace(text, full=np.repeat(full, np.diff(text.starts)))


def _shards(store: ActivationStore) -> list[tuple[Split, str]]:
    """Every shard with its split."""
    return [(split, shard) for split in (store.calibrate, store.test) for shard in split.shards]


def _only(strengths: Strengths, chosen: Int[np.ndarray, " chosen"]) -> Strengths:
    """Without a word about latents that are not rewritten: they are neither missing nor 0."""
    kept = set(chosen.tolist())
    return replace(strengths, missing={k: why for k, why in strengths.missing.items() if k in kept})
