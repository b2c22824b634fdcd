"""Facts of real small language models under the default layout (`make test-llm REWRITE_MODELS=DIR`).

DIR holds `smollm2` (SmolLM2-135M-Instruct) and `qwen` (Qwen2.5-Coder-0.5B-Instruct) as transformers saves them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explainers.test_explain_llm import evidence

from rewrite.engines.base import Branches, Reading
from rewrite.engines.transformers import Settings, TransformersEngine, build
from rewrite.explainers import llm as explain
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


@pytest.fixture(scope="module", params=["smollm2", "qwen"])
def engine(request: pytest.FixtureRequest) -> TransformersEngine:
    folder = Path(os.environ.get("REWRITE_MODELS", "")) / request.param
    if not os.environ.get("REWRITE_MODELS") or not folder.is_dir():
        pytest.skip(f"needs REWRITE_MODELS=DIR with the model {request.param} in it")
    return build(str(folder), Settings())


def pieces(engine: TransformersEngine, text: str) -> list[str]:
    tokenizer: Any = engine.encoder.tokenizer
    return [tokenizer.decode([token]) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def lay(explanation: str, tokens: Sequence[str], last: bool = False) -> Branches:
    asked = np.arange(len(tokens)) >= (len(tokens) - 1 if last else 0)
    (item,) = AllAtOnce(True).ask(explanation, tokens, asked)
    assert isinstance(item.request, Branches)
    return item.request


def read(engine: TransformersEngine, requests: list[Branches]) -> list[Reading]:
    found = dict(engine.read(requests))
    replies = [found[number] for number in range(len(requests))]
    assert all(isinstance(reply, Reading) for reply in replies)
    return [reply for reply in replies if isinstance(reply, Reading)]


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
        requests = [lay(explanation, [*pieces(engine, text), word], last=True) for word in (named, other)]
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


def test_short_contexts_are_explained_and_not_parroted(engine: TransformersEngine) -> None:
    explainer = explain.build(explain.Settings(model="m", layout="contexts", window=12), lambda model: engine)
    found = list(explainer.explain(evidence(), [1, 2, 3]))
    print("\n" + "\n".join(f"{Path(engine.model).name}: {one.text or one.why}" for one in found))
    assert not any(one.why.startswith(("parroted", "echo: the prompt")) for one in found)
    if Path(engine.model).name == "qwen":  # SmolLM2 says nothing of the words that it is shown.
        assert "king" in (found[0].text or "") and "queen" in (found[1].text or "")
