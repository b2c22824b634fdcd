"""Real small language models under the default layout (`make test-llm REWRITE_MODELS=DIR`).

DIR holds `smollm2` (SmolLM2-135M-Instruct) and `qwen` (Qwen2.5-Coder-0.5B-Instruct) as transformers saves them and, for
llama.cpp's server, `smollm2.gguf` and `qwen.gguf`.

1. What every place where a model runs owes (`Asked`): the engines of `makers.ways`, each asked the same through the
   run's ledger. Strengths are those of transformers in this process in float32, digits have the mass, the ledger's
   tokens are those that were sent, and an explanation is made and parsed.
2. Facts of the models, on transformers in this process.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explainers.test_explain_llm import evidence
from makers.servers import counting_proxy
from makers.small import small_config
from makers.ways import WAYS, Reference, read

from rewrite.config import ScoreConfig
from rewrite.engines.base import Answer, Branches, Fault, Question, Reading
from rewrite.engines.calls import Calls
from rewrite.engines.encoding import Encoder
from rewrite.engines.transformers import Settings
from rewrite.engines.transformers.build import TransformersEngine, build
from rewrite.explainers import llm as explain
from rewrite.explainers.base import Explanation
from rewrite.explainers.judge import Sheet, Shown, read_list
from rewrite.explainers.llm.build import build as build_explainer
from rewrite.run.store import Run
from rewrite.simulators.schemes import AllAtOnce

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TEXTS = (
    "Once upon a time there was a little girl who had a small dog and a big red ball in the garden.",
    "def read(path):\n    with open(path) as file:\n        return [line.strip() for line in file]\n",
    "The harbour of Ghent was rebuilt in 1847, and the old fortress burnt down twice in the years after that.",
)
EXPLANATIONS = ("the word dog", "numbers, above all years", "names of people", "the end of a sentence")
CASES = (
    ("the word dog", "The boy saw a", " dog", " cat"),
    ("the word king", "Then came the old", " king", " tree"),
    ("numbers", "She counted up to", " seven", " sleep"),
    ("words for food", "He wanted to eat some", " bread", " stone"),
    ("colours", "The ball was", " red", " lost"),
    ("animals", "In the garden they found a", " mouse", " spoon"),
    ("names of people", "She went home with", " Anna", " water"),
    ("words for weather", "Outside there was", " rain", " noise"),
    ("verbs of motion", "Every day they would", " run", " think"),
    ("family members", "I told it to my", " mother", " table"),
)


NEAR = {"transformers": 1e-3, "openai": 0.5, "vllm": 1e-3, "openai on vllm serve": 1e-3}
"""How far a strength may be from that of transformers in this process in float32, of 9. llama.cpp multiplies the GGUF
file's weights of few bits by activations rounded to 8; the folder's weights are the same ones rounded to bfloat16."""
EVERY = 6
"""At every so many tokens of a text a place is asked: llama.cpp answers with the whole vocabulary each time."""
LINES = ("The dog ran home.", "She had a cat.", "It was late.", "My dog is big.", "He ate some bread.")
JUDGED = Sheet("detection", "the word dog", [Shown(line, number, "dog" in line) for number, line in enumerate(LINES)])
LAST = 1 << 10
"""So many that only the last token of a text is asked about."""


@pytest.fixture(scope="module", params=["smollm2", "qwen"])
def folder(request: pytest.FixtureRequest) -> Path:
    """The folder of a model."""
    found = Path(os.environ.get("REWRITE_MODELS", "")) / request.param
    if not os.environ.get("REWRITE_MODELS") or not found.is_dir():
        pytest.skip(f"needs REWRITE_MODELS=DIR with the model {request.param} in it")
    return found


@pytest.fixture(scope="module")
def engine(folder: Path) -> TransformersEngine:
    return build(str(folder), Settings())


@dataclass(frozen=True)
class Asked:
    """What a place made of some requests and questions, and what the ledger says of it."""

    place: str
    together: bool
    """A trunk is read in one pass with all of its branches; elsewhere each branch is a prompt."""
    requests: list[Branches]
    readings: list[Reading]
    questions: list[Question]
    explained: list[Explanation]
    judging: Question
    judged: Answer | Fault
    held: bool
    """Answers are held to a schema."""
    ledger: dict[str, dict[str, int]]
    """Of each stage."""
    wire: Counter[str] | None
    """Every prompt that went to a server, as JSON; None where none did."""


@pytest.fixture(scope="module", params=list(WAYS))
def asked(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """A place opened, asked through the ledger as a run asks it, and closed."""
    if request.param == "openai" and not folder.with_name(f"{folder.name}.gguf").is_file():
        pytest.skip(f"needs {folder.name}.gguf beside the folder: llama.cpp's server reads it")
    work = tmp_path_factory.mktemp("place")
    tokenizer = Encoder(str(folder)).tokenizer
    shown = [pieces_of(tokenizer, text) for text in (TEXTS[0], TEXTS[2])]
    requests = [lay(explanation, tokens, EVERY) for explanation in EXPLANATIONS[:2] for tokens in shown]
    with ExitStack() as stack:
        way = stack.enter_context(WAYS[request.param](folder, work))
        counts, table = None, dict(way.table)
        if "base_url" in table:
            counts = stack.enter_context(counting_proxy(table["base_url"]))
            # A server with one thread is given time: what was sent twice would be counted twice.
            table |= {"base_url": counts.base_url, "timeout": 900, "retries": 0}
        own = [f"engines.{way.name}.{key}={value}" for key, value in table.items()]
        config = small_config(f"engine={way.name}", f"calls.cache={work / 'calls.sqlite'}", *own)
        run = stack.enter_context(Run(work / "run"))
        with Calls(config, run, "simulate") as calls:
            engine = calls.open(way.asked)
            readings = read(engine, requests)
        questions: list[Question] = []
        with Calls(config, run, "explain") as calls:
            explained = explain_there(calls.open(way.asked), questions)
        with Calls(config, run, "score") as calls:
            engine = calls.open(way.asked)
            (judging,) = JUDGED.ask(engine, ScoreConfig(together=5))
            ((_, judged),) = engine.generate([judging])
        return Asked(
            place=request.param,
            together=engine.can.prompt_logprobs,
            requests=requests,
            readings=readings,
            questions=questions,
            explained=explained,
            judging=judging,
            judged=judged,
            held=engine.can.schema,
            ledger=run.manifest["calls"],
            wire=counts and counts.prompts,
        )


def explain_there(engine: Any, questions: list[Question]) -> list[Explanation]:
    """Explanations of three latents; the questions that were asked for them are kept."""
    generate = engine.generate

    def listen(some: Sequence[Question]) -> Any:
        questions.extend(some)
        return generate(some)

    engine.generate = listen
    explainer = build_explainer(explain.Settings(model="m", layout="contexts", window=12), lambda model: engine)
    return list(explainer.explain(evidence(), [1, 2, 3]))


def pieces(engine: TransformersEngine, text: str) -> list[str]:
    return pieces_of(engine.encoder.tokenizer, text)


def pieces_of(tokenizer: Any, text: str) -> list[str]:
    return [tokenizer.decode([token]) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def lay(explanation: str, tokens: Sequence[str], every: int = 1) -> Branches:
    """The default layout, asked at the last token and at every so many before it."""
    asked = np.arange(len(tokens))[::-1] % every == 0
    (item,) = AllAtOnce(True).ask(explanation, tokens, asked)
    assert isinstance(item.request, Branches)
    return item.request


def strengths_of(readings: Sequence[Reading]) -> np.ndarray:
    digits = np.concatenate([reading.digits.astype(float) for reading in readings])
    strengths: np.ndarray = digits @ np.arange(10) / digits.sum(1)
    return strengths


# What every place owes


def test_strengths_are_those_of_transformers(asked: Asked, engine: TransformersEngine) -> None:
    found, expected = strengths_of(asked.readings), strengths_of(read(engine, asked.requests))
    off = np.abs(found - expected)
    told = f"largest difference of a strength {off.max():.1e} of 9, mean {off.mean():.1e}, of {len(off)}"
    print(f"\n{asked.place}: {told}, from {expected.min():.1f} to {expected.max():.1f}")
    assert np.allclose(found, expected, rtol=0, atol=NEAR[asked.place])
    assert np.ptp(expected) > 2 * NEAR[asked.place], "strengths differ, so that one taken for another would be seen"


def test_digits_have_the_mass_everywhere(asked: Asked) -> None:
    mass = np.concatenate([reading.digits.sum(1) for reading in asked.readings])
    print(f"\n{asked.place}: mass on digits: median {np.median(mass):.4f}, least {mass.min():.4f}, of {len(mass)}")
    assert np.median(mass) > 0.9


def test_the_ledger_counts_what_was_sent(asked: Asked, folder: Path) -> None:
    """Beside whole prompts, tokenized by the library alone: a token more at each, as a server's own beginning of a
    text, would show."""
    reference = Reference(folder)
    of = reference.passes if asked.together else reference.prompts
    sent = {
        "simulate": [ids for request in asked.requests for ids in of(request)],
        "explain": [ids for question in asked.questions for ids in of(question)],
        "score": of(asked.judging),
    }
    for stage, prompts in sent.items():
        assert asked.ledger[stage]["calls"] == len(prompts)
        assert asked.ledger[stage]["tokens_in"] == sum(map(len, prompts))
    if asked.wire is not None:
        assert asked.wire == Counter(json.dumps(ids) for prompts in sent.values() for ids in prompts)


def test_an_explanation_is_made_and_parsed(asked: Asked, folder: Path) -> None:
    """Of the third latent Qwen says the same words again and again, on every engine: that is missing, by name."""
    print("\n" + "\n".join(f"{asked.place}: {one.text or one.why}" for one in asked.explained))
    assert all(one.text or one.why.startswith("loop: ") for one in asked.explained)
    assert sum(one.text is not None for one in asked.explained) >= (2 if folder.name == "qwen" else 3)
    if folder.name == "qwen":  # SmolLM2 says nothing of the words that it is shown.
        assert "king" in (asked.explained[0].text or "") and "queen" in (asked.explained[1].text or "")


def test_a_judge_that_is_held_to_a_form_keeps_to_it(asked: Asked) -> None:
    """Left to themselves both models write lists without end; held to an object about the list, blanks."""
    judged = asked.judged if isinstance(asked.judged, Fault) else read_list(asked.judged, 5)
    print(f"\n{asked.place}: {judged}")
    if not asked.held:
        pytest.skip("this engine holds no answer to a schema")
    assert isinstance(judged, list)


# Facts of the models


def test_the_digits_have_the_mass(engine: TransformersEngine) -> None:
    requests = [lay(explanation, pieces(engine, text)) for explanation in EXPLANATIONS for text in TEXTS]
    mass = np.concatenate([reading.digits.sum(1) for reading in read(engine, requests)])
    print(f"mass on digits: median {np.median(mass):.4f}, 10th percentile {np.quantile(mass, 0.1):.4f}")
    assert np.median(mass) > 0.9 and np.quantile(mass, 0.1) > 0.5


def test_one_pass_is_a_prompt_a_token(engine: TransformersEngine) -> None:
    request = lay(EXPLANATIONS[0], pieces(engine, TEXTS[0]))
    (together,) = read(engine, [request])
    engine.forget()
    apart = []
    for ids in engine.encoder.branches(request).prompts():
        import torch

        with torch.inference_mode():
            logits = engine.network(torch.from_numpy(ids)[None]).logits[0, -1].float()
        apart.append(logits.softmax(-1)[torch.from_numpy(engine.encoder.digits)].numpy())
    difference = np.abs(together.digits - np.stack(apart)).max()
    print(f"largest difference {difference:.1e}")
    assert difference < 1e-4


def test_how_often_a_named_word_is_rated_above_another(engine: TransformersEngine) -> None:
    """Stated, not wished: 6 and 9 of 10 were measured. A change of layout that loses what there is shows here."""
    above = 0
    for explanation, text, named, other in CASES:
        requests = [lay(explanation, [*pieces(engine, text), word], LAST) for word in (named, other)]
        one, two = ((r.digits[0] @ np.arange(10)) / r.digits[0].sum() for r in read(engine, requests))
        above += one > two
    print(f"the named word is rated higher in {above} of {len(CASES)} cases")
    assert above >= {"smollm2": 5, "qwen": 8}[Path(engine.model).name]


def test_a_gguf_file_reads_as_its_folder(engine: TransformersEngine) -> None:
    """The folder's weights were rounded to bfloat16, which is the difference."""
    file = Path(f"{engine.model}.gguf")
    if not file.is_file():
        pytest.skip(f"needs {file}")
    request = lay("the word dog", pieces(engine, TEXTS[0]))
    (one, two) = (dict(e.read([request]))[0] for e in (engine, build(str(file), Settings())))
    assert isinstance(one, Reading) and isinstance(two, Reading)
    strengths = [reading.digits @ np.arange(10) / reading.digits.sum(1) for reading in (one, two)]
    print(f"\n{file.name}: largest difference of a strength {np.abs(strengths[0] - strengths[1]).max():.3f} of 9")
    assert np.allclose(*strengths, atol=0.5)
