"""What a reader is tuned on: never what it will read; what a lesson holds is the truth; budgets are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array
from scipy.stats import mannwhitneyu

from rewrite.coder.evidence import Evidence
from rewrite.config import TuneConfig, UserError
from rewrite.engines.learned import LEARNED, Learned
from rewrite.engines.learning import STATE, Step
from rewrite.explainers.base import Explanation
from rewrite.run.files import read_json, write_json
from rewrite.simulators.examples import LEAST, TOP, Example, Lessons, deal
from rewrite.simulators.readers import (
    FOLDS,
    check_folds,
    check_reader,
    check_unmet,
    layout,
    learned_by,
    name_fold,
)
from rewrite.simulators.tuning import READER, Judged, Pupil, area, tune
from rewrite.text.windows import Text

LATENTS, LENGTH, WINDOWS = 12, 50, 8
VOCABULARY = tuple(f" w{i}" for i in range(30))


def evidence(seed: int = 0) -> Evidence:
    """Latent i fires on some of the places of token i, with any strength; the last one never."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, len(VOCABULARY), LENGTH * WINDOWS)
    text = Text(ids, np.arange(0, LENGTH * WINDOWS + 1, LENGTH), VOCABULARY)
    dense = np.zeros((len(ids), LATENTS), dtype=np.float32)
    for latent in range(LATENTS - 1):
        places = np.flatnonzero((ids == latent) & text.counted())
        fired = random.permutation(places)[: max(LEAST, len(places) // 2)]
        dense[fired, latent] = random.uniform(0.5, 3, len(fired))
    return Evidence(text, csc_array(dense))


def lessons(seed: int = 0, rewritten: Sequence[int] = range(6), **changes: Any) -> Lessons:
    config = TuneConfig(**{"folds": 2, "window": 16, "positions": 6, "seed": seed, **changes})
    told = [Explanation(i, f"fires on w{i}") for i in range(LATENTS)]
    return Lessons(evidence(seed), told, np.array(rewritten), config)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 4), st.integers(0, 50))
def test_no_reader_meets_what_it_will_read(seed: int, folds: int, step: int) -> None:
    drawn = lessons(seed, folds=folds)
    for fold in range(folds):
        own = {latent for latent, of in drawn.folds.items() if of == fold}
        met = {example.latent for group in drawn.draw(fold, step) for example in group}
        held = {example.latent for group in drawn.hold_out(fold) for example in group}
        assert not met & own and held <= own
    counts = np.bincount(list(drawn.folds.values()), minlength=folds)
    assert counts.max() - counts.min() <= 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.integers(0, 50))
def test_a_lesson_holds_the_truth(seed: int, step: int) -> None:
    drawn = lessons(seed, unread=0.0)
    truth, text = drawn.evidence.activations.toarray(), drawn.evidence.text
    for group in drawn.draw(0, step):
        for example in group:
            shown = "".join(example.tokens)
            places = [p for p in range(len(text.ids)) if _tokens(text, p, len(example.tokens)) == shown]
            maximum = truth[:, example.latent].max()
            targets = [TOP * truth[p : p + len(example.tokens), example.latent] / maximum for p in places]
            assert any(np.allclose(t[example.asked], example.strengths, atol=1e-5) for t in targets)
            assert 1 <= example.asked.sum() <= 6 and example.explanation == f"fires on w{example.latent}"
        assert sum(bool((example.strengths > 0).any()) for example in group) >= len(group) // 2


def _tokens(text: Text, begin: int, count: int) -> str:
    return "".join(text.vocabulary[i] for i in text.ids[begin : begin + count])


def test_nothing_is_asked_where_no_window_counts() -> None:
    """The first token of a window is context only: nobody says what fires there."""
    drawn = lessons(window=LENGTH, positions=LENGTH)
    for step in range(20):
        assert all(not example.asked[0] for group in drawn.draw(0, step) for example in group)


