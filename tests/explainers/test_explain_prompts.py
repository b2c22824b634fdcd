"""Whole prompts of the language-model explainer, and what a reader of them sees."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.explaining import HOSTILE, asked_of, evidence, hostile, text_of
from scipy.sparse import csc_array

from rewrite.coder.evidence import Evidence
from rewrite.engines.base import Answer, Question
from rewrite.engines.prompting import Message
from rewrite.explainers import answers
from rewrite.explainers.answers import Form
from rewrite.explainers.exemplars import Exemplar, Windows
from rewrite.explainers.layouts import Row, show

GOLDEN = Path(__file__).parents[1] / "golden"


def shown(question: Question) -> str:
    turns = [f"[{m.role}]\n{m.content}\n" for m in question.messages]
    return "\n".join(turns) + f"\n[assistant, begun]\n{question.answer}\n"


PROMPTS: dict[str, tuple[Callable[[], Evidence], int, dict[str, object]]] = {
    "quantile": (evidence, 1, {"few_shot": 3}),
    "top": (evidence, 3, {"exemplars": "top", "few_shot": 0, "max_words": 0}),
    "contrastive": (evidence, 2, {"exemplars": "contrastive", "windows": 6}),
    "thought": (evidence, 1, {"chain_of_thought": True, "few_shot": 3, "windows": 2, "exemplars": "contrastive"}),
    "hostile": (hostile, 0, {"few_shot": 0, "windows": 6}),
}


CONTEXTS: dict[str, tuple[Callable[[], Evidence], int, dict[str, object]]] = {
    "contexts": (evidence, 1, {"layout": "contexts", "exemplars": "contrastive", "windows": 6}),
    "contexts_hostile": (hostile, 0, {"layout": "contexts", "windows": 6}),
}


@pytest.mark.parametrize("name", [*PROMPTS, *CONTEXTS])
def test_whole_prompts(name: str) -> None:
    """To change one on purpose: delete the file, run, read what was written."""
    source, latent, changes = (PROMPTS | CONTEXTS)[name]
    text = shown(asked_of(source(), latent, **changes))
    file = GOLDEN / f"explain_{name}.txt"
    if not file.exists():
        file.write_bytes(text.encode("utf-8"))
        pytest.fail(f"{file} was not there; look at what was written and run again")
    assert text == file.read_bytes().decode("utf-8")


# --- prompts, read back -----------------------------------------------------------------------------------------------

SECTION = re.compile(
    r"The latent responds (here|to nothing here):\n\n((?:<text>\n.*?\n</text>\n(?:[^\n]*\t\d+\n)*\n?)+)", re.S
)


WINDOW = re.compile(r"<text>\n(.*?)\n</text>\n((?:[^\n]*\t\d+\n)*)\n?", re.S)


@dataclass(frozen=True)
class Seen:
    """A window as a reader of the prompt sees it."""

    section: str
    text: str
    marked: tuple[bool, ...]
    rows: tuple[tuple[str, int], ...]


def read_prompt(message: Message) -> list[Seen]:
    """Every window of a message; the message must be nothing but windows under their headings."""
    content, found, at = message.content + "\n", [], 0
    for section in SECTION.finditer(content):
        assert section.start() == at, f"stray text: {content[at : section.start()]!r}"
        at = section.end()
        windows = list(WINDOW.finditer(section[2]))
        assert "".join(w[0] for w in windows) == section[2]
        found += [_read_window(section[1], w[1], w[2]) for w in windows]
    assert at == len(content), f"stray text: {content[at:]!r}"
    return found


def _read_window(section: str, body: str, rows: str) -> Seen:
    text, marked, inside = "", [], False
    for part in re.findall(r"\\.|<<|>>|.", body, re.S):
        if part in ("<<", ">>"):
            inside = part == "<<"
        else:
            assert part not in "<>"
            text += part[-1]
            marked.append(inside)
    read = [line.rsplit("\t", 1) for line in rows.split("\n")[:-1]]
    return Seen(section, text, tuple(marked), tuple((unescape(token), int(level)) for token, level in read))


def unescape(token: str) -> str:
    names = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
    return re.sub(r"\\(?:u([0-9a-f]{4})|(.))", lambda m: chr(int(m[1], 16)) if m[1] else names[m[2]], token)


TOKEN = st.sampled_from([token for window in HOSTILE for token in window]) | st.text(max_size=5)


@given(st.lists(st.tuples(TOKEN, st.sampled_from([0.0, 0.5, 3.0, 10.0])), min_size=2, max_size=12), st.floats(0, 0.9))
def test_no_text_passes_for_the_prompt(tokens: list[tuple[str, float]], threshold: float) -> None:
    names = ["", *(name for name, _ in tokens)]
    active = np.array([[0.0], *([value] for _, value in tokens)], dtype=np.float32)
    if not active.any():
        active[1] = 10
    question = asked_of(Evidence(text_of([names]), csc_array(active)), 0, few_shot=0, threshold=threshold, window=40)
    assert [m.role for m in question.messages] == ["system", "user"]
    (seen,) = read_prompt(question.messages[1])
    strong = active[:, 0] > threshold * active.max()
    # Positions of a name that occurs twice have one id, so the text is that of the vocabulary.
    assert seen.text == "".join(names)
    assert seen.marked == tuple(bool(m) for name, m in zip(names, strong, strict=True) for _ in name)
    assert seen.rows == tuple(
        (name, int(10 * value / active.max()))
        for name, value in zip(names, active[:, 0], strict=True)
        if name and value > threshold * active.max()
    )


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_list_what_they_mark(name: str) -> None:
    """The worked examples obey the rules that they teach, and the windows under study do too."""
    source, latent, changes = PROMPTS[name]
    for message in asked_of(source(), latent, **changes).messages:
        for seen in read_prompt(message) if message.role == "user" else []:
            listed = "".join(token for token, _ in seen.rows)
            assert listed == "".join(c for c, marked in zip(seen.text, seen.marked, strict=True) if marked)
            assert bool(seen.rows) == (seen.section == "here")
            assert all(0 <= level <= 10 for _, level in seen.rows)


@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize("few_shot", [0, 1, 2, 3])
def test_worked_examples_are_answers_that_parse(few_shot: int, thinks: bool) -> None:
    question = asked_of(evidence(), 1, few_shot=few_shot, chain_of_thought=thinks)
    examples = [m.content for m in question.messages if m.role == "assistant"]
    assert len(examples) == few_shot and [m.role for m in question.messages[-1:]] == ["user"]
    for example in examples:
        found = answers.parse(0, Answer(example), Form(40, thinks, False))
        assert found.text and example.endswith(found.text) and bool(found.answer) == thinks


def test_what_is_shown_of_a_latent() -> None:
    source = evidence()
    windows = Windows(source, 12)
    dense = source.activations.toarray()
    top = read_prompt(asked_of(source, 1, exemplars="top", windows=5, few_shot=0).messages[-1])
    assert len(top) == 5 and all(seen.rows for seen in top)
    assert max(level for _, level in top[0].rows) == 10, "the strongest window comes first"
    found = windows.firings(1).windows
    assert top[0].text == "".join(windows.show(1, int(found[0])).tokens)
    pairs = read_prompt(asked_of(source, 2, exemplars="contrastive", windows=6, few_shot=0).messages[-1])
    assert [seen.section for seen in pairs] == ["here"] * 3 + ["to nothing here"] * 3
    assert all("queen" in seen.text for seen in pairs[:3]) and not any("queen" in seen.text for seen in pairs[3:])
    assert dense[:, 2].max() == 2.5 and all(seen.rows == ((" queen", 10),) for seen in pairs[:3])


def test_marks_are_above_the_threshold_of_the_window_and_levels_of_the_latent() -> None:
    exemplar = Exemplar(("a", "b", "c", "d"), np.array([0, 0.2, 0.21, 1.0], dtype=np.float64))
    shown = show(exemplar, 0.2, 2.0)
    assert shown.text == "ab<<cd>>" and shown.rows == (Row("c", 1), Row("d", 5))
    silent = show(Exemplar(("a", "<"), np.zeros(2, np.float32)), 0.2, 2.0)
    assert silent.text == r"a\<" and silent.rows == ()
