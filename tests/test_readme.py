"""The README tells the truth: its commands, its files and its words are those of the project."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from rewrite.__main__ import build_parser
from rewrite.patterns.parsing import parse
from rewrite.run.configs import load_config
from rewrite.stages import STAGES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", README, re.DOTALL)
JOINED = [block.replace("\\\n", " ") for block in BLOCKS]
COMMANDS = [line for block in JOINED for line in block.splitlines() if line.startswith(("make ", "rewrite "))]


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 100


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_commands_are_known_and_reach_the_command_line(command: str) -> None:
    said = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for line in said.splitlines():
        if "/rewrite " in line:
            options = build_parser().parse_args(shlex.split(line)[1:])
            if getattr(options, "config", None):
                load_config(ROOT / options.config, options.set)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("rewrite ") and "--help" not in c])
def test_command_lines_parse(command: str) -> None:
    options = build_parser().parse_args(shlex.split(command)[1:])
    load_config(None, getattr(options, "set", []))


def test_the_example_explanation_is_in_the_language() -> None:
    examples = [line for block in BLOCKS for line in block.splitlines() if line.startswith("Fires on ")]
    assert examples
    for example in examples:
        assert parse(example)


def test_every_file_it_names_exists() -> None:
    tree = next(block for block in BLOCKS if "stages/" in block)
    names = re.findall(r"(?:^|\s{2,})([\w./]+(?:\.py|/))(?=\s)", tree)
    assert len(names) > 10
    for name in names:
        assert (ROOT / name).exists() or (ROOT / "rewrite" / name).exists(), name
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / path).exists(), path


def test_stages_and_artefacts_are_the_pipelines() -> None:
    block = next(block for block in BLOCKS if block.startswith("train "))
    for stage in STAGES:
        assert re.search(rf"^{stage.name}\s", block, re.MULTILINE)
        assert any(artefact in block for artefact in stage.writes)


def test_every_make_target_it_promises_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = "setup train explain simulate evaluate report run test check bench subject clean"
    for target in targets.split():
        assert re.search(rf"^[\w ]*\b{target}\b[\w ]*:", makefile, re.MULTILINE), target