def test_the_same_step_draws_the_same_and_another_draws_anew() -> None:
    first, again, other = (_plain(lessons().draw(0, step)) for step in (3, 3, 4))
    assert first == again != other
    assert first != _plain(lessons().draw(1, 3))


def _plain(groups: list[list[Example]]) -> list[tuple[int, tuple[str, ...], tuple[float, ...]]]:
    return [(e.latent, tuple(e.tokens), tuple(e.strengths.tolist())) for group in groups for e in group]


def test_some_examples_are_left_without_an_explanation() -> None:
    drawn = lessons(unread=0.5)
    texts = [group[0].explanation for step in range(40) for group in drawn.draw(0, step)]
    assert 20 < texts.count("") < 60
    assert all(example.explanation for group in drawn.hold_out(0) for example in group)


def test_one_fold_learns_from_those_that_are_not_rewritten_or_is_refused() -> None:
    assert set(lessons(folds=1).teachers(0)) <= set(range(6, LATENTS))
    with pytest.raises(UserError, match=r"tune\.folds = 1: no explained latent is left"):
        lessons(rewritten=range(LATENTS), folds=1).teachers(0)


def test_latents_that_hardly_fire_or_have_no_text_teach_nothing() -> None:
    told = [Explanation(i, None if i == 3 else "x") for i in range(LATENTS)]
    drawn = Lessons(evidence(), told, np.arange(6), TuneConfig())
    taught = {*drawn.teachers(0), *drawn.teachers(1)}
    assert 3 not in taught and LATENTS - 1 not in taught


def test_folds_are_even_and_named_by_the_seed() -> None:
    rewritten = np.arange(10)
    first = deal(rewritten, TuneConfig(folds=3))
    assert sorted(np.bincount(first)) == [3, 3, 4]
    assert (first == deal(rewritten, TuneConfig(folds=3))).all()
    assert (first != deal(rewritten, TuneConfig(folds=3, seed=1))).any()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=40))
def test_the_area_is_mann_and_whitneys(pairs: list[tuple[bool, int]]) -> None:
    fires, strengths = np.array([f for f, _ in pairs]), np.array([float(s) for _, s in pairs])
    found = area(fires, strengths)
    if fires.all() or not fires.any():
        assert found is None
    else:
        expected = mannwhitneyu(strengths[fires], strengths[~fires]).statistic / (fires.sum() * (~fires).sum())
        assert found == pytest.approx(expected)


@dataclass
class Parrot:
    """A pupil that only counts, to see what it is told."""

    learned: Learned = field(default_factory=lambda: Learned("parrot", "feathers", "perch"))
    tokens: int = 0
    met: set[int] = field(default_factory=set)
    rates: list[float] = field(default_factory=list)

    def spent(self, config: TuneConfig) -> float:
        return self.tokens / config.tokens if config.tokens else 0.0

    def learn(self, lessons: Lessons, fold: int, step: int, rate: float) -> Step:
        self.tokens += 100
        met = frozenset(example.latent for group in lessons.draw(fold, step) for example in group)
        self.met |= met
        self.rates.append(rate)
        return Step(1.0, met)

    def read(self, groups: Sequence[Sequence[Example]]) -> list[np.ndarray]:
        return [example.strengths.copy() for group in groups for example in group]

    def save(self, folder: Path) -> None:
        (folder / "saved").touch()

    def keep(self, file: Path, told: dict[str, Any]) -> None:
        write_json(file, told | {"tokens": self.tokens})

    def go_on(self, file: Path) -> dict[str, Any]:
        told: dict[str, Any] = read_json(file)
        self.tokens = told["tokens"]
        return told


