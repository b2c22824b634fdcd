"""What is handed on: a package under a name of its own, with all that a run reads, cited and tested under that name."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import rewrite
import rewrite.__main__ as cli

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("constraints*.txt"), ROOT / "pyproject.toml", *ROOT.glob("Dockerfile*")]
CODE = [*(ROOT / "rewrite").rglob("*.py"), *(ROOT / "rewrite").rglob("*.jinja"), *(ROOT / "docs").glob("*.md")]


def test_one_name_is_installed_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert PROJECT["name"] == rewrite.DISTRIBUTION
    assert PROJECT["scripts"] == {"rewrite": "rewrite.__main__:command"}
    assert f"pip install {rewrite.DISTRIBUTION}" in (ROOT / "README.md").read_text()
    for path in TEXTS + CODE:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pip install (-\S+ )*['\"]?rewrite(?!-in-words)", text), (
            f"{path} installs another's package"
        )
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"{rewrite.DISTRIBUTION} {rewrite.__version__}\n"


def test_the_install_lines_name_extras_that_there_are() -> None:
    named = {
        extra
        for path in TEXTS + CODE
        for found in re.findall(
            r"(?:DISTRIBUTION\}|rewrite-in-words|'\.)\[([a-z,]+)\]", path.read_text(encoding="utf-8")
        )
        for extra in found.split(",")
    }
    assert {"openai", "vllm", "tune", "gguf"} <= named <= set(PROJECT["optional-dependencies"])


def test_it_is_cited_as_it_is() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["title"], citation["version"]) == ("rewrite", rewrite.__version__)
    assert citation["authors"] and citation["license"] == "MIT"
    (article,) = citation["references"]
    assert [one["family-names"] for one in article["authors"]] == ["Paulo", "Belrose"]
    assert article["url"] in (ROOT / "README.md").read_text()


def test_the_workflow_runs_what_guards_the_main_branch_on_every_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    pythons = job["strategy"]["matrix"]["python"]
    assert pythons == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert (ROOT / ".ci" / "run").is_file()
    assert "PYTHON ?=" in (ROOT / "Makefile").read_text() and "matrix.python" in job["env"]["PYTHON"]


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_a_container_has_what_it_needs_and_runs_the_main_command(name: str) -> None:
    text = (ROOT / name).read_text()
    copied = {word for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for word in line.split()}
    let_in = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied == let_in and all((ROOT / path).exists() for path in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], PROJECT["readme"], PROJECT["license"]["file"]}
    assert {path.split("/")[0] for path in needed} <= copied
    command = re.search(r"^CMD (\[.+\])$", text, re.MULTILINE)
    assert command and re.search(r'^ENTRYPOINT \["rewrite"\]$', text, re.MULTILINE)
    options = cli.build_parser().parse_args(yaml.safe_load(command[1]))
    assert options.command == "run" and str(options.run).startswith("runs/") and "\nVOLUME /runs\n" in text


def test_the_wheel_holds_what_a_run_reads(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: make setup")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"{rewrite.DISTRIBUTION.replace('-', '_')}-{rewrite.__version__}-")
    held = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("data/configs", "data/subject", "prompts"):
        files = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert files and {f"rewrite/{path.as_posix()}" for path in files} <= held, folder
    code = {path.relative_to(ROOT).as_posix() for path in CODE if path.is_relative_to(ROOT / "rewrite")}
    assert code <= held
    assert not {path for path in held if path.startswith(("tests/", "benchmarks/"))}
