"""Runs made together: one pass over the text for several hookpoints, and what is the same taken over, bit for bit."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from makers.small import small_config, tiny_config

from rewrite.config import Config
from rewrite.run.files import hash_path
from rewrite.run.runner import go, go_together
from rewrite.run.store import Run
from rewrite.stages import STAGES

pytestmark = pytest.mark.slow


def make(folder: Path, points: dict[str, Config], last: str, others: list[Path]) -> list[str]:
    said: list[str] = []
    with ExitStack() as stack:
        runs = [(config, stack.enter_context(Run(folder / name, "test"))) for name, config in points.items()]
        go_together(STAGES, runs, last, said.append, others)
    return said


def entries(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["artefacts"]
    return found


def test_several_hookpoints_are_one_pass_and_the_same_bytes(small_run: Path, tmp_path: Path) -> None:
    points = {
        "one": small_config("hookpoint=layers.1.mlp"),
        "zero": tiny_config("hookpoint=layers.0.mlp"),
        "narrow": tiny_config("hookpoint=layers.0.mlp", "coder.latents=16"),
    }
    said = make(tmp_path, points, "collect", [small_run])
    assert "train: the same as in small" in said, "the coder that another run trained is taken over"
    assert "collect: the same as in small" in said
    assert "collect: begins; for 2 runs at once" in said
    for name in ("zero", "narrow"):
        with Run(tmp_path / f"{name} alone", "test") as run:
            go(STAGES, points[name], run, "collect", said.append)
        for artefact in ("1_coder", "2_activations"):
            assert hash_path(tmp_path / name / artefact) == hash_path(tmp_path / f"{name} alone" / artefact)
    corpus = json.loads((small_run / "manifest.json").read_text())["corpus"]
    assert json.loads((tmp_path / "one" / "manifest.json").read_text())["corpus"] == corpus
    assert make(tmp_path, points, "collect", []) == [], "all of it is fresh"


def test_what_is_the_same_is_taken_over_and_no_more(small_run: Path, tmp_path: Path) -> None:
    config = small_config("calibrator=linear")
    said = make(tmp_path, {"linear": config}, "analyse", [tmp_path / "nothing", small_run])
    taken = [line for line in said if line.endswith("the same as in small")]
    assert [line.partition(":")[0] for line in taken] == ["train", "collect", "explain", "simulate", "score"]
    own, theirs = entries(tmp_path / "linear"), entries(small_run)
    assert own["4_simulations"]["from"] == "small" and own["4_simulations"]["seconds"] == 0
    assert own["4_simulations"]["sha256"] == theirs["4_simulations"]["sha256"]
    assert own["5_losses.parquet"]["sha256"] != theirs["5_losses.parquet"]["sha256"]
    inode = "3_explanations.jsonl"
    assert (tmp_path / "linear" / inode).stat().st_ino == (small_run / inode).stat().st_ino, "linked, not copied"
    shutil.copytree(small_run, tmp_path / "alone")
    with Run(tmp_path / "alone", "test") as run:
        go(STAGES, config, run, "analyse", said.append)
    assert (tmp_path / "alone" / "6_stats.json").read_bytes() == (tmp_path / "linear" / "6_stats.json").read_bytes()


def test_a_damaged_artefact_of_another_run_is_not_taken_over(small_run: Path, tmp_path: Path) -> None:
    with Run(tmp_path / "good", "test") as run:
        go_together(STAGES, [(small_config(), run)], "explain", lambda line: None, [small_run])
    explanations = tmp_path / "good" / "3_explanations.jsonl"
    text = explanations.read_text()
    explanations.unlink()
    explanations.write_text(text.replace("Fires on", "Fires at"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "manifest.json").write_text("{")
    said = make(tmp_path, {"next": small_config()}, "explain", [tmp_path / "bad", tmp_path / "good"])
    assert said == ["train: the same as in good", "collect: the same as in good", "explain: begins"]
    assert entries(tmp_path / "next")["3_explanations.jsonl"]["sha256"] == hash_path(small_run / "3_explanations.jsonl")
    assert not list((tmp_path / "next").glob(".writing-*"))