def test_a_budget_of_tokens_is_kept_and_the_rate_rises_and_falls(tmp_path: Path) -> None:
    pupil, heard = Parrot(), list[Judged]()
    assert isinstance(pupil, Pupil)
    taught = lessons(tokens=10_000, every=30, held_out=3)
    tune(pupil, taught, 0, tmp_path / "fold", {"hookpoint": "layers.3.mlp"}, heard.append)
    assert read_json(tmp_path / "fold" / "reader.json") == vars(pupil.learned) | {"hookpoint": "layers.3.mlp"}
    assert pupil.tokens == 10_000
    assert [judged.step for judged in heard] == [0, 30, 60, 90, 100]
    assert heard[0].auc == 1.0 and heard[-1].correlation == pytest.approx(1)
    assert np.argmax(pupil.rates) in range(15, 25) and pupil.rates[-1] < 0.15 * taught.config.learning_rate
    learned = read_json(tmp_path / "fold" / LEARNED)
    assert set(learned["latents"]) == pupil.met
    assert not (tmp_path / "fold" / STATE).exists()


def test_a_budget_of_minutes_ends(tmp_path: Path) -> None:
    tune(Parrot(), lessons(tokens=0, minutes=0.005), 0, tmp_path / "fold", {}, lambda judged: None)
    assert (tmp_path / "fold" / "saved").exists()


def test_a_reader_that_learned_from_what_it_is_to_read_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / FOLDS, {"folds": {"4": 0, "7": 1}})
    for fold, met in enumerate([[7, 9], [4, 9]]):
        (tmp_path / name_fold(fold)).mkdir()
        write_json(tmp_path / name_fold(fold) / LEARNED, {"latents": met, "curve": []})
    assert [own for _, own in check_folds(tmp_path)] == [{4}, {7}]
    write_json(tmp_path / name_fold(1) / LEARNED, {"latents": [7], "curve": []})
    with pytest.raises(UserError, match="fold-1: this reader has learned from latent 7, which it is to read"):
        list(check_folds(tmp_path))


def test_latents_that_were_learned_from_are_not_read_by_all_readers_of_a_run(tmp_path: Path) -> None:
    """Latents without a fold are the teachers of every fold."""
    write_json(tmp_path / FOLDS, {"folds": {"0": 0, "1": 1}})
    for fold, met in enumerate([[1, 2, 3], [0, 2, 3]]):
        (tmp_path / name_fold(fold)).mkdir()
        write_json(tmp_path / name_fold(fold) / LEARNED, {"latents": met, "curve": []})
        write_json(tmp_path / name_fold(fold) / READER, {"coder": "this"})
    for latents, coder in (([0, 1], "this"), ([0, 1, 5], "this"), ([0, 2], "another"), ([], "this")):
        check_unmet("llm", str(tmp_path), coder, latents)
    with pytest.raises(
        UserError, match=r"simulators\.llm\.adapter = .*: 1 latents of this coder, 2 the first, would be"
    ):
        check_unmet("llm", str(tmp_path), "this", [0, 1, 2])
    check_unmet("llm", str(tmp_path / name_fold(0)), "this", [2])  # Named by itself: who names it knows it.


def test_an_adapter_is_refused_for_another_model_or_layout(tiny_model: Path, tmp_path: Path) -> None:
    def look(adapter: object, model: object = tiny_model) -> Path:
        return check_reader("llm", str(adapter), learned_by(str(model), {"model": f"hash of {model}"}))

    with pytest.raises(UserError, match=r"holds no reader\.json; name a folder that `rewrite tune` wrote"):
        look(tmp_path)
    with pytest.raises(UserError, match="adapter = /none: not there"):
        look("/none")
    with pytest.raises(UserError, match=r"adapter = no/body: no reader\.json there"):
        look("no/body")
    own = tmp_path / "fold-0"
    own.mkdir()
    learned = learned_by(str(tiny_model), {"model": f"hash of {tiny_model}"})
    write_json(own / "reader.json", vars(learned) | {"hookpoint": "layers.3.mlp"})
    assert look(own) == own
    with pytest.raises(UserError, match="name one of its folders: fold-0"):
        look(tmp_path)
    with pytest.raises(UserError, match=r"belongs to the model .*tiny, and simulators\.llm\.model = else holds other"):
        look(own, "else")
    said = read_json(own / "reader.json")
    write_json(own / "reader.json", said | {"layout": layout("enable_thinking=false")})
    with pytest.raises(UserError, match="learned another layout"):
        look(own)
