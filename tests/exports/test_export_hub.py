"""A run on the hub: all of it in a folder, uploaded by the real client, read back whole, and run again from there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from makers.exported import HOSTILE, with_explanations
from makers.finished_runs import edit_manifest
from makers.hub import open_hub

import rewrite.__main__ as cli
from rewrite.commands.export import export
from rewrite.commands.share import pull
from rewrite.config import UserError
from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import load_explanations
from rewrite.run.configs import load_config
from rewrite.run.files import hash_path
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.stages import STAGES


@pytest.fixture(scope="module")
def folder(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hub") / "out"
    export("hub", small_run, place)
    return place


def test_everything_is_there_and_every_file_is_in_the_sums(small_run: Path, folder: Path) -> None:
    assert hash_path(folder / "coder" / "layers.1.mlp" / "sae.safetensors") == hash_path(
        small_run / "1_coder" / "layers.1.mlp" / "sae.safetensors"
    )
    assert (folder / "stats.json").read_bytes() == (small_run / "6_stats.json").read_bytes()
    assert (folder / "report" / "index.html").read_bytes() == (small_run / "7_report" / "index.html").read_bytes()
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout) == (0, "")
    listed = {line.split("  ", 1)[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert there == listed | {"SHA256SUMS", "export.json"}


def test_the_card_says_what_it_is(small_run: Path, folder: Path) -> None:
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "rewrite-in-words" and "base_model" not in yaml.safe_load(front)
    sentence = json.loads((small_run / "6_stats.json").read_text())["verdict"]["sentence"]
    assert sentence.partition("[")[0] in text
    for path in re.findall(r"`([\w./]+)`", text):
        if path.startswith(("coder/", "explanations", "stats", "report/i")):
            assert (folder / path).exists(), path


def test_what_is_pulled_runs_again_to_the_same(small_run: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "theirs"
    lines = pull(str(folder), out)
    assert f"rewrite run --config {out}/rewrite.toml --run runs/theirs" in lines[-1]
    assert {p for p in out.rglob("*") if p.is_file()} == {
        out / p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.name != "export.json"
    }
    config = load_config(out / "rewrite.toml")
    assert (config.coder.path, config.explain.file) == (str(out / "coder"), str(out / "explanations.jsonl"))
    with Run(tmp_path / "again") as run:
        go(STAGES, config, run, "simulate", lambda line: None)
    for artefact in ("1_coder/layers.1.mlp", "4_simulations"):
        assert hash_path(tmp_path / "again" / artefact) == hash_path(small_run / artefact), artefact
    again, before = (load_explanations(f / "3_explanations.jsonl") for f in (tmp_path / "again", small_run))
    assert [(e.latent, e.text) for e in again] == [(e.latent, e.text) for e in before]


def test_nothing_of_this_machine_is_told(small_run: Path, tmp_path: Path) -> None:
    run = with_explanations(small_run, tmp_path / "r", [Explanation(i, HOSTILE[i % len(HOSTILE)]) for i in range(128)])
    config = json.loads((run / "manifest.json").read_text())["config"]
    config |= {"subject": "/home/me/models/gpt", "engines": {"openai": {"base_url": "http://inside:8000"}}}
    config["calls"]["cache"] = "/home/me/calls.sqlite"
    edit_manifest(run, config=config)
    export("hub", run, tmp_path / "out")
    for file in ("rewrite.toml", "README.md"):
        told = (tmp_path / "out" / file).read_text()
        assert "/home" not in told and "inside" not in told and str(tmp_path) not in told
    assert 'subject = "gpt"' in (tmp_path / "out" / "rewrite.toml").read_text()


@pytest.mark.slow
def test_the_hub_takes_it_and_gives_it_back(small_run: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_hub() as hub:
        here = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        script = [sys.executable, "-m", "rewrite"]
        sent = [*script, "export", "hub", str(small_run), "--out", str(out), "--upload", "me/words", "--private"]
        env = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"} | here
        refused = subprocess.run(sent, env=env, capture_output=True, text=True)
        assert refused.returncode == 2 and not out.exists() and not hub.asked
        assert refused.stderr == (
            "rewrite: --upload me/words: no token is set; set HF_TOKEN, or `hf auth login`, or use `hf upload` later\n"
        )
        told = subprocess.run(sent, env=env | {"HF_TOKEN": "hf_secret"}, capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        assert f"on the hub: {hub.address}/me/words" in told.stdout and "hf_secret" not in told.stdout + told.stderr
        assert hub.tokens == {"Bearer hf_secret"} and hub.private == {"me/words": True}
        assert hub.repositories["me/words"].keys() == {
            p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()
        }
        theirs = [*script, "pull", "me/words", "--out", str(tmp_path / "theirs")]
        got = subprocess.run(theirs, env=env, capture_output=True, text=True)
        assert got.returncode == 0, got.stderr
        absent = subprocess.run(
            [*script, "pull", "me/nothing", "--out", str(tmp_path / "x")], env=env, capture_output=True
        )
        assert absent.returncode == 2 and absent.stderr.count(b"\n") == 1
    assert hash_path(tmp_path / "theirs" / "coder") == hash_path(folder / "coder")
    assert (tmp_path / "theirs" / "SHA256SUMS").read_bytes() == (folder / "SHA256SUMS").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "stats.json").write_text("{}"), "stats.json is not what was exported"),
        (lambda f: (f / "stats.json").unlink(), "stats.json is listed and not there; get it again"),
        (lambda f: (f / "SHA256SUMS").unlink(), "no run that was exported for the hub"),
        (lambda f: (f / "SHA256SUMS").write_text("0" * 64 + "  ../../x\n"), "which names no file of it"),
        (lambda f: (f / "SHA256SUMS").write_text("0" * 64 + "  /etc/passwd\n"), "which names no file of it"),
        (lambda f: (f / "SHA256SUMS").write_text("nonsense\n"), "'nonsense', which names no file of it"),
    ],
)
def test_what_is_not_whole_is_not_taken(folder: Path, tmp_path: Path, spoil: object, said: str) -> None:
    shutil.copytree(folder, tmp_path / "in")
    spoil(tmp_path / "in")  # type: ignore[operator]
    with pytest.raises(UserError, match=re.escape(said)) as error:
        pull(str(tmp_path / "in"), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"], "nothing is left"


def test_bad_names_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    for command, said in (
        (["pull", str(folder), "--out", str(tmp_path / "there")], "is there already; name another folder"),
        (["pull", "./nowhere", "--out", str(tmp_path / "x")], "./nowhere: no such folder; name one, or OWNER/NAME"),
        (
            ["export", "saelens", str(folder), "--out", "x", "--upload", "a/b"],
            "--upload: is for the form hub, not saelens",
        ),
    ):
        assert cli.main(command) == 2
        assert said in capsys.readouterr().err
