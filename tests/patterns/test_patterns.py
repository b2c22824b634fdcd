"""The pattern explainer and the simulator that reads it: rules are found, applied, and nothing is made up."""

import numpy as np
import pytest
from scipy.sparse import csc_array, csr_array

from rewrite.coder.evidence import Evidence
from rewrite.engines.base import Engine
from rewrite.explainers import patterns as explainer
from rewrite.explainers.base import Explanation
from rewrite.explainers.patterns.build import build as build_explainer
from rewrite.patterns import candidates, pooling
from rewrite.patterns.grammar import count_words, words
from rewrite.patterns.parsing import parse
from rewrite.patterns.prose import tell
from rewrite.simulators import patterns as simulator
from rewrite.simulators.patterns.build import build as build_simulator
from rewrite.text.windows import Text


def text_of(*windows: list[str]) -> Text:
    vocabulary = tuple(dict.fromkeys(token for window in windows for token in window))
    ids = [vocabulary.index(token) for window in windows for token in window]
    return Text(np.array(ids), np.cumsum([0, *map(len, windows)]), vocabulary)


def nobody(model: str) -> Engine:
    """No language model may be asked."""
    raise AssertionError(model)


class NoPeeking:
    maximum = np.ones(0, dtype=np.float32)

    def __call__(self, text: Text) -> csr_array:
        raise AssertionError("only the oracle may look")


def simulate(sentences: list[str | None], *windows: list[str]) -> np.ndarray:
    """Strengths, latents × positions."""
    explanations = [Explanation(i, sentence) for i, sentence in enumerate(sentences)]
    built = build_simulator(explanations, len(sentences), simulator.Settings(), NoPeeking(), nobody)
    return built.simulate(text_of(*windows)).values.toarray().T


WINDOW = ["", " In", " the", " un", "happ", "y", " king", " saw", " the", " king", ",", " and", " the", " 1", "2", "."]


@pytest.mark.parametrize(
    ("sentence", "fires"),
    [
        ('Fires on "king" (9).', {6: 9, 9: 9}),
        ('Fires on "unhapp" (4).', {4: 4}),
        ('Fires on "the king" (9); "king" (2).', {6: 2, 9: 9}),
        ('Fires on "king" (2); "saw the king" (0).', {6: 2}),
        ('Fires on "the" after "In", "and" (5).', {2: 5, 12: 5}),
        ('Fires on anything after "the" (3).', {3: 3, 4: 3, 5: 3, 9: 3, 13: 3, 14: 3}),
        ('Fires on anything after "the" (3); "king" (1).', {3: 3, 4: 3, 5: 3, 6: 1, 9: 1, 13: 3, 14: 3}),
        ('Fires on words ending "y" (5); words ending "ppy" (2).', {5: 2}),
        ('Fires on words starting "unh" (5).', {4: 5, 5: 5}),
        ('Fires on tokens "y", "king" (5); "king" (6).', {5: 5, 6: 6, 9: 6}),
        ("Fires on numbers (5); symbols (3); capitalised words (1).", {1: 1, 10: 3, 13: 5, 14: 5, 15: 3}),
        ('Fires on "king" within 2 words after "In" (5).', {}),
        ('Fires on "king" within 4 words after "the" (5).', {6: 5, 9: 5}),
        ('Fires on "the" within 2 words after "In", "king" (5).', {2: 5, 8: 5}),
        ('Fires on "the" within 3 words after "king" (5).', {8: 5, 12: 5}),
        ("Fires on anything inside a word (1).", {4: 1, 5: 1, 14: 1}),
        ('Fires on "12" starting a word (1); "1" starting a word (2).', {13: 2}),
        ('Fires on "king" (3); "king" (7).', {6: 7, 9: 7}),
        ("Never fires.", {}),
    ],
)
def test_where_a_rule_holds(sentence: str, fires: dict[int, int]) -> None:
    (found,) = simulate([sentence], WINDOW)
    assert {int(p): int(found[p]) for p in np.flatnonzero(found)} == fires


def test_the_order_of_rules_does_not_matter() -> None:
    a, b = simulate(['Fires on "king" (3); "the king" (7).', 'Fires on "the king" (7); "king" (3).'], WINDOW)
    assert (a == b).all()


def test_the_first_position_of_a_window_is_never_predicted() -> None:
    (found,) = simulate(['Fires on "king" (9).'], [" king", " king"], [" king"])
    assert found.tolist() == [0, 9, 0]


def test_what_cannot_be_read_is_missing_with_the_sentence_quoted() -> None:
    sentences = [
        Explanation(2, "A latent for kings."),
        Explanation(0, None, "no reply"),
        Explanation(1, "Never fires."),
    ]
    strengths = build_simulator(sentences, 5, simulator.Settings(), NoPeeking(), nobody).simulate(text_of(WINDOW))
    assert set(strengths.missing) == {0, 2, 3, 4}
    assert strengths.missing[0] == "no reply" and "A latent for kings." in strengths.missing[2]
    assert strengths.values.shape == (len(WINDOW), 5) and strengths.values.nnz == 0


