"""`rewrite new` and presets: a config that reads back, in sizes that fit, with minutes that are about right."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest

import rewrite.__main__ as cli
from rewrite.commands import new
from rewrite.commands.new import Wish, draft, pace
from rewrite.commands.new.estimate import Amounts, count_arms, estimate
from rewrite.commands.new.pace import measure, random_coder
from rewrite.commands.new.sizes import LEVELS, Machine, choose, look, read_sample
from rewrite.config import Config, UserError
from rewrite.run.configs import change_config, choose_config, data_folder, load_config, presets, read_preset
from rewrite.run.files import flatten
from rewrite.run.finished import open_finished
from rewrite.stages import STAGES
from rewrite.subject.subject import load_subject

MACHINE = Machine("cpu", 16 * 2**30)


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for a moment only."""
    monkeypatch.setattr(pace, "ENOUGH", 0.05)


def test_it_writes_a_config_that_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    command = ["new", str(file), "--hookpoint", "model.layers.0.mlp", "--device", "cpu", "--minutes", "5"]
    assert cli.main(command) == 0
    said, config = capsys.readouterr().out, load_config(file)
    assert (config.hookpoint, config.device, config.corpus.source) == ("layers.0.mlp", "cpu", "stdlib")
    assert config.subject == str((data_folder() / "subject").resolve())
    assert f"rewrite run --config {file} --run runs/mine" in said and "layers.0.mlp of subject" in said
    for stage in ("train", "evaluate", "report"):
        assert stage in said and stage in file.read_text().partition("subject")[0]
    assert max(len(line) for line in file.read_text().splitlines()) <= 120
    assert cli.main(command) == 2
    assert capsys.readouterr().err == f"rewrite: {file}: is there already; name another file\n"
    assert cli.main(["new", str(tmp_path / "b.toml"), "--hookpoint", "layers.9"]) == 2
    assert "hookpoint = layers.9" in capsys.readouterr().err and not (tmp_path / "b.toml").exists()


