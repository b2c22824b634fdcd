"""The three schemes on a real model: in process, and on a real server by token ids and as chat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from makers.servers import llama_server

from rewrite.engines.base import Engine
from rewrite.explainers.base import Explanation
from rewrite.run import plugins
from rewrite.simulators.base import Strengths
from rewrite.simulators.llm import Settings
from rewrite.simulators.llm.build import LanguageModelSimulator, choose_scheme
from rewrite.simulators.readers import Reader
from rewrite.text.windows import Text

pytestmark = pytest.mark.slow

WORDS = [["def", " main", "(", ")", ":", "\n"], ["1", "\t", "2", " <<", ">> ", "}"]]
VOCABULARY = tuple(dict.fromkeys(word for window in WORDS for word in window))
TEXT = Text(
    np.array([VOCABULARY.index(word) for window in WORDS for word in window], dtype=np.int32),
    np.array([0, 6, 12]),
    VOCABULARY,
)
EXPLANATIONS = [Explanation(0, "brackets and colons"), Explanation(1, "digits in a table")]


def open_engine(name: str, model: Path, **table: object) -> Engine:
    engine: Engine = plugins.load("engines", name).build(str(model), plugins.settings("engines", name, dict(table)))
    return engine


@pytest.fixture(scope="module")
def server(terse_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with llama_server(terse_model, tmp_path_factory.mktemp("llama")) as base_url:
        yield base_url


def simulate(engine: Engine, scheme: str, held: bool = False) -> Strengths:
    settings = Settings(model="m", scheme=scheme, held=held)  # type: ignore[arg-type]
    return LanguageModelSimulator(
        EXPLANATIONS, 2, choose_scheme(settings, engine), [Reader(engine, frozenset({0, 1}))]
    ).simulate(TEXT)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scheme", ["all_at_once", "last_token"])
def test_a_server_that_takes_token_ids_gives_the_same_strengths(scheme: str, terse_model: Path, server: str) -> None:
    here = simulate(open_engine("transformers", terse_model), scheme)
    there = simulate(open_engine("openai", terse_model, base_url=server, tokenizer=str(terse_model)), scheme)
    assert here.faults == there.faults == {}
    assert here.values.data.std() > 0.05, "strengths that are all alike would agree for nothing"
    np.testing.assert_allclose(there.values.toarray(), here.values.toarray(), atol=0.02)
    assert here.zero is not None and there.zero is not None
    np.testing.assert_allclose(there.zero, here.zero, atol=1e-3)


@pytest.mark.timeout(180)
def test_a_server_that_only_chats_serves_the_last_token(tiny_model: Path, tmp_path: Path) -> None:
    """The prompt is the server's own tokenizer's work, so the numbers are near those in process, not the same."""
    with llama_server(tiny_model, tmp_path) as server:
        strengths = simulate(open_engine("openai", tiny_model, base_url=server, logprobs=4096), "auto")
    assert strengths.faults == {}
    assert strengths.values.nnz == 20
    assert ((strengths.values.data > 0) & (strengths.values.data < 9)).all()


@pytest.mark.timeout(180)
def test_a_list_of_ratings_is_held_to_its_tokens_where_the_server_can(terse_model: Path, server: str) -> None:
    chat = open_engine("openai", terse_model, base_url=server, logprobs=0)
    strengths = simulate(chat, "auto", held=True)
    assert strengths.faults == {}
    ratings = strengths.values.data
    assert len(ratings) == 20 and set(ratings.tolist()) <= set(range(10))


@pytest.mark.timeout(180)
def test_a_model_that_cannot_write_a_list_is_missing_and_not_zero(terse_model: Path) -> None:
    strengths = simulate(open_engine("transformers", terse_model), "ratings_list")
    assert np.isnan(strengths.values.data).all() and len(strengths.values.data) == 20
    assert sum(strengths.faults.values()) == 20
    assert set(strengths.faults) <= {"truncated", "malformed", "wrong count"}