def test_windows_are_simulated_alike_alone_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = ['Fires on "the king" (9); words ending "y" within 3 words after "the" (2).', 'Fires on "." (1).']
    windows = [WINDOW, WINDOW[3:], ["", " the", " king"]]
    together = simulate(sentences, *windows)
    alone = np.concatenate([simulate(sentences, window) for window in windows], axis=1)
    monkeypatch.setattr("rewrite.simulators.patterns.build.CHUNK", 4)
    assert (together == alone).all() and (simulate(sentences, *windows) == alone).all() and together.any()


def evidence(rng: np.random.Generator) -> tuple[Evidence, np.ndarray]:
    """Random words; latents: 0 never, 1 on "king", 2 on "queen" after "the" but weakly elsewhere, 3 on many words."""
    names = ["", " the", " a", " king", " queen", " said", *(f" w{i:02d}" for i in range(60))]
    often = np.array([20.0, 10, 10, 20, 5, *np.ones(60)])
    windows = [["", *rng.choice(names[1:], 40, p=often / often.sum())] for _ in range(60)]
    text = text_of(*windows)
    tokens = [token for window in windows for token in window]
    active = np.zeros((len(tokens), 4))
    for p, token in enumerate(tokens):
        active[p, 1] = 5.0 * (token == " king")
        active[p, 2] = (token == " queen") * (6.0 if tokens[p - 1] == " the" else 1.0)
        active[p, 3] = 0.1 * int(token[2:]) if token.startswith(" w") else 0.0
    return Evidence(text, csc_array(active.astype(np.float32))), active


def explain(source: Evidence, **settings: float) -> list[str]:
    built = build_explainer(explainer.Settings(**settings), nobody)
    return [e.text or "" for e in built.explain(source, range(source.activations.shape[1]))]


def test_explanations_do_not_depend_on_what_is_read_and_summed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = evidence(np.random.default_rng(4))
    expected = explain(source)
    monkeypatch.setattr(pooling, "CHUNK", 100)
    monkeypatch.setattr(candidates, "TOGETHER", 3)
    for at_once in (1, 500):
        assert explain(Evidence(source.text, source.activations, at_once=at_once)) == expected


@pytest.mark.parametrize("at_once", [None, 1, 500])
def test_explanations_do_not_depend_on_how_many_processes_write_them(
    monkeypatch: pytest.MonkeyPatch, at_once: int | None
) -> None:
    source, _ = evidence(np.random.default_rng(4))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    expected = explain(source)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert explain(Evidence(source.text, source.activations, at_once=at_once)) == expected


def test_the_rules_that_made_the_activations_are_found() -> None:
    source, active = evidence(np.random.default_rng(0))
    sentences = explain(source)
    assert sentences[0] == "Never fires."
    assert sentences[1] == 'Fires on "king" (9).'
    assert '"the queen" (9)' in sentences[2] and '"queen" (2)' in sentences[2]
    built = build_simulator(
        [Explanation(i, s) for i, s in enumerate(sentences)], 4, simulator.Settings(), NoPeeking(), nobody
    )
    strengths = built.simulate(source.text).values.toarray()
    for latent in (1, 2, 3):
        assert np.corrcoef(strengths[:, latent], active[:, latent])[0, 1] > 0.9


@pytest.mark.parametrize("budget", [5, 10, 20])
def test_the_word_budget_is_kept_and_used(budget: int) -> None:
    source, _ = evidence(np.random.default_rng(0))
    counts = [count_words(sentence) for sentence in explain(source, max_words=budget)]
    assert max(counts) <= budget and counts[3] >= budget - 1
    assert count_words(explain(source, max_words=0)[3]) > 40


def test_rules_are_sound_on_text_that_was_not_seen() -> None:
    """Noise is not explained at length: rules found on one half must not do worse than nothing on the other."""
    rng = np.random.default_rng(1)
    source, active = evidence(rng)
    noise = csc_array(
        (active * 0 + rng.exponential(size=active.shape) * (rng.random(active.shape) < 0.02)).astype("f4")
    )
    sentences = explain(Evidence(source.text, noise), max_words=10)
    assert all(count_words(sentence) <= 10 for sentence in sentences)


def test_prose_tells_the_rules_that_would_be_written() -> None:
    source, _ = evidence(np.random.default_rng(0))
    assert explain(source, prose=True) == [tell(parse(sentence)) for sentence in explain(source)]


def test_words_after_words_are_said_as_one_rule() -> None:
    source, _ = evidence(np.random.default_rng(2))
    tokens = [token for window in source.text.windows() for token in window]
    after = [" the", " a", " said", " king"]
    fires = np.array([[token == " queen" and tokens[i - 1] in after] for i, token in enumerate(tokens)])
    (sentence,) = explain(Evidence(source.text, csc_array(3 * fires.astype(np.float32))))
    (rule,) = [rule for rule in parse(sentence) if rule.before]
    assert rule.pattern == words("queen") and rule.strength == 9
    assert {item[0] for item in rule.before[0].pattern.items} == {"the", "a", "said", "king"}
    built = build_simulator([Explanation(0, sentence)], 1, simulator.Settings(), NoPeeking(), nobody)
    found = built.simulate(source.text).values.toarray() > 0
    assert (found == fires).all()
