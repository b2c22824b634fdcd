"""The language-model explainer: how a model is asked, what an answer is worth, and failures that stay failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers.explaining import Scripted, evidence, explain, settings

from rewrite.coder.activations import ActivationStore
from rewrite.coder.evidence import gather_evidence
from rewrite.config import UserError
from rewrite.engines.base import Answer, Fault, Question
from rewrite.explainers import answers
from rewrite.explainers.base import Explanation
from rewrite.explainers.llm import Settings
from rewrite.explainers.llm import build as llm
from rewrite.run import plugins
from rewrite.text.corpus import SPLITS

# --- asking -----------------------------------------------------------------------------------------------------------


def test_how_the_model_is_asked() -> None:
    _, engine = explain(lambda q: Answer(" Kings."), [1], temperature=0.7, seed=3, max_words=20)
    (question,) = engine.asked
    assert (question.answer, question.stop, question.max_tokens) == ("[EXPLANATION]:", ("\n",), 80)
    assert (question.temperature, question.seed) == (0.7, 3)
    assert "at most 20 words" in question.messages[0].content
    _, engine = explain(lambda q: Answer("[EXPLANATION]: Kings."), [1], begun=False)
    assert engine.asked[0].stop == (), "who is not given the beginning may start with an empty line"
    _, engine = explain(lambda q: Answer("So.\n[EXPLANATION]: Kings."), [1], chain_of_thought=True, max_words=0)
    assert (engine.asked[0].answer, engine.asked[0].stop, engine.asked[0].max_tokens) == ("", (), 1400)
    assert "words" not in engine.asked[0].messages[0].content
    assert settings(max_tokens=77, chain_of_thought=True).longest == 77


def test_explanations_come_in_the_order_of_the_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "TOGETHER", 3)
    script = lambda q: Answer(f" Hash {len(q.messages[-1].content)}.")  # noqa: E731
    order = [3, 0, 1, 2, 1]
    found, engine = explain(script, order)
    assert [e.latent for e in found] == order and len(engine.asked) == 4
    alone = {latent: explain(script, [latent])[0][0] for latent in range(4)}
    assert found == [alone[latent] for latent in order]
    assert alone[0] == Explanation(0, "Never active on the text seen.") and not explain(script, [0])[1].asked


def test_faults_are_missing_explanations_with_their_kind() -> None:
    def script(question: Question) -> Answer | Fault:
        return Fault("timeout", "60 s") if "<< queen>>" in question.messages[-1].content else Answer(" Ok then.")

    found, _ = explain(script, exemplars="top", windows=1, few_shot=0)
    assert found[2] == Explanation(2, None, "timeout: 60 s")
    assert found[3].text == "Ok then." and found[0].text == llm.NEVER


def test_an_engine_that_forgets_leaves_a_missing_explanation() -> None:
    engine = Scripted(lambda q: Answer(" Yes."))
    engine.generate = lambda requests: iter([(1, Answer(" Queens."))])  # type: ignore[method-assign]
    found = list(llm.build(settings(), lambda model: engine).explain(evidence(), [1, 2, 3]))
    assert [e.text for e in found] == [None, "Queens.", None] and "no answer" in found[0].why


def test_rare_latents_are_missing_where_the_setting_says_so() -> None:
    found, engine = explain(lambda q: Answer(" Yes."), min_windows=4)
    assert found[2].text is None and "fires in 3 windows" in found[2].why and "min_windows = 4" in found[2].why
    assert found[0].text == llm.NEVER and found[1].text == "Yes." and len(engine.asked) == 2


def test_a_model_must_be_named() -> None:
    empty = plugins.settings("explainers", "llm", {})
    with pytest.raises(UserError, match=r"^explainers\.llm\.model: not set; name .*"):
        llm.build(Settings.model_validate(empty.model_dump()), lambda model: Scripted(lambda q: Answer("")))
    with pytest.raises(UserError, match=r"explainers\.llm\.few_shot: .* got 4"):
        plugins.settings("explainers", "llm", {"few_shot": 4})
    with pytest.raises(UserError, match=r"explainers\.llm\.exemplars: .*'best'"):
        plugins.settings("explainers", "llm", {"exemplars": "best"})


# --- a real model -----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("exemplars", ["quantile", "contrastive"])
def test_a_real_model_explains(small_run: Path, tiny_model: Path, exemplars: str) -> None:
    from rewrite.engines import transformers
    from rewrite.engines.transformers.build import build

    source = gather_evidence(ActivationStore(small_run / "2_activations", SPLITS).train)
    often = np.argsort(-source.firings, kind="stable")[:4].tolist()
    engine = build(str(tiny_model), transformers.Settings())
    now = settings(windows=6, window=16, max_words=12, exemplars=exemplars)
    found = list(llm.build(now, lambda model: engine).explain(source, often))
    assert [e.latent for e in found] == often
    for one in found:
        if one.text is None:
            assert one.why.split(":")[0] in ("truncated", "malformed") and (one.answer or one.why)
        else:
            assert answers.count_prose(one.text) <= 12 and not one.why
    again = [next(iter(llm.build(now, lambda model: engine).explain(source, [latent]))) for latent in often]
    assert again == found, "an answer does not depend on what is asked beside it"
