"""What a notebook has in memory: a model, texts, a coder, explanations, a class that simulates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.small import SMALL, small_config
from transformers import AutoModelForCausalLM, AutoTokenizer

import rewrite
from rewrite.commands.status import status
from rewrite.commands.study import Study
from rewrite.commands.study.classes import give_simulator
from rewrite.config import Config, Section, UserError
from rewrite.explainers.base import Explanation
from rewrite.run.brought import find_brought
from rewrite.run.configs import change_config, data_folder, parse_value
from rewrite.run.files import hash_path
from rewrite.simulators.base import Strengths
from rewrite.simulators.strengths import Simulations
from rewrite.subject.held import find_held, hold
from rewrite.text.sources import read_corpus
from rewrite.text.windows import Text

pytestmark = pytest.mark.usefixtures("session")

SETTINGS = {key: parse_value(value) for key, _, value in (setting.partition("=") for setting in SMALL)}
BUNDLED = data_folder() / "subject"


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(BUNDLED, dtype="float32")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(BUNDLED)


# --- what is in memory ------------------------------------------------------------------------------------------------


def brief(run: Path, *given: Any, **more: Any) -> Study:
    settings = SETTINGS | {"coder.tokens": 2000} | more.pop("settings", {})
    return rewrite.study(*given, run=run, settings=settings, **more)


def test_a_model_in_memory_gives_what_its_folder_gives(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    loaded, held = brief(tmp_path / "a"), brief(tmp_path / "b", model, tokenizer)
    for study in (loaded, held):
        study.run("train")
    assert hash_path(tmp_path / "a" / "1_coder") == hash_path(tmp_path / "b" / "1_coder")
    assert held.subject.model is model
    assert held.config.subject.startswith("memory:llama-")
    assert (held.config.dtype, held.config.device) == ("float32", "cpu")


def test_a_subject_that_is_wrapped_brings_its_hookpoint(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    subject = rewrite.build_subject(model, tokenizer, "layers.0.mlp")
    study = brief(tmp_path / "r", subject)
    assert (study.config.hookpoint, study.subject.layer) == ("layers.0.mlp", 0)


def test_a_model_that_was_changed_is_another(model: Any, tokenizer: Any) -> None:
    name = hold(model, tokenizer)
    assert hold(model, tokenizer) == name and find_held(name).model is model  # type: ignore[union-attr]
    weight = model.get_input_embeddings().weight
    kept = weight[0, 0].item()
    weight.data[0, 0] += 1
    assert hold(model, tokenizer) != name
    weight.data[0, 0] = kept
    assert hold(model, tokenizer) == name


@pytest.mark.parametrize("hookpoint", ["layers.0.mlp", "layers.1"])
def test_a_model_is_known_again_after_its_norms_were_joined(tokenizer: Any, hookpoint: str) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Gemma2Config(vocab_size=len(tokenizer), num_hidden_layers=2, head_dim=8, **sizes)
    gemma = Gemma2ForCausalLM(config)
    name = hold(gemma, tokenizer)
    rewrite.build_subject(gemma, tokenizer, hookpoint)
    assert hold(gemma, tokenizer) == name


def test_a_model_of_another_process_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"subject = memory:llama-1: was in the memory of another process"):
        rewrite.study("memory:llama-1", run=tmp_path).run("train")


def test_what_is_no_model_is_refused(tmp_path: Path, model: Any) -> None:
    with pytest.raises(UserError, match="Linear: not a model of the transformers library"):
        rewrite.study(model.get_output_embeddings(), run=tmp_path)
    with pytest.raises(UserError, match="tokenizer: not given"):
        rewrite.study(model, run=tmp_path)


def test_texts_coder_and_explanations_are_kept_in_the_run_folder(tmp_path: Path, study: Study) -> None:
    documents = [document.text for document in read_corpus(small_config().corpus).documents]
    mine = brief(tmp_path / "r", texts=documents, coder=study.coder, explanations={5: 'Fires on "self" (7).'})
    assert mine.coder.W_enc.equal(study.coder.W_enc)
    assert mine.explain(5).text == 'Fires on "self" (7).'
    assert mine.explain(6).text is None and "not in the explanations file" in repr(mine.explain(6))
    assert sorted(p.name for p in (tmp_path / "r" / "given").iterdir()) == [
        "coder",
        "explanations.jsonl",
        "texts.jsonl",
    ]
    assert len(mine.activations.test.names) == 12
    again = rewrite.study(run=tmp_path / "r")
    assert again.config == mine.config, "goes on from disk alone"
    with pytest.raises(UserError, match="texts: give a list of strings"):
        brief(tmp_path / "r", texts=[1, 2])


def test_settings_are_refused_in_one_line(tmp_path: Path) -> None:
    for settings, said in (
        ({"coder.kk": 3}, r"coder.kk = 3: no such key; did you mean coder.k\?"),
        ({"coder.k": "many"}, "coder.k = 'many': input should be a valid integer"),
        ({"batch.x": 1}, "batch.x = 1: batch is a value, not a table"),
    ):
        config = change_config(Config(), {"batch": 4})
        with pytest.raises(UserError, match=said):
            change_config(config, settings)
    assert change_config(config, {}) == config
    with pytest.raises(UserError, match=r"nowhere\.toml: no such config file"):
        rewrite.study(run=tmp_path, config="nowhere.toml")


# --- a class in a cell ------------------------------------------------------------------------------------------------


class Second:
    """Says the same of every second latent that is explained, wherever it is asked."""

    scale = 4.0

    def __init__(self, explanations: list[Explanation], latents: int) -> None:
        self.explanations, self.latents = explanations, latents

    def simulate(self, text: Text) -> np.ndarray:
        said = np.zeros((len(text.ids), self.latents))
        for one in self.explanations:
            said[:, one.latent] = 2.0 * (one.latent % 2)
        return said


def test_a_class_is_a_simulator(study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(study.folder, folder)
    own = study.but(simulator=Second, run=folder)
    calibration = own.calibrate()
    assert calibration.fitted.tally.scale == 4
    simulations = Simulations(folder / "4_simulations", 128)
    shard = own.activations.test.shards[0]
    text = simulations.show(shard, own.activations.test.load(shard).text)
    said = simulations.strengths(shard, len(text.ids)).toarray()
    assert not said[~text.counted()].any(), "what is not counted is not simulated"
    assert (said[text.counted()] == 2.0 * (np.arange(128) % 2)).all()
    assert own.simulate(7, "for i in range(3): pass").strengths[3] == 2
    own.verdict()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["config"]["simulator"] == "Second"
    assert set(manifest["versions"]) >= {"Second of this session"}


def test_status_tells_of_a_run_whose_class_is_not_here(small_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(small_run, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["simulator"] = "Gone"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    page = status(folder)
    assert page.facts["verdict"] and "simulator = Gone: no such simulator" in page.facts["unknown"]
    assert [stage["stage"] for stage in page.facts["stages"]][:4] == ["train", "collect", "explain", "simulate"]


def define(body: str, settings: str = "") -> type:
    """A class as a cell defines it: nowhere in a file."""
    scope: dict[str, Any] = {"np": np, "Section": Section, "Strengths": Strengths}
    source = f"class Cell:\n    scale = 9.0\n{settings}    def __init__(self, explanations, latents, settings=None):\n"
    source += "        self.latents, self.settings = latents, settings\n    def simulate(self, text):\n        " + body
    exec(source, scope)
    found: type = scope["Cell"]
    return found


ZEROS = "return np.zeros((len(text.ids), self.latents))"


def version(simulator: type) -> str:
    give_simulator(simulator)
    (given,) = find_brought("simulators")["Cell"]
    return given.version


def test_a_cell_that_is_edited_simulates_anew() -> None:
    first = version(define(ZEROS))
    assert version(define(ZEROS)) == first, "run again as it was"
    assert version(define(ZEROS.replace("zeros", "ones"))) != first
    assert version(define(ZEROS + " + 1")) not in (first, version(define(ZEROS + " + 2")))
    table = "    class Settings(Section):\n        words: int = 3\n"
    assert version(define(ZEROS, table)) not in (first, version(define(ZEROS, table.replace("3", "4"))))


def test_a_class_may_have_settings(study: Study) -> None:
    table = "    class Settings(Section):\n        words: int = 3\n"
    simulator = define("return np.full((len(text.ids), self.latents), float(self.settings.words))", table)
    own = study.but(simulator=simulator, run=study.folder, settings={"simulators.Cell.words": 5})
    assert own.simulate("whatever it says", "for i in range(3): pass").strengths[2] == 5
    with pytest.raises(UserError, match=r"simulators.Cell.word: no such setting; there are: words"):
        own.but(settings={"simulators.Cell.word": 5}).run("simulate")


@pytest.mark.parametrize(
    ("simulator", "said"),
    [
        (object, r"simulator object: needs to be a class with simulate\(text\)"),
        (type("patterns", (Second,), {}), "simulator patterns: is built in; give the class another name"),
        (type("Own", (Second,), {"Settings": dict}), r"simulator Own: its Settings are no rewrite.Section"),
    ],
)
def test_a_class_that_is_no_simulator_is_refused(simulator: type, said: str) -> None:
    with pytest.raises(UserError, match=said):
        give_simulator(simulator)


@pytest.mark.parametrize(
    ("simulator", "said"),
    [
        (
            define("return np.zeros((3, self.latents))"),
            r"returned \(3, 1\); it must be positions × latents, \(\d+, 1\)",
        ),
        (type("NoScale", (Second,), {"scale": "nine"}), "scale = 'nine'; set it to the top of its scale"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(study: Study, simulator: type, said: str) -> None:
    with pytest.raises(UserError, match=said):
        study.but(simulator=simulator).simulate("words", "for i in range(3): pass")
