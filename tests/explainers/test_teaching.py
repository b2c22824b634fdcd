"""A language model is taught to explain: it says what it learned of latents it never met; a kill changes nothing."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from makers.commands import Command
from makers.small import small_config

from rewrite.commands.teach import teach
from rewrite.config import UserError
from rewrite.explainers.explanations import load_explanations
from rewrite.report.gathering import describe_models
from rewrite.run.files import read_json
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.stages import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHOSEN = [3, 11, 17]
SHOWN = ("explainers.llm.layout=contexts", "explainers.llm.windows=4", "explainers.llm.max_words=6")
BUDGET = ("tune.tokens=40000", "tune.learning_rate=0.01", "tune.every=20", "tune.batch=8", "tune.held_out=4")


def settings_of(model: Path, *more: str) -> list[str]:
    return [f"explainers.llm.model={model}", f"sample.latents={CHOSEN}", *SHOWN, *BUDGET, *more]


@pytest.fixture(scope="module")
def said(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which the same is said of every latent: what is learned can be told from what is not."""
    folder = tmp_path_factory.mktemp("said")
    lines = [f'{{"latent": {latent}, "text": "a horse"}}' for latent in range(128)]
    (folder / "said.jsonl").write_text("\n".join(lines), encoding="utf-8")
    shutil.copytree(small_run, folder / "run")
    with Run(folder / "run", "test") as run:
        go(STAGES, small_config(f"explain.file={folder / 'said.jsonl'}"), run, "explain", lambda line: None)
    return folder / "run"


@pytest.fixture(scope="module")
def taught(said: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("taught") / "explainer"
    teach(said, out, settings_of(tiny_model))
    return out


def explain(folder: Path, model: Path, adapter: Path, chosen: list[int]) -> list[str | None]:
    """What it writes of some latents of that run."""
    given = settings_of(model, "explainer=llm", f"explainers.llm.adapter={adapter}", f"sample.latents={chosen}")
    with Run(folder, "test") as run:
        go(STAGES, small_config(*given), run, "explain", lambda line: None)
    return [one.text for one in load_explanations(folder / "3_explanations.jsonl")]


def test_what_is_taught_is_said_of_latents_that_were_not_met(
    taught: Path, said: Path, tiny_model: Path, tmp_path: Path
) -> None:
    learned = read_json(taught / "learned.json")
    assert not set(learned["latents"]).intersection(CHOSEN) and len(learned["latents"]) > 30
    first, last = learned["curve"][0], learned["curve"][-1]
    assert first["latents"] == 4 and first["held_out"] > 3 > 0.1 > last["held_out"]
    shutil.copytree(said, tmp_path / "run")
    assert explain(tmp_path / "run", tiny_model, taught, CHOSEN) == ["a horse"] * 3
    told = describe_models(small_config("explainer=llm", f"explainers.llm.adapter={taught}"))
    assert told["taught to explain"].startswith(
        "as said.jsonl did at layers.1.mlp of subject; it met no latent of this"
    )


def test_a_latent_that_it_met_is_not_explained_by_it(
    taught: Path, said: Path, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(said, tmp_path / "run")
    met = read_json(taught / "learned.json")["latents"][0]
    with pytest.raises(UserError, match=f"1 latents of this coder, {met} the first, were learned from"):
        explain(tmp_path / "run", tiny_model, taught, [3, met])


def test_who_learned_on_another_model_or_was_shown_otherwise_is_refused(
    taught: Path, said: Path, tiny_model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    config = (other / "config.json").read_text(encoding="utf-8")
    (other / "config.json").write_text(config.replace("{", '{"made": "again",', 1), encoding="utf-8")
    shutil.copytree(said, tmp_path / "run")
    with pytest.raises(UserError, match=f"belongs to the model {tiny_model}"):
        explain(tmp_path / "run", other, taught, CHOSEN)
    given = settings_of(
        tiny_model, "explainer=llm", f"explainers.llm.adapter={taught}", "explainers.llm.layout=windows"
    )
    with Run(tmp_path / "run", "test") as run, pytest.raises(UserError, match="learned another layout"):
        go(STAGES, small_config(*given), run, "explain", lambda line: None)
    with pytest.raises(UserError, match=r"holds no explainer\.json; name a folder that `rewrite teach` wrote"):
        explain(tmp_path / "run", tiny_model, tmp_path, CHOSEN)


@pytest.mark.parametrize(
    ("more", "said_of"),
    [
        (["sample.latents=0"], r"sample\.latents = 0"),
        (["explainers.llm.model="], r"explainers\.llm\.model: not set"),
        (["explainers.llm.windwos=3"], r"explainers\.llm\.windwos"),
        (["tune.tokens=0"], r"tune\.tokens and tune\.minutes are both 0"),
        (["engine=openai"], "engine = openai: tunes no model"),
        (["explainers.llm.chain_of_thought=true"], "answers at once"),
        ([f"sample.latents={list(range(120))}"], "fewer than 10"),
    ],
)
def test_what_cannot_be_taught_is_said_in_a_line(
    said: Path, tiny_model: Path, tmp_path: Path, more: list[str], said_of: str
) -> None:
    with pytest.raises(UserError, match=said_of) as caught:
        teach(said, tmp_path / "out", settings_of(tiny_model, *more))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    said: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*what: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("rewrite.commands.teach._open_lessons", loaded)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--out .*file/out: cannot be written \(File exists\); name another"):
        teach(said, tmp_path / "file" / "out", settings_of(tiny_model))


def test_a_killed_one_goes_on_to_the_same_adapter(taught: Path, said: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "explainer"
    given = [part for pair in settings_of(tiny_model) for part in ("--set", pair)]
    command = Command("teach", str(said), "--out", str(out), *given)
    state = tmp_path / ".explainer.writing" / "state.safetensors"
    while not state.exists():
        assert command.poll() is None
        time.sleep(0.05)
    command.kill()
    assert not out.exists()
    teach(said, out, settings_of(tiny_model))
    ours, theirs = (
        np.frombuffer((folder / "adapter_model.safetensors").read_bytes(), np.uint8) for folder in (out, taught)
    )
    assert (ours == theirs).all()
