"""What a user types and what they read."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest
from makers.small import SMALL, TINY

import rewrite.__main__ as cli
from rewrite.commands.export import forms
from rewrite.run.store import Run
from rewrite.stages import STAGES

SETTINGS = [word for setting in SMALL for word in ("--set", setting)]


def test_help_is_short_and_says_where_the_keys_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["explain"], ["run"]):
        with pytest.raises(SystemExit, match="0"):
            cli.main([*command, "--help"])
        text = capsys.readouterr().out
        assert len(text.splitlines()) < 70
        assert "`rewrite help`" in text and "`rewrite config`" in text
    for stage in STAGES:
        assert stage.name in cli.build_parser().format_help()


def test_a_finished_run_does_nothing_and_says_the_verdict(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    before = (tmp_path / "r" / "manifest.json").stat().st_mtime_ns
    assert cli.main(["run", "--run", str(tmp_path / "r"), *SETTINGS]) == 0
    said = capsys.readouterr()
    stats = json.loads((small_run / "6_stats.json").read_text())
    assert stats["verdict"]["sentence"] in said.out
    assert said.err == ""
    assert (tmp_path / "r" / "manifest.json").stat().st_mtime_ns == before


def test_without_a_config_a_run_goes_on_with_its_own(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "r"
    shutil.copytree(small_run, folder)
    before = (folder / "manifest.json").read_bytes()
    assert cli.main(["report", "--run", str(folder)]) == 0
    assert capsys.readouterr().err == "", "nothing runs: its settings are not the bundled config's"
    assert (folder / "manifest.json").read_bytes() == before
    manifest = json.loads(before)
    manifest["config"] |= {"of_another_version": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert cli.main(["report", "--run", str(folder)]) == 0
    assert "does not know: of_another_version." in capsys.readouterr().err
    manifest["config"] = {"batch": "many"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert cli.main(["report", "--run", str(folder)]) == 2
    assert "name the run's own config with --config" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "simulator=patern"], "simulator = patern: no such simulator; did you mean patterns?"),
        (["--set", "explainer=gpt"], "explainer = gpt: no such explainer; there are: llm, patterns"),
        (["--set", "explainers.patterns.max_wrods=3"], "explainers.patterns.max_wrods: no such setting"),
        (["--set", "simulators.oracle.levels=-1", "--set", "simulator=oracle"], "simulators.oracle.levels"),
        (["--set", "hookpoint=layers.9.mlp"], "layers.1.mlp"),
        (["--set", "device=cuda:7"], "device = cuda:7"),
        (["--set", "subject=/nowhere"], "subject = /nowhere"),
        (["--set", "corpus.test=900"], "corpus.test = 900"),
        (["--set", "explain.file=/nowhere.jsonl"], "explain.file"),
        (["--set", "coder.path=/nowhere"], "coder.path"),
        (["--set", "calibrator=magic"], "should be 'identity', 'linear', 'quantile' or 'conditional_mean'"),
        (["--config", "/nowhere.toml"], "/nowhere.toml: no such config file"),
    ],
)
def test_bad_input_gives_one_line(
    small_run: Path, tmp_path: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    assert cli.main(["run", "--run", str(tmp_path / "r"), *SETTINGS, *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rewrite: ")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert (tmp_path / "r" / "6_stats.json").exists(), "nothing finished may be lost"


def test_too_few_documents_for_a_test_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = [*TINY, "corpus.test=2", "coder.tokens=4000", "coder.latents=16", "collect.train_tokens=4000"]
    settings = [word for setting in few for word in ("--set", setting)]
    assert cli.main(["analyse", "--run", str(tmp_path / "r"), *settings]) == 2
    assert "documents" in capsys.readouterr().err.splitlines()[-1]


def test_a_run_folder_in_use_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run(tmp_path / "r", "simulate"):
        assert cli.main(["report", "--run", str(tmp_path / "r")]) == 2
    assert "(rewrite simulate); wait for it to end" in capsys.readouterr().err


def test_a_truncated_artefact_is_named(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    losses = tmp_path / "r" / "5_losses.parquet"
    losses.write_bytes(losses.read_bytes()[:-20])
    assert cli.main(["run", "--run", str(tmp_path / "r"), *SETTINGS]) == 2
    assert f"{losses}: not what was written" in capsys.readouterr().err
    losses.unlink()
    assert cli.main(["run", "--run", str(tmp_path / "r"), *SETTINGS]) == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 102016 vs 101904"),
    ],
)
def test_a_full_disk_is_one_line(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "go", full)
    assert cli.main(["run", "--run", str(tmp_path / "r")]) == 2
    assert "no space left" in capsys.readouterr().err


def test_explanations_can_be_moved_edited_and_read_back(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    rows = [json.loads(line) for line in (small_run / "3_explanations.jsonl").read_text().splitlines()]
    rows[3]["text"] = "I have no idea (really)."
    edited = tmp_path / "edited.jsonl"
    edited.write_text("\n".join(json.dumps({"latent": r["latent"], "text": r["text"]}) for r in rows[:-1]))
    assert cli.main(["run", "--run", str(tmp_path / "r"), *SETTINGS, "--set", f"explain.file={edited}"]) == 0
    import pyarrow.parquet as pq

    missing = pq.read_table(tmp_path / "r" / "5_latents.parquet").column("missing").to_pylist()
    assert "I have no idea (really)." in missing[3]
    assert missing[-1] == "not in the explanations file"
    assert sum(bool(why) for why in missing) == 2
    assert "not in the explanations file" in (tmp_path / "r" / "7_report" / "report.md").read_text()


def test_explanations_edited_in_place_are_not_lost(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    file = tmp_path / "r" / "3_explanations.jsonl"
    file.write_text(file.read_text() + "\n")
    assert cli.main(["run", "--run", str(tmp_path / "r"), *SETTINGS]) == 2
    assert "set explain.file to a copy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"latent": 5000, "text": "x"}', "mine.jsonl:1: latent 5000"),
        ('{"latent": 1, "text": "x"}\n{"latent": 1, "text": "y"}', "mine.jsonl:2: latent 1 is explained twice"),
        ('{"text": "x"}', "needs an object with latent and text"),
        ('{"latent": 1, "text": 3}', "text must be a string"),
        ("", "no explanations in this file"),
    ],
)
def test_bad_explanation_files_are_named(
    small_run: Path, tmp_path: Path, content: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    (tmp_path / "mine.jsonl").write_text(content)
    mine = f"explain.file={tmp_path / 'mine.jsonl'}"
    assert cli.main(["explain", "--run", str(tmp_path / "r"), *SETTINGS, "--set", mine]) == 2
    assert expected in capsys.readouterr().err


def test_a_dry_run_of_a_finished_run_asks_nothing_in_every_form(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_run, tmp_path / "r")
    command = ["run", "--run", str(tmp_path / "r"), *SETTINGS, "--dry-run"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == "No language model would be asked\n"
    assert cli.main([*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["stages"] == [] and facts["total"]["calls"] == 0
    assert cli.main([*command, "--out", str(tmp_path / "price.md")]) == 0
    assert (tmp_path / "price.md").read_text() == "# No language model would be asked\n"


@pytest.mark.parametrize("command", [["analyse", "--dry-run"], ["train"]])
def test_what_makes_nothing_leaves_a_run_as_it_was(
    command: list[str], small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither its artefacts nor the config that it says it was made with: others read that."""
    shutil.copytree(small_run, tmp_path / "r")
    before = {file.name: file.read_bytes() for file in (tmp_path / "r").glob("*.json")}
    command = [*command, "--run", str(tmp_path / "r"), *SETTINGS, "--set", "analyse.margin=0.06"]
    assert cli.main(command) == 0, capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in (tmp_path / "r").glob("*.json")} == before


