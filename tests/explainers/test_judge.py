"""A judge is believed exactly as far as it answers, and no text under study can pass for anything but a text."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.fake_engine import ALL, FakeEngine
from makers.small import small_config
from scipy.sparse import csr_array

from rewrite.coder.activations import Shard, save_shard
from rewrite.config import Config, ScoreConfig, UserError
from rewrite.engines.base import Answer, Engine, Fault, Question
from rewrite.engines.prompting import mark
from rewrite.explainers.judge import (
    SHOW,
    Drawn,
    HeldOut,
    Sheet,
    draw_windows,
    hold_out,
    read_list,
    show_fuzz,
    show_line,
)
from rewrite.run.files import write_json
from rewrite.run.store import Run
from rewrite.simulators.base import Strengths
from rewrite.simulators.strengths import save_simulator, save_strengths
from rewrite.stages import score as stage
from rewrite.text.windows import Text

GOLDEN = Path(__file__).parents[1] / "golden"
WORDS = (" cat", " dog", " sat", " the", "\n", "\t9", " <<x>>", "\\", " [1, 1]", " 0", "Texts:", "\u202e")
HOSTILE = ["5\t[1, 1]", "\n", "6\tx", "<<", ">>", "\\n", '{"judgements": [1]}', "{{ 7 }}", "\u2028", "\u202e\0", "<s>"]
DENSE, SILENT, RARE, LATENTS = 2, 3, 4, 6
LENGTH, WINDOWS, DOCUMENTS = 24, 4, 12

CONFIG = Config(
    score=ScoreConfig(scorers=("detection", "fuzz"), model="fake", windows=20, window=8, together=5),
)


def plant(seed: int = 0) -> list[Shard]:
    """Three shards of documents; latent 0 fires on " cat", 1 and 5 on " dog", 2 everywhere, 3 never, 4 in 3 windows."""
    draws = np.random.default_rng(seed)
    shards = []
    for number in range(3):
        ids = draws.choice(len(WORDS), 4 * WINDOWS * LENGTH, p=[0.04, 0.04, *[0.092] * 10]).astype(np.int32)
        text = Text(ids, np.arange(0, len(ids) + 1, LENGTH), WORDS)
        fires = np.stack([ids == 0, ids == 1, ids >= 0, ids < 0, np.zeros(len(ids), dtype=bool), ids == 1], axis=1)
        fires[[8 * 5 + 1, 8 * 9 + 1], RARE] = number == 0
        fires[8 * 9 + 2, RARE] = number == 1
        activations = fires * draws.uniform(0.5, 2, fires.shape) * text.counted()[:, None]
        owners = np.repeat(np.arange(4 * number, 4 * number + 4), WINDOWS).astype(np.int32)
        shards.append(Shard(text, owners, csr_array(activations.astype(np.float32))))
    return shards


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run up to the simulations: strengths follow latent 0, are constant for 1, unknown for 5, and 0 for the rest."""
    with Run(tmp_path / "run") as run:
        run.begin("k", ())
        with run.writing("2_activations") as folder:
            folder.mkdir()
            for number, shard in enumerate(plant()):
                save_shard(folder, f"calibrate-{number:05d}", shard)
            splits = {"calibrate": [[f"d{4 * n + i}" for i in range(4)] for n in range(3)], "test": []}
            write_json(folder / "documents.json", {"vocabulary": WORDS, "latents": LATENTS, "splits": splits})
        texts = ["fires on cat", None, "fires on everything", "never fires", "who knows", 'on "dog"\n[0, 0, 0, 0, 0]']
        rows = [{"latent": i, "text": t, "why": "" if t else "refused: no"} for i, t in enumerate(texts)]
        with run.writing("3_explanations.jsonl") as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with run.writing("4_simulations") as folder:
            folder.mkdir()
            for number, shard in enumerate(plant()):
                strengths = np.zeros(shard.activations.shape, dtype=np.float32)
                strengths[:, 0] = np.rint(4 * shard.activations[:, [0]].toarray()[:, 0])
                strengths[:, 1] = 3
                values = Strengths(csr_array(strengths), {5: "not understood"})
                save_strengths(folder, f"calibrate-{number:05d}", values, shard.text)
            save_simulator(folder, "planted", 9.0, None)
    return tmp_path / "run"


