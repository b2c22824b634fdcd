"""The planted truth: what was built is what it says, and the whole pipeline finds what was planted."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from makers.planted_rules import RULES, read

from rewrite import __main__ as cli
from rewrite.coder.activations import ActivationStore, Shard
from rewrite.coder.files import load_coder
from rewrite.commands import planted as testbed
from rewrite.commands.planted import HOOKPOINT, Outcome
from rewrite.commands.planted import language as planted
from rewrite.commands.planted.language import COSTLY
from rewrite.commands.planted.texts import draw_texts
from rewrite.explainers.explanations import load_explanations
from rewrite.run.files import hash_path, read_json
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.simulators.patterns.build import PatternSimulator
from rewrite.stages import STAGES
from rewrite.subject.scoring import next_tokens, window_losses
from rewrite.subject.subject import load_subject
from rewrite.text.corpus import SPLITS
from rewrite.text.sources import read_corpus
from rewrite.text.windows import pad_windows

QUICK = (
    "evaluate.controls=['mean']",
    "evaluate.fractions=[1.0]",
    "evaluate.random_seeds=0",
    "cost.documents=10",
    "cost.check=0",
    "cost.steps=2",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return testbed.build(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def collected(folder: Path) -> list[Shard]:
    """Every document with its true activations, collected in the folder where the experiment goes on."""
    with Run(folder / "runs" / "true", "test") as run:
        go(STAGES, testbed.settings(folder, "true", *QUICK), run, "collect", lambda line: None)
    store = ActivationStore(folder / "runs" / "true" / "2_activations", SPLITS)
    return [shard for split in SPLITS for _, shard in store.split(split).walk()]


@pytest.fixture(scope="module")
def outcomes(folder: Path, collected: list[Shard]) -> dict[str, Outcome]:
    before = hash_path(folder / "runs" / "true" / "2_activations")
    found = testbed.experiment(folder, *QUICK, last="analyse")
    for name in testbed.SHARES:
        assert hash_path(folder / "runs" / name / "2_activations") == before
    return {outcome.name: outcome for outcome in found}


# --- must show -------------------------------------------------------------------------------------------------------


def test_the_latent_that_was_made_costly_is_ranked_first(folder: Path, outcomes: dict[str, Outcome]) -> None:
    """By the cost of its simulation, where every latent is simulated wrongly; where all are right none costs much."""
    shuffled, true = (
        pq.read_table(folder / "runs" / name / "5_costs.parquet").column("cost").to_numpy()
        for name in ("shuffled", "true")
    )
    assert int(np.argmax(shuffled)) == COSTLY
    assert shuffled[COSTLY] > 1.5 * np.sort(shuffled)[-2]
    assert np.abs(true).max() < 0.02 * shuffled[COSTLY]


def test_true_rules_recover_all_of_the_gap(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["true"].recovered >= 0.99
    assert outcomes["true"].against["coder"] == "equivalent"
    assert outcomes["true"].against["zero"] == "better"


def test_the_more_rules_are_corrupted_the_less_is_recovered(outcomes: dict[str, Outcome]) -> None:
    ordered = [outcomes[name] for name in ("true", "corrupted-25", "corrupted-50", "corrupted-75", "shuffled")]
    for less, more in pairwise(ordered):
        assert more.interval[1] < less.interval[0], "not only in order, but told apart"


def test_shuffled_rules_recover_nothing(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["shuffled"].against["mean"] != "better"
    assert outcomes["shuffled"].against["zero"] != "better"
    assert outcomes["shuffled"].recovered < 0.02


def test_the_check_passes_what_was_planted_and_nothing_else(outcomes: dict[str, Outcome]) -> None:
    found = list(outcomes.values())
    assert testbed.check(found) == []
    assert "not all" in testbed.check([replace(found[0], recovered=0.98), *found[1:]])[0]
    assert "not all" in testbed.check([replace(found[0], against={"coder": "inconclusive"}), *found[1:]])[0]
    assert "no less" in testbed.check([*found[:2], replace(found[2], recovered=found[1].recovered), *found[3:]])[0]
    assert "not none" in testbed.check([*found[:4], replace(found[4], against={"mean": "better"})])[0]
    assert re.search(r"corrupted-50 +\d+\.\d% +\[", testbed.table(found))


def test_the_command_prints_the_table_and_fails_where_anything_else_comes_out(
    outcomes: dict[str, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = list(outcomes.values())
    monkeypatch.setattr(testbed, "experiment", lambda folder: found)
    assert cli.main(["planted", str(tmp_path / "planted")]) == 0
    assert capsys.readouterr().out.endswith("All as it was planted.\n")
    found = found[::-1]
    assert cli.main(["planted", str(tmp_path / "planted")]) == 1
    assert "not all of the gap" in capsys.readouterr().out
    (tmp_path / "file").touch()
    assert cli.main(["planted", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- what was built --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """True activations at the counted positions of some documents, and the strengths that `RULES` give there."""

    shard: Shard
    truth: np.ndarray
    said: np.ndarray


@pytest.fixture(scope="module")
def readings(collected: list[Shard]) -> list[Reading]:
    rules = [RULES[sentence.removeprefix("Fires on ").removesuffix(".")] for sentence in planted.SENTENCES]
    found = []
    for shard in collected:
        windows = [[token.strip(" ") for token in tokens] for tokens in shard.text.windows()]
        at = [read(words, i) for words in windows for i in range(1, len(words))]
        truth = shard.activations.toarray()[shard.text.counted()]
        found.append(Reading(shard, truth, np.array([[rule(position) for rule in rules] for position in at])))
    return found


def test_every_latent_fires_where_its_rule_says_and_nowhere_else(readings: list[Reading]) -> None:
    truth, said = np.concatenate([r.truth for r in readings]), np.concatenate([r.said for r in readings])
    assert said.any(0).all(), "every rule applies somewhere"
    assert said.shape[1] >= 24
    np.testing.assert_array_equal(truth > 0, said > 0)
    scale = truth.max(0) / said.max(0)
    np.testing.assert_allclose(truth, said * scale, rtol=1e-4, err_msg="not strength times the latent's scale")


def test_the_pattern_simulator_reads_the_same(folder: Path, readings: list[Reading]) -> None:
    explanations = load_explanations(folder / "explanations" / "true.jsonl")
    simulator = PatternSimulator(explanations, len(planted.LATENTS))
    assert not simulator.missing
    for reading in readings:
        strengths = simulator.simulate(reading.shard.text).values.toarray()
        np.testing.assert_array_equal(strengths[reading.shard.text.counted()], reading.said)


def test_the_coder_is_the_layer(folder: Path, collected: list[Shard]) -> None:
    metrics = read_json(folder / "runs" / "true" / "1_coder" / "metrics.json")
    assert metrics["fvu"] < 1e-9
    assert metrics["dead"] == 0
    assert abs(metrics["loss_coder"] - metrics["loss_clean"]) < 1e-6
    assert metrics["loss_zero"] - metrics["loss_coder"] > 0.5
    assert (
        max(np.diff(shard.activations.indptr).max() for shard in collected) <= load_coder(folder / "coder", HOOKPOINT).k
    )


def test_the_layer_above_needs_every_latent_and_the_costly_one_most(folder: Path) -> None:
    costs = costs_of_leaving_out(folder)
    assert (costs > 0).all()
    ranked = np.argsort(-costs)
    assert ranked[0] == COSTLY
    assert costs[ranked[0]] > 2 * costs[ranked[1]]


def costs_of_leaving_out(folder: Path) -> np.ndarray:
    """What the loss of 80 texts rises by where one latent is always 0, for each latent [nats per token]."""
    config = testbed.settings(folder)
    subject, coder = load_subject(config), load_coder(folder / "coder", HOOKPOINT)
    assert subject.tokenizer is not None
    texts = [document.text for document in read_corpus(config.corpus).documents[:80]]
    padded = pad_windows([np.array(subject.tokenizer(text)["input_ids"]) for text in texts])
    ids, counted = torch.as_tensor(padded.ids), torch.as_tensor(padded.counted)
    prefix = subject.run_to(ids)
    targets = next_tokens(ids, counted, torch.as_tensor(padded.real))
    activations = coder.encode(coder.read(prefix.input[counted], prefix.output[counted])).tocsc()

    def loss(left_out: int | None) -> float:
        kept = activations.copy()
        if left_out is not None:
            kept.data[kept.indptr[left_out] : kept.indptr[left_out + 1]] = 0
        vectors = prefix.output.clone()
        vectors[counted] = coder.decode(kept.tocsr())
        return float(window_losses(subject.run_from(prefix, vectors), targets).sum() / (targets >= 0).sum())

    whole = loss(None)
    return np.array([loss(latent) - whole for latent in range(coder.latents)])


def test_no_constant_guess_is_better_than_zero(folder: Path) -> None:
    """With every latent 0 the model says how often each word comes next, at every position."""
    subject = load_subject(testbed.settings(folder))
    coder = load_coder(folder / "coder", HOOKPOINT)
    texts = draw_texts(testbed.TEXTS, 0)
    count = np.array([sum(text[2:].count(word) for text in texts) for word in planted.WORDS]) + 0.5
    ids = torch.tensor([[planted.WORDS.index(word) for word in text[:32]] for text in texts[:4]])
    prefix = subject.run_to(ids)
    logits = subject.run_from(prefix, coder.b_dec.expand_as(prefix.output))
    said = torch.softmax(logits, -1).numpy()
    np.testing.assert_allclose(said, np.broadcast_to(count / count.sum(), said.shape), rtol=1e-3)


def test_the_tokenizer_reads_what_was_drawn(folder: Path) -> None:
    config = testbed.settings(folder)
    subject = load_subject(config)
    assert subject.tokenizer is not None
    for document, words in zip(read_corpus(config.corpus).documents, draw_texts(testbed.TEXTS, 0), strict=True):
        assert subject.tokenizer(document.text)["input_ids"] == [planted.WORDS.index(word) for word in words]
        assert len(words) <= planted.WINDOW


@pytest.mark.traced
def test_the_same_seed_builds_the_same_bytes_and_another_other_ones(folder: Path, tmp_path: Path) -> None:
    again, other = testbed.build(tmp_path / "again"), testbed.build(tmp_path / "other", seed=1)
    for name in ("subject", "coder", "corpus.jsonl", "explanations"):
        assert hash_path(again / name) == hash_path(folder / name)
    for name in ("coder", "corpus.jsonl", "explanations/shuffled.jsonl"):
        assert hash_path(other / name) != hash_path(folder / name)


# --- its parts -------------------------------------------------------------------------------------------------------


def test_corruption_is_nested_and_leaves_no_sentence_in_its_place() -> None:
    true = planted.SENTENCES
    sets = [planted.corrupt(true, share, seed=0) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    changed = [{i for i, sentence in enumerate(one) if sentence != true[i]} for one in sets]
    assert [len(one) for one in changed] == [0, 10, 20, 30, 40]
    assert all(less < more for less, more in pairwise(changed))
    assert sorted(sets[-1]) == sorted(true)
    for one in sets:
        assert all(sentence in (true[i], sets[-1][i]) for i, sentence in enumerate(one))
    assert planted.corrupt(true, 0.5, seed=1) != sets[2]


@pytest.mark.parametrize(
    ("sentence", "why"),
    [
        ('Fires on "a" (9); "b" after "the" (3).', "rules of different conditions"),
        ('Fires on "old man", "old tree" (9).', "more than one run"),
        ('Fires on "man" inside a word (9).', "not planted"),
        ("Fires on capitals (9).", "not planted"),
    ],
)
def test_what_cannot_be_planted_is_refused(sentence: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        planted.compile_latents([sentence])


def test_a_whole_word_goes_before_an_ending() -> None:
    units = planted.compile_latents(['Fires on "king" (3); words ending "ing" (7).'])
    strengths = units.fire(np.eye(len(units.features)))[: len(planted.WORDS), 0]
    said = {word: strength for word, strength in zip(planted.WORDS, strengths, strict=True) if strength}
    assert said == {"king": 3, "ring": 7, "sleeping": 7, "running": 7, "singing": 7}