def test_the_folder_of_a_sweep_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    assert cli.main(["report", "--run", str(tmp_path)]) == 2
    assert "is the folder of a sweep, whose runs are folders in it; its page is index.html" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.json"]


@pytest.mark.parametrize("option", [["--json"], ["--markdown"], ["--out", "x.md"]])
def test_a_run_prints_no_table(tmp_path: Path, option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--run", str(tmp_path / "r"), *option]) == 2
    assert "are for --dry-run; `rewrite status` tells of a run" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_open_shows_the_page_in_the_browser(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a run #1"
    shutil.copytree(small_run, folder)
    note = tmp_path / "opened"
    (tmp_path / "browser").write_text(f'#!/bin/sh\necho "$1" > {note}\n')
    (tmp_path / "browser").chmod(0o755)
    environment = os.environ | {"BROWSER": str(tmp_path / "browser")}
    command = ["report", "--run", str(folder), *SETTINGS, "--open"]
    said = subprocess.run([sys.executable, "-m", "rewrite", *command], env=environment, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")
    page = folder / "7_report" / "index.html"
    assert f"report: {page}" in said.stdout and page.is_file()
    assert note.read_text().strip() == page.as_uri()

    def fail(address: str) -> bool:
        raise webbrowser.Error(address)

    for none in (fail, lambda address: False):
        monkeypatch.setattr("webbrowser.open", none)
        assert cli.main(command) == 0
        assert capsys.readouterr().err == f"rewrite: no browser could be opened; open {page} in one\n"
    with pytest.raises(SystemExit, match="2"):
        cli.main([*command, "--dry-run"])


def test_a_form_that_cannot_be_exported_is_one_line(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", "neuropedia", str(small_run), "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"rewrite: export = neuropedia: no such export; did you mean neuronpedia? there are: {', '.join(forms())}\n"
    )
    assert cli.main(["export", "neuronpedia", str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()
    with pytest.raises(SystemExit, match="0"):
        cli.main(["export", "--help"])
    helped = " ".join(capsys.readouterr().out.split())
    assert all(f"{form}: {told.split()[0]}" in helped for form, told in forms().items())


def test_an_export_says_what_it_wrote(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "dataset", str(small_run), "--out", str(tmp_path / "x")]) == 0
    assert capsys.readouterr().out.strip()
    assert (tmp_path / "x" / "README.md").is_file()