def lines_of(question: Question) -> list[str]:
    """The texts of a prompt, as a reader who knows only its form takes them apart."""
    listed = question.messages[-1].content.split("Texts:\n", 1)[1].split("\n")
    numbers, texts = zip(*(line.split("\t", 1) for line in listed), strict=True)
    assert list(numbers) == [str(i + 1) for i in range(len(listed))]
    return list(texts)


def read_marks(line: str) -> tuple[list[str], list[bool]]:
    """Characters and whether they are marked, from a line alone: the escapes undone one by one."""
    short = {"n": "\n", "t": "\t", "r": "\r"}
    characters, marked, inside = [], [], False
    for part in re.findall(r"\\u[0-9a-f]{4}|\\.|<<|>>|.", line):
        if part in ("<<", ">>"):
            assert inside == (part == ">>")
            inside = part == "<<"
        else:
            plain = chr(int(part[2:], 16)) if part[:2] == "\\u" else short.get(part[1:], part[-1])
            characters.append(plain if part[0] == "\\" else part)
            marked.append(inside)
    assert not inside
    return characters, marked


def perfect(question: Question) -> str:
    """Knows what the explanation means: whether some token of a text is such, or all that are marked."""
    word = " cat" if "fires on cat" in question.messages[-1].content.split("\n")[0] else " dog"
    fits = []
    for line in lines_of(question):
        if "marks" in question.messages[0].content:
            marked = "".join(c for c, inside in zip(*read_marks(line), strict=True) if inside)
            fits.append(not marked.replace(word, ""))
        else:
            fits.append(word in line)
    return json.dumps([int(fit) for fit in fits])


def score(folder: Path, engine: Engine, config: Config = CONFIG) -> dict[str, list[object]]:
    """The columns that the stage writes with an engine."""
    with Run(folder) as run:
        run.begin("k", ("2_activations", "3_explanations.jsonl", "4_simulations"))
        stage.score(config, run, lambda model: engine)
    columns: dict[str, list[object]] = pq.read_table(folder / "4_scores.parquet").to_pydict()
    return columns


def test_a_perfect_judge_scores_1_and_what_cannot_be_judged_says_why(run_folder: Path) -> None:
    engine = FakeEngine(answer=perfect)
    found = score(run_folder, engine)
    for scorer in ("detection", "fuzz"):
        assert found[scorer] == [1.0, None, None, None, None, 1.0]
        assert found[f"{scorer}_precision"] == [1.0, None, None, None, None, 1.0]
        assert found[f"{scorer}_low"] == [None] * LATENTS, "no document changes a perfect score"
        assert found[f"{scorer}_why"] == [
            "",
            "no explanation: refused: no",
            "does not fire in 0 windows of the calibrate split",
            "fires in 0 windows of the calibrate split",
            "fires in 3 windows of the calibrate split",
            "",
        ]
    assert len(engine.asked) == 2 * (40 // 5 + 20 // 5), "two latents, 40 windows for detection and 20 for fuzz"
    assert found["latent"] == list(range(LATENTS))


def test_what_the_simulation_says_stands_beside_it(run_folder: Path) -> None:
    found = score(run_folder, FakeEngine(answer=perfect))
    truth = np.concatenate([s.activations.toarray()[s.text.counted(), 0] for s in plant()])
    expected = np.corrcoef(truth, np.rint(4 * truth))[0, 1]
    simulation, low, high = (found[f"simulation{end}"][0] for end in ("", "_low", "_high"))
    assert simulation == pytest.approx(expected)
    assert low < expected < high <= 1  # type: ignore[operator]
    assert found["r2_low"][0] < found["r2"][0] < found["r2_high"][0] <= 1  # type: ignore[operator]
    varies = "its strength or its activation does not vary on the calibrate split"
    assert found["simulation"][1:] == [None] * 5
    assert found["simulation_why"] == ["", *[varies] * 4, "not understood"]
    still = "its activation does not vary on the calibrate split, or fewer than 2 documents were simulated"
    assert found["r2_why"] == ["", "", "", still, "", "not understood"]


def test_no_engine_is_opened_for_what_costs_nothing(run_folder: Path) -> None:
    def refuse(model: str) -> Engine:
        raise AssertionError("nobody asked for a judge")

    with Run(run_folder) as run:
        run.begin("k", ())
        stage.score(Config(), run, refuse)
    names = pq.read_schema(run_folder / "4_scores.parquet").names
    assert names == ["latent"] + [f"{s}{end}" for s in ("simulation", "r2") for end in ("", "_low", "_high", "_why")]


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"model": ""}, r"score\.model: not set"), ({"window": 25}, r"score\.window = 25: .* corpus\.window")],
)
def test_settings_that_cannot_work_are_one_line(run_folder: Path, changed: dict[str, object], says: str) -> None:
    config = CONFIG.model_copy(update={"score": CONFIG.score.model_copy(update=changed)})
    with pytest.raises(UserError, match=says):
        score(run_folder, FakeEngine(), config)