def test_it_asks_for_what_is_not_said(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def ask(question: str, proposed: str) -> str:
        asked.append((question, proposed))
        return "layers.0" if question == "Layer" else proposed

    file = tmp_path / "configs" / "a.toml"
    page = draft(Wish(file, preset="quick", device="cpu"), ask)
    subject = str((data_folder() / "subject").resolve())
    assert [proposed for _, proposed in asked] == [subject, "layers.1.mlp", "stdlib"]
    config = load_config(file)
    assert (config.hookpoint, config.coder.kind) == ("layers.0", "sae")
    quick = flatten(read_preset("quick"))
    assert quick.items() <= flatten(tomllib.loads(file.read_text())).items()
    assert page.facts["total"] == sum(page.facts["minutes"].values()) < 3


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(config: Config) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(new, "load_subject", loaded)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a\.toml: cannot be written \(File exists\); name another"):
        draft(Wish(tmp_path / "file" / "a.toml", device="cpu"), None)


def test_where_free_memory_is_not_told_all_of_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    told = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.delitem(os.sysconf_names, "SC_AVPHYS_PAGES")
    monkeypatch.setattr(os, "sysconf", told.__getitem__)
    assert look("cpu") == Machine("cpu", 4_096_000)


def test_sizes_shrink_until_they_fit() -> None:
    start = {"subject": str(data_folder() / "subject"), "corpus.max_documents": 200}
    subject = load_subject(change_config(Config(), start))
    sample = read_sample(change_config(Config(), start), subject)
    assert sample.documents == 200
    configs = [change_config(Config(), settings) for settings in choose(subject, MACHINE, sample, start, "")]
    assert len(configs) == len(LEVELS)
    coder = random_coder(subject, 256, 8, "transcoder")
    speed = measure(subject, sample.windows, coder, 8)
    totals = [
        sum(v or 0 for v in estimate(config, speed, sample.amounts(config), coder).values()) for config in configs
    ]
    assert totals == sorted(totals, reverse=True) and totals[0] > 3 * totals[-1]
    assert all(config.corpus.test == 20 for config in configs), "a tenth of the documents at most"
    with pytest.raises(UserError, match="stdlib: 60 documents; three splits need 80"):
        read_sample(change_config(Config(), start | {"corpus.max_documents": 60}), subject)


@pytest.mark.parametrize(("memory", "latents", "batch"), [(16, 32_768, 16), (2, 4096, 4)])
def test_a_small_memory_makes_them_small(memory: int, latents: int, batch: int) -> None:
    machine = Machine("cpu", memory * 2**30)
    assert (machine.latents(4096), machine.batch(128, 50_000)) == (latents, batch)
    assert Machine("cuda", 80 * 2**30).batch(128, 50_000) == 64


def test_arms_are_counted_as_they_are_scored(small_run: Path) -> None:
    config = choose_config(small_run, None, [], print)
    subject = load_subject(config)
    coder = random_coder(subject, config.coder.latents, config.coder.k, config.coder.kind)
    stats = json.loads((small_run / "6_stats.json").read_text())
    assert count_arms(config, coder) == len(stats["arms"])


def test_minutes_are_about_those_that_a_run_took(small_run: Path) -> None:
    config = choose_config(small_run, None, [], print)
    subject = load_subject(config)
    coder = random_coder(subject, config.coder.latents, config.coder.k, config.coder.kind)
    sample = read_sample(change_config(config, {"corpus.max_documents": 100}), subject)
    speed = measure(subject, sample.windows, coder, config.coder.batch)
    minutes = estimate(config, speed, Amounts(40_000, 2020, 2183, 12), coder)
    took = sum(open_finished(small_run, last="7_report").seconds.values()) / 60
    told = sum(value or 0.0 for value in minutes.values())
    assert list(minutes) == [stage.name for stage in STAGES if stage.only is None]
    assert took / 5 < told < 5 * took


def test_what_a_language_model_takes_is_not_guessed() -> None:
    config = load_config(None, ["explainer=llm", "explainers.llm.model=x", "score.scorers=['fuzz']", "score.model=x"])
    subject = load_subject(config)
    coder = random_coder(subject, 128, 8, "transcoder")
    speed = measure(subject, read_sample(config, subject).windows, coder, 8)
    minutes = estimate(config, speed, Amounts(1000, 1000, 1000, 10), coder)
    assert minutes["explain"] is None and minutes["score"] is None and minutes["simulate"] is not None


# --- presets ----------------------------------------------------------------------------------------------------------


def test_presets_lie_over_any_config(tmp_path: Path) -> None:
    assert presets() == ["full", "paper", "quick"]
    mine = tmp_path / "mine.toml"
    mine.write_text('hookpoint = "layers.0.mlp"\n[coder]\nkind = "sae"\nlatents = 99\n')
    config = load_config(mine, ["corpus.window=32"], "quick")
    assert (config.hookpoint, config.coder.kind) == ("layers.0.mlp", "sae"), "what it does not set stays"
    assert (config.coder.latents, config.corpus.window) == (read_preset("quick")["coder"]["latents"], 32)
    with pytest.raises(UserError, match="--preset quik: no such preset; there are: full, paper, quick"):
        load_config(None, [], "quik")


def test_a_preset_lies_over_a_runs_own_config(tmp_path: Path) -> None:
    own = load_config(None, ["hookpoint=layers.0.mlp", "coder.kind=sae", "coder.latents=99", "corpus.window=64"])
    (tmp_path / "manifest.json").write_text(json.dumps({"artefacts": {}, "config": own.model_dump(mode="json")}))
    config = choose_config(tmp_path, None, ["corpus.window=32"], print, "quick")
    assert (config.hookpoint, config.coder.kind) == ("layers.0.mlp", "sae"), "it goes on with the same layer"
    assert (config.coder.latents, config.corpus.window) == (read_preset("quick")["coder"]["latents"], 32)


def test_the_papers_preset_is_its_protocol() -> None:
    protocol = flatten(tomllib.loads((data_folder() / "configs" / "paper.toml").read_text()))
    assert flatten(read_preset("paper")).items() <= protocol.items()


def test_the_command_line_takes_a_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"artefacts": {}, "config": Config().model_dump(mode="json")}))
    assert cli.main(["status", "--run", str(tmp_path), "--preset", "quick"]) == 0
    assert f"rewrite run --run {tmp_path} --preset quick" in capsys.readouterr().out
    assert cli.main(["run", "--run", str(tmp_path), "--preset", "quik"]) == 2
    assert "--preset quik: no such preset" in capsys.readouterr().err
