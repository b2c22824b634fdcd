"""Low-rank learning: a pack reads what its lessons would alone, a planted rule is learned, a kill changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float

from rewrite.config import UserError
from rewrite.engines.base import Branches, Lesson, Reading
from rewrite.engines.fingerprints import check_tunes
from rewrite.engines.prompting import Message
from rewrite.engines.transformers import Settings
from rewrite.engines.transformers.build import build, learn
from rewrite.engines.transformers.learner import LowRankLearner, share_out

SETTINGS = Settings()


def learner_of(model: Path, seed: int = 0) -> LowRankLearner:
    made = learn(str(model), SETTINGS, 4, seed)
    assert isinstance(made, LowRankLearner)
    return made


def lessons(count: int, seed: int = 0) -> list[list[Lesson]]:
    """Groups of two lessons; what should be said depends on the rule: 9 after its own word, 0 after another."""
    random = np.random.default_rng(seed)
    groups = []
    for _ in range(count):
        rule = str(random.choice(["cat", "dog"]))
        group = []
        for _ in range(2):
            words = random.choice(["cat", "dog"], 3).tolist()
            message = Message("user", f"Rule: {rule}")
            request = Branches((message,), tuple(f" {word}" for word in words), " =>")
            group.append(Lesson(request, np.array([9.0 if word == rule else 0.0 for word in words])))
        groups.append(group)
    return groups


def test_a_pack_reads_what_its_lessons_read_alone(tiny_model: Path) -> None:
    learner = learner_of(tiny_model)
    groups = [[lesson.request for lesson in group] for group in lessons(3)]
    packed = learner.read(groups)
    engine = build(str(tiny_model), SETTINGS)
    flat = [request for group in groups for request in group]
    alone = {number: reading for number, reading in engine.read(flat)}
    for number, found in enumerate(part for group in packed for part in group):
        reading = alone[number]
        assert isinstance(reading, Reading)
        np.testing.assert_allclose(found, reading.digits, atol=1e-5)


def test_what_was_learned_is_what_is_read_when_it_is_merged(tiny_model: Path, tmp_path: Path) -> None:
    learner = learner_of(tiny_model)
    for step in range(5):
        learner.learn(lessons(2, step), 1e-2)
    learner.save(tmp_path / "adapter")
    requests = [lesson.request for group in lessons(2, 99) for lesson in group]
    now = [part for group in learner.read([[request] for request in requests]) for part in group]
    engine = build(str(tiny_model), SETTINGS, str(tmp_path / "adapter"))
    before = build(str(tiny_model), SETTINGS)
    assert engine.identity != before.identity
    for number, reading in engine.read(requests):
        assert isinstance(reading, Reading)
        np.testing.assert_allclose(reading.digits, now[number], atol=1e-5)


def test_a_rule_is_learned_that_only_the_explanation_tells(tiny_model: Path) -> None:
    learner = learner_of(tiny_model)
    losses = [learner.learn(lessons(4, step), 1e-2) for step in range(150)]
    assert losses[0] > 3 * np.mean(losses[-10:])
    held = lessons(6, 10_000)
    read = learner.read([[lesson.request for lesson in group] for group in held])
    for group, found in zip(held, read, strict=True):
        for lesson, digits in zip(group, found, strict=True):
            said = digits @ np.arange(10) / digits.sum(1)
            assert (said[lesson.strengths == 9] > 5).all() and (said[lesson.strengths == 0] < 4).all()


def test_learning_goes_on_after_a_stop_as_if_nothing_had_been(tiny_model: Path, tmp_path: Path) -> None:
    whole, first, second = learner_of(tiny_model), learner_of(tiny_model), learner_of(tiny_model, seed=1)
    for step in range(6):
        whole.learn(lessons(2, step), 1e-3)
    for step in range(3):
        first.learn(lessons(2, step), 1e-3)
    first.keep(tmp_path / "state", {"step": 3})
    assert second.go_on(tmp_path / "state") == {"step": 3}
    assert second.tokens == first.tokens
    for step in range(3, 6):
        second.learn(lessons(2, step), 1e-3)
    for name, one in whole.weights.items():
        assert torch.equal(one, second.weights[name]), name


@given(st.lists(st.floats(0, 9), min_size=1, max_size=20))
def test_a_target_is_the_mean_of_its_two_digits(strengths: list[float]) -> None:
    weights: Float[np.ndarray, "branch 10"] = share_out(np.array(strengths))
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(weights @ np.arange(10), strengths, atol=1e-5)
    assert ((weights > 0).sum(1) <= 2).all()


def test_an_engine_that_tunes_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="engine = openai: tunes no model and reads no adapter; those that do: trans"):
        check_tunes("openai")


def test_an_adapter_that_is_none_is_refused_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    engine = build(str(tiny_model), SETTINGS, str(tmp_path / "none"))
    with pytest.raises(UserError, match="none: cannot be put on this model"):
        list(engine.read([Branches((Message("user", "Hi"),))]))
