"""Predictions of a language model a second: how a prompt is laid out, and what is computed once, is worth two digits.

The same explanations, window and model throughout, one prediction for each of both; the model is small and of random
weights or, where REWRITE_MODELS names a folder that has it, SmolLM2-135M, on fewer explanations:

(a) `last_token`, one call at a time, each prompt computed whole, as the paper's protocol asks it;
(b) `last_token` in batches, with what prompts begin with computed once;
(c) `all_at_once`, likewise: one prompt an explanation, all its branches in one pass;
(d) `towers`: the window is read once for all explanations, which were read before, and a head of its default size joins
    them.

(a) is timed on a sample. All are timed in turns, the least time of each counting, because a machine has moods.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import seconds
from rewrite.engines.base import Branches, Fault
from rewrite.engines.encoding import Encoder
from rewrite.engines.ledger import Spent
from rewrite.engines.transformers import Settings as EngineSettings
from rewrite.engines.transformers.build import read_states
from rewrite.run import plugins
from rewrite.simulators.schemes import AllAtOnce, LastToken, Scheme
from rewrite.simulators.towers.head import Head, read
from rewrite.simulators.towers.head import ask as ask_head
from rewrite.simulators.towers.learning import Settings

TOKENS, CONTEXT = 64, 32


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    explanations: int
    sample: int
    """Predictions of (a) that are timed, evenly spread over all."""
    rounds: int
    layers: tuple[int, ...]
    """What (d) reads."""


SMALL, REAL = Size(100, 40, 3, (0, 1)), Size(8, 16, 1, Settings().layers)


@dataclass(frozen=True)
class Way:
    """A way to make predictions, and what it took."""

    name: str
    work: Callable[[], Spent]
    predictions: int

    def measure(self) -> Rate:
        """Do it once."""
        spent: list[Spent] = []
        took = seconds(lambda: spent.append(self.work()), repeats=1)
        return Rate(self.predictions / took, spent[0].processed / self.predictions)


@dataclass(frozen=True)
class Rate:
    """How fast a way is."""

    predictions: float
    """Predictions a second."""
    tokens: float
    """Prompt tokens that go through the model for one prediction."""


def bench() -> Iterator[str]:
    """The transformers engine; and vLLM's where it is installed."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    real = Path(os.environ.get("REWRITE_MODELS", "")) / "smollm2"
    if os.environ.get("REWRITE_MODELS") and real.is_dir():
        yield from on_transformers(real, REAL)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tiny"
        recipe = runpy.run_path(str(Path(__file__).parent.parent / "tests" / "makers" / "tiny.py"))
        recipe["make_tiny"](model)
        yield from on_transformers(model, SMALL)
        if find_spec("vllm") is not None:
            yield from on_vllm(model)