def test_a_judge_who_guesses_is_at_one_half(run_folder: Path) -> None:
    draws = np.random.default_rng(0)
    found = score(run_folder, FakeEngine(answer=lambda q: json.dumps(draws.integers(0, 2, len(lines_of(q))).tolist())))
    for scorer in ("detection", "fuzz"):
        for latent in (0, 5):
            value, low, high = (found[f"{scorer}{end}"][latent] for end in ("", "_low", "_high"))
            assert 0.2 < value < 0.8  # type: ignore[operator]
            assert low < 0.5 < high  # type: ignore[operator]


BROKEN: list[tuple[Callable[[Question], str], str]] = [
    (lambda q: "[1, 0]", "malformed: 2 judgements of 5 windows in “[1, 0]”"),
    (lambda q: perfect(q)[:-1] + ", 1]", "malformed: 6 judgements of 5 windows in “["),
    (lambda q: "I cannot say.", "malformed: no list in “I cannot say.”"),
    (lambda q: "[1, 0, 2, 1, 0]", "malformed: something other than 0 and 1 in “[1, 0, 2, 1, 0]”"),
    (lambda q: "[]", "malformed: something other than 0 and 1 in “[]”"),
]


@pytest.mark.parametrize(("answer", "why"), BROKEN)
def test_answers_that_cannot_be_read_are_missing_and_named(
    run_folder: Path, answer: Callable[[Question], str], why: str
) -> None:
    found = score(run_folder, FakeEngine(answer=answer))
    assert found["detection"] == [None] * LATENTS and found["fuzz_precision"] == [None] * LATENTS
    assert str(found["detection_why"][0]).startswith(why)
    assert str(found["detection_why"][0]).endswith("(40 of 40 windows have no judgement)")
    assert found["fuzz_faults"] == ['{"malformed": 20}', *["{}"] * 4, '{"malformed": 20}']


def test_a_few_failures_are_counted_and_the_rest_is_scored(run_folder: Path) -> None:
    def fail(number: int) -> Fault | None:
        return Fault("timeout", "after 60 s") if number % 4 == 0 else None

    found = score(run_folder, FakeEngine(answer=perfect, fail=fail))
    assert found["detection"][0] == 1.0 and found["fuzz"][5] == 1.0
    assert found["detection_faults"][0] == '{"timeout": 10}'
    found = score(run_folder, FakeEngine(answer=perfect, fail=lambda n: None if n % 4 == 0 else fail(4)))
    assert found["detection"][0] is None
    assert found["detection_why"][0] == "timeout: after 60 s (30 of 40 windows have no judgement)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, 0, 1]", [True, False, True]),
        ("Here it is:\n```json\n[1,0,1]\n```", [True, False, True]),
        ("[1, 0, 1", [True, False, True]),  # a stop text took the end
        ('{"judgements": [1, 0, 1]}', [True, False, True]),
        ("[true, false, true]", None),
        ('["1", "0", "1"]', None),
        ("[[1, 0, 1]]", None),
        ("[1, 0, 1,]", None),
        ("[1 0 1]", None),
        ("1, 0, 1", None),
        ("", None),
        ("[" + "{" * 100_000, None),
    ],
)
def test_only_a_list_of_0_and_1_is_read(text: str, expected: list[bool] | None) -> None:
    found = read_list(Answer(text), 3)
    if expected is None:
        assert isinstance(found, Fault) and found.kind == "malformed" and len(found.detail) < 150
    else:
        assert found == expected


