"""Screens: what passes is asked as if all were, what is held back has no entry, the audit is asked in full."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.fake_engine import FakeEngine
from scipy.sparse import csr_array

from rewrite.config import UserError
from rewrite.engines.base import Branches, Fault, Question
from rewrite.explainers.base import Explanation
from rewrite.run import plugins
from rewrite.simulators.base import Strengths
from rewrite.simulators.llm import Settings
from rewrite.simulators.llm.build import LanguageModelSimulator
from rewrite.simulators.readers import Reader
from rewrite.simulators.schemes import AllAtOnce, LastToken, RatingsList, Scheme
from rewrite.simulators.screens import embedding, patterns
from rewrite.simulators.strengths import Simulations, save_strengths
from rewrite.text.windows import Text

WORDS = (" the", " cat", " sat", " on", " a", " mat")
LATENTS = 4
EXPLAINED = [Explanation(0, "a cat"), Explanation(1, None, "no idea"), Explanation(3, "a mat")]
SCHEMES: dict[str, Scheme] = {
    "all_at_once": AllAtOnce(True),
    "last_token": LastToken(True, 8),
    "ratings_list": RatingsList(0.0, 0, False),
}


def text_of(windows: int = 4, length: int = 6) -> Text:
    ids = np.random.default_rng(0).integers(0, len(WORDS), windows * length).astype(np.int32)
    asked = np.random.default_rng(1).random(len(ids)) < 0.7
    return Text(ids, np.arange(0, len(ids) + 1, length), WORDS, asked)


def answer(question: Question) -> str:
    tokens = json.loads(question.messages[-1].content.rpartition("\n\nTokens: ")[2])
    return json.dumps([[token, len(token) % 10] for token in tokens])


class Planted:
    """Lets the planted pairs through."""

    def __init__(self, passing: np.ndarray) -> None:
        self.passing = passing

    def passes(self, text: Text) -> csr_array:
        return csr_array(self.passing)


def simulate(
    text: Text, scheme: Scheme, passing: np.ndarray | None = None, engine: FakeEngine | None = None
) -> Strengths:
    """What the simulator says with a screen that lets the planted pairs through, positions × explained latents."""
    engine = engine or FakeEngine(answer=answer)
    simulator = LanguageModelSimulator(EXPLAINED, LATENTS, scheme, [Reader(engine, frozenset(range(LATENTS)))])
    if passing is not None:
        simulator.screen, simulator._screen = "planted", Planted(passing)
    return simulator.simulate(text)


def saved(folder: Path, strengths: Strengths, text: Text) -> list[bytes]:
    save_strengths(folder, "test-00000", strengths, text)
    return [(folder / f"test-00000.{ending}").read_bytes() for ending in ("safetensors", "json")]


def entries(matrix: csr_array) -> dict[tuple[int, int], float]:
    rows, columns = matrix.tocoo().coords
    return {(int(r), int(c)): float(v) for r, c, v in zip(rows, columns, matrix.data, strict=True)}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_screen_that_lets_all_through_changes_no_byte(name: str, tmp_path: Path) -> None:
    text = text_of()
    without = simulate(text, SCHEMES[name])
    with_one = simulate(text, SCHEMES[name], np.ones((len(text.ids), 2)))
    assert with_one.screened is not None and with_one.screened.audit.nnz == 0
    assert saved(tmp_path, replace(with_one, screened=None), text) == saved(tmp_path, without, text)


@pytest.mark.parametrize("name", ["all_at_once", "last_token"])
@given(seed=st.integers(0, 2**16), share=st.sampled_from([0.0, 0.1, 0.5]))
def test_what_passes_is_answered_as_if_all_were_asked(name: str, seed: int, share: float) -> None:
    text, generator = text_of(), np.random.default_rng(seed)
    passing = generator.random((len(text.ids), 2)) < share
    full = np.repeat(generator.random(len(text.starts) - 1) < 0.5, np.diff(text.starts))
    engine = FakeEngine()
    everything = entries(simulate(text, SCHEMES[name]).values)
    said = simulate(replace(text, full=full), SCHEMES[name], passing, engine)
    assert said.screened is not None
    wanted = {(p, latent) for p in np.flatnonzero(text.counted()) for c, latent in enumerate((0, 3)) if passing[p, c]}
    audit = {pair for pair in everything if pair not in wanted and full[pair[0]]}
    assert entries(said.values) == {pair: everything[pair] for pair in wanted}
    assert entries(said.screened.audit) == {pair: everything[pair] for pair in audit}
    assert said.screened.pairs == len(everything)
    asked = [len(request.pieces) - len(request.silent) for request in engine.asked if isinstance(request, Branches)]
    assert sum(asked) == len(wanted) + len(audit) and 0 not in asked, "nothing is asked of whom nothing is wanted"


def test_a_list_of_ratings_is_asked_for_by_the_window() -> None:
    text, engine = text_of(), FakeEngine(answer=answer)
    passing = np.zeros((len(text.ids), 2))
    first = int(np.flatnonzero(text.counted())[0])
    passing[first, 1] = 1
    said = simulate(text, SCHEMES["ratings_list"], passing, engine)
    window = np.flatnonzero(text.counted()[: text.starts[1]])
    assert len(engine.asked) == 1 and set(entries(said.values)) == {(int(p), 3) for p in window}


def test_held_back_is_neither_missing_nor_a_predicted_zero(tmp_path: Path) -> None:
    text = replace(text_of(), full=np.repeat([True, False, False, False], 6))
    passing = np.zeros((len(text.ids), 2))
    counted = np.flatnonzero(text.counted())
    passing[counted[-3:], 0] = 1
    failing = FakeEngine(fail=lambda number: Fault("refusal", "no") if number == 1 else None)
    said = simulate(text, SCHEMES["last_token"], passing, failing)
    saved(tmp_path, said, text)
    simulations = Simulations(tmp_path, LATENTS)
    strengths = simulations.strengths("test-00000", len(text.ids))
    screened = simulations.screened("test-00000", len(text.ids))
    assert screened is not None and simulations.screen("test-00000") == {
        "by": "planted",
        "pairs": 2 * len(counted),
        "passed": 3,
        "audited": screened.audit.nnz,
    }
    assert strengths.nnz == 3 and np.isnan(strengths.data).sum() + np.isnan(screened.audit.data).sum() == 1
    assert simulations.missing(["test-00000"]) == {1: "no idea", 2: "no explanation"}
    assert set(np.flatnonzero(screened.full)) == set(np.flatnonzero(text.counted()[:6]))
    assert screened.audit.nnz == 2 * len(np.flatnonzero(text.counted()[:6]))


def test_rules_pass_where_they_apply_and_what_is_no_rule_passes_everywhere() -> None:
    told = ['Fires on "cat" (8); "mat" (2).', "something about cats", "Never fires."]
    text = text_of()
    explanations = [Explanation(10 + number, one) for number, one in enumerate(told)]
    passing = patterns.screen(explanations, Settings(screen="patterns")).passes(text).toarray() != 0
    words = np.array(WORDS)[text.ids]
    counted = text.counted()
    assert (passing[counted, 0] == np.isin(words, [" cat", " mat"])[counted]).all()
    assert passing[counted, 1].all() and not passing[:, 2].any()
    strong = patterns.screen(explanations, Settings(screen="patterns", screen_strength=5)).passes(text).toarray() != 0
    assert (strong[counted, 0] == (words == " cat")[counted]).all()


def test_an_embedding_passes_what_is_alike_whatever_stands_beside_it(tiny_model: Path) -> None:
    told = [Explanation(0, " cat"), Explanation(1, "words such as def and return")]
    text, counted = text_of(), text_of().counted()

    def passes(least: float, shown: Text = text) -> np.ndarray:
        settings = Settings(screen="embedding", screen_cosine=least, screen_model=str(tiny_model))
        found: np.ndarray = embedding.screen(told, settings).passes(shown).toarray() != 0
        return found

    assert passes(-1.0)[counted].all() and not passes(-1.0)[~counted].any()
    some = passes(0.2)
    assert 0 < some.sum() < 2 * counted.sum() and (passes(0.1) >= some).all()
    half = Text(text.ids[:12], text.starts[:3], WORDS, counted[:12])
    assert (passes(0.2, half) == some[:12]).all()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"screen": "pattern"}, r"screen = pattern: no such screen; did you mean patterns\?"),
        ({"screen": "embedding"}, r"simulators\.llm\.screen_model: not set"),
    ],
)
def test_what_cannot_screen_is_told_in_one_line(settings: dict[str, object], told: str) -> None:
    chosen = Settings.model_validate(settings)
    with pytest.raises(UserError, match=told) as caught:
        LanguageModelSimulator(EXPLAINED, LATENTS, SCHEMES["last_token"], [], screening=chosen)
    assert "\n" not in str(caught.value)


def test_an_audit_is_never_left_out() -> None:
    with pytest.raises(UserError, match=r"simulators\.llm\.audit: .*greater than 0"):
        plugins.settings("simulators", "llm", {"screen": "patterns", "audit": 0})
    for key, value in (("screen_strength", 0), ("screen_cosine", 3)):
        with pytest.raises(UserError, match=rf"simulators\.llm\.{key}: "):
            plugins.settings("simulators", "llm", {key: value})
    assert Settings().audits == 0 and Settings(screen="patterns").audits == 0.1