def on_transformers(model: Path, size: Size) -> Iterator[str]:
    """Each way's speed, then its ratio to (a)."""
    last, at_once = (
        lay_out(model, scheme, size.explanations) for scheme in (LastToken(True, CONTEXT), AllAtOnce(True))
    )
    engine = open_engine("transformers", model)
    for request in (*last[:8], *at_once[:1]):
        ask(engine, [request])  # Libraries warm up.
    total = size.explanations * TOKENS
    sample = last[:: total // size.sample]
    ways = [
        Way(
            f"(a) last_token one call at a time, {len(sample)} of them",
            partial(one_by_one, engine, sample),
            len(sample),
        ),
        Way("(b) last_token batched, prefix reuse", partial(afresh, engine, last), total),
        Way("(c) all_at_once, prefix reuse", partial(afresh, engine, at_once), total),
        Way("(d) towers", build_towers(model, size), total),
    ]
    rates = [max(turns, key=lambda rate: rate.predictions) for turns in zip(*measure(ways, size.rounds), strict=True)]
    yield from lines(f"transformers, {model.name}", ways, rates)
    speed = [rate.predictions / rates[0].predictions for rate in rates]
    fewer = [rates[0].tokens / rate.tokens for rate in rates]
    yield (
        f"(b)/(a) {speed[1]:,.0f} times, with {fewer[1]:,.0f} times fewer tokens; "
        f"(c)/(a) {speed[2]:,.0f} times, with {fewer[2]:,.0f} times fewer; "
        f"(d)/(a) {speed[3]:,.0f} times, with {fewer[3]:,.0f} times fewer"
    )


def build_towers(model: Path, size: Size) -> Callable[[], Spent]:
    """Reading the window and scoring every explanation at each of its positions."""
    tokens, texts = take_material(model, size.explanations)
    settings = Settings(layers=size.layers)
    states = read_states(str(model), EngineSettings(), settings.layers)
    head = Head(states.width, settings.hidden, settings.rank)
    queries = ask_head(head, states.of_tokens(texts), states.width)

    def work() -> Spent:
        (text,) = states.of_pieces([tokens])
        read(head, text, [queries])
        return Spent(processed=len(tokens))

    work()
    return work


def on_vllm(model: Path) -> Iterator[str]:
    """One-token requests in lists, as vLLM serves every branch, with and without its cache of prefixes. One after the
    other: two models do not fit into one process. Without is timed on a sample."""
    requests = lay_out(model, AllAtOnce(True), SMALL.explanations)
    best = []
    for reuse in (False, True):
        engine = open_engine("vllm", model, prefix_reuse=reuse, max_model_len=4096)
        asked = requests if reuse else requests[:: len(requests) // 5]
        ask(engine, requests[1:2])  # Libraries warm up.
        way = Way(f"one-token requests, prefix reuse {reuse}", partial(ask, engine, asked), len(asked) * TOKENS)
        best.append(
            max((way.measure() for _ in range(1 if reuse else SMALL.rounds)), key=lambda rate: rate.predictions)
        )
        yield from lines("vllm", [way], best[-1:])
    yield f"vllm: prefix reuse is worth {best[1].predictions / best[0].predictions:.1f} times"


def measure(ways: Sequence[Way], rounds: int) -> list[list[Rate]]:
    """Every way in turns, several times."""
    return [[way.measure() for way in ways] for _ in range(rounds)]


def lines(engine: str, ways: Sequence[Way], rates: Sequence[Rate]) -> Iterator[str]:
    """What was measured, a line each."""
    for way, rate in zip(ways, rates, strict=True):
        yield f"{engine}: {way.name}: {rate.predictions:,.0f} predictions a second, {rate.tokens:,.1f} tokens for each"


def lay_out(model: Path, scheme: Scheme, explanations: int) -> list[Branches]:
    """The scheme's prompts for all explanations and one window of source code."""
    tokens, texts = take_material(model, explanations)
    asked = np.ones(TOKENS, dtype=bool)
    requests = [item.request for text in texts for item in scheme.ask(text, tokens, asked)]
    return [request for request in requests if isinstance(request, Branches)]


def take_material(model: Path, explanations: int) -> tuple[list[str], list[str]]:
    """The window's tokens, and explanations of much the same length."""
    tokenizer: Any = Encoder(str(model)).tokenizer
    source = Path(plugins.__file__).read_text(encoding="utf-8")
    ids = tokenizer(source, add_special_tokens=False)["input_ids"][200 : 200 + TOKENS]
    words = source.split()
    pairs = [(words[2 * number], words[2 * number + 1]) for number in range(explanations)]
    texts = [f"the word {first} in code about {second}, above all before a name" for first, second in pairs]
    return tokenizer.batch_decode([[token] for token in ids]), texts


def open_engine(name: str, model: Path, **table: Any) -> Any:
    """An engine without the cache of calls."""
    return plugins.load("engines", name).build(str(model), plugins.settings("engines", name, table))


def ask(engine: Any, requests: Sequence[Branches]) -> Spent:
    """Read them all; a fault would be a faster answer, so it ends the benchmark."""
    spent = Spent()
    for _, reading in engine.read(requests):
        if isinstance(reading, Fault):
            sys.exit(f"the benchmark failed: {reading.why}")
        spent += reading.spent
    return spent


def afresh(engine: Any, requests: Sequence[Branches]) -> Spent:
    """Read them all, nothing kept from before."""
    engine.forget()
    return ask(engine, requests)


def one_by_one(engine: Any, requests: Sequence[Branches]) -> Spent:
    """Every prompt by itself, computed whole."""
    return sum((afresh(engine, [request]) for request in requests), start=Spent())