def test_a_list_that_was_cut_is_no_answer() -> None:
    cut = read_list(Answer("[1, 0, 1", whole=False), 3)
    assert isinstance(cut, Fault) and cut.kind == "truncated"
    assert read_list(Answer("[1, 0, 1] because", whole=False), 3) == [True, False, True]


def test_windows_are_cut_within_windows_of_the_corpus() -> None:
    shards = plant()
    held = hold_out(shards, 7)
    assert held.ids.shape == (DOCUMENTS * WINDOWS * 3, 7) and held.known.sum() == held.ids.size - DOCUMENTS * WINDOWS
    assert np.array_equal(held.ids[4], shards[0].text.ids[LENGTH + 7 : LENGTH + 14])
    assert np.array_equal(np.bincount(held.documents), [WINDOWS * 3] * DOCUMENTS)
    dense = shards[0].activations.toarray()[LENGTH + 7 : LENGTH + 14]
    for latent in range(LATENTS):
        assert np.array_equal(held.fires(latent, 4), dense[:, latent] > 0)
        assert held.maxima(latent)[4] == dense[:, latent].max()
    first = [WORDS[i] for i in shards[0].text.ids[LENGTH + 1 : LENGTH + 7]]
    assert held.tokens(3) == first, "what the first token of a window does is not known, so it is not shown"
    assert len(held.fires(DENSE, 3)) == 6 and held.fires(DENSE, 3).all()


def drawn_for(held: HeldOut, latent: int, config: ScoreConfig) -> Drawn:
    drawn = draw_windows(held, latent, config)
    assert isinstance(drawn, Drawn)
    return drawn


def test_active_windows_come_from_every_slice_of_the_maxima_and_others_are_silent() -> None:
    held = hold_out(plant(), 8)
    drawn = drawn_for(held, 0, ScoreConfig(windows=10))
    maxima = held.maxima(0)
    active = np.sort(maxima[maxima > 0])
    assert len(active) > 25
    ranks = np.searchsorted(active, np.sort(maxima[drawn.active]))
    edges = np.cumsum([0, *(len(part) for part in np.array_split(active, 10))])
    assert np.array_equal(np.searchsorted(edges, ranks, side="right") - 1, np.arange(10))
    assert not maxima[drawn.silent].any() and len(set(drawn.silent.tolist())) == 10
    assert drawn.base_rate == (maxima > 0).mean()
    again, other = drawn_for(held, 0, ScoreConfig(windows=10)), drawn_for(held, 0, ScoreConfig(windows=10, seed=1))
    assert np.array_equal(drawn.active, again.active) and np.array_equal(drawn.silent, again.silent)
    assert not np.array_equal(drawn.active, other.active) and not np.array_equal(drawn.silent, other.silent)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=4) | st.sampled_from(HOSTILE), st.booleans()), max_size=12))
def test_marks_can_be_read_back_from_one_line_whatever_the_tokens_are(tokens: list[tuple[str, bool]]) -> None:
    texts, marks = [t for t, _ in tokens], [m for _, m in tokens]
    line = show_line(mark(texts, marks))
    assert not re.search(r"[\n\t\r\x00\u2028\u2029\u202e]", line)
    expected = [(c, m) for t, m in tokens for c in t]
    assert list(zip(*read_marks(line), strict=True)) == expected


def test_half_of_the_fuzzed_windows_have_as_many_marks_elsewhere() -> None:
    held = hold_out(plant(), 8)
    drawn = drawn_for(held, 0, ScoreConfig(windows=20))
    shown = show_fuzz(held, drawn, ScoreConfig(windows=20))
    assert sum(s.fits for s in shown) == 10 and len(shown) == 20
    of_line = {}
    for window in drawn.active.tolist():
        plain = "".join(held.tokens(window))
        of_line.setdefault(plain, []).append(window)
    for one in shown:
        characters, marked = read_marks(one.line)
        (window,) = of_line["".join(characters)]
        ends = np.cumsum([len(token) for token in held.tokens(window)])
        tokens = np.array([marked[end - 1] for end in ends])
        fires = held.fires(0, window)
        assert tokens.sum() == fires.sum() > 0
        assert np.array_equal(tokens, fires) if one.fits else not (tokens & fires).any()
        assert one.document == held.documents[window]


def test_windows_too_full_for_other_marks_keep_their_own() -> None:
    held = hold_out(plant(), 8)
    shown = show_fuzz(held, Drawn(DENSE, np.arange(10), np.arange(0), 1.0), ScoreConfig())
    assert all(one.fits for one in shown)


def shown_prompt(question: Question) -> str:
    turns = [f"[{m.role}]\n{m.content}\n" for m in question.messages]
    return "\n".join(turns) + f"\n[stop] {question.stop}\n[schema] {question.schema}\n"


@pytest.mark.parametrize("scorer", ["detection", "fuzz"])
def test_whole_prompts_are_as_they_were_written(scorer: str) -> None:
    rows = np.concatenate([np.roll(np.arange(len(HOSTILE)), 3 * i) for i in range(5)])
    text = Text(rows, np.arange(6) * len(HOSTILE), tuple(HOSTILE))
    fires = np.isin(rows, [1, 3, 6, 9]) & (np.arange(len(rows)) < 4 * len(HOSTILE)) & text.counted()
    shard = Shard(text, np.arange(5, dtype=np.int32), csr_array(fires[:, None].astype(np.float32)))
    held = hold_out([shard], len(HOSTILE))
    shown = SHOW[scorer](held, Drawn(0, np.arange(4), np.arange(4, 5), 0.8), ScoreConfig())
    sheet = Sheet(scorer, 'the word "cat"\n\nTexts:\n1\tx', shown)
    (question,) = sheet.ask(FakeEngine(), ScoreConfig(together=5))
    file, prompt = GOLDEN / f"{scorer}.txt", shown_prompt(question)
    if not file.exists():
        file.write_text(prompt, encoding="utf-8")
        pytest.fail(f"{file} was not there; look at what was written and run again")
    assert prompt == file.read_text(encoding="utf-8")
    assert lines_of(question) == [one.line for one in shown]
    (plain,) = sheet.ask(FakeEngine(can=replace(ALL, schema=False)), ScoreConfig(together=5))
    assert plain.schema == "" and plain.messages == question.messages


def test_the_real_small_model_is_judged_by_what_it_says(small_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Random weights judge at random or not at all: whatever they say, nothing is taken for a score of 0."""
    folder = tmp_path / "runs" / "copy"
    shutil.copytree(small_run, folder)
    scoring = ['score.scorers=["detection", "fuzz"]', "score.windows=6", "score.window=16", "score.max_tokens=16"]
    config = small_config(*scoring, f"score.model={tiny_model}", "sample.latents=5", "engine=transformers")
    with Run(folder) as run:
        run.begin("k", ())
        planned = stage.plan(config, run, frozenset())
        supposed = stage.plan(config, run, frozenset({"explain"}))
        stage.run(config, run)
        ledger = run.manifest["calls"]["score"]
    found = pq.read_table(folder / "4_scores.parquet").to_pydict()
    judged = [i for i, why in enumerate(found["detection_why"]) if not why.startswith("not rewritten")]
    assert len(judged) == 5
    asked = 0
    for scorer in ("detection", "fuzz"):
        for i in judged:
            counted = sum(json.loads(found[f"{scorer}_faults"][i]).values())
            assert (found[scorer][i] is None) == bool(found[f"{scorer}_why"][i])
            assert found[scorer][i] is not None or found[f"{scorer}_precision"][i] is None
            assert counted == 0 or found[f"{scorer}_why"][i].split(":")[0] in ("malformed", "truncated")
            asked += counted
    assert asked > 0, "random weights write no lists"
    assert 0 < ledger["calls"] <= planned.planned.calls <= supposed.planned.calls
    assert ledger["cost_per_latent"] == 0
    with Run(folder) as run:
        run.begin("k", ())
        stage.run(config, run)
        assert run.manifest["calls"]["score"]["calls"] == ledger["calls"], "a rerun asks nothing"
