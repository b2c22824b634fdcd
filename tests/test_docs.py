"""The documentation tells the truth: its commands run, its examples run, its tables are those of the project."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import rewrite.__main__ as cli
from rewrite.arms.calibrate import CALIBRATORS
from rewrite.config.judging import Control
from rewrite.run import brought
from rewrite.run.configs import list_keys, load_config
from rewrite.stages import STAGES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "runs" not in page.parts)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHEAP = {"help", "config", "new", "status", "plan", "compare", "export", "pull", "simulate"}
"""Commands that the tests run where the documentation has them in a block `bash`; others are parsed."""


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def commands(page: Path, *languages: str) -> list[str]:
    joined = [block.replace("\\\n", " ") for block in blocks(page, *languages)]
    return [line for block in joined for line in block.splitlines() if line.startswith(("rewrite ", "make "))]


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).with_suffix("").as_posix()


@pytest.fixture(scope="module")
def desk(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with two finished runs, as the pages suppose."""
    folder = tmp_path_factory.mktemp("desk")
    for run in ("first", "second"):
        shutil.copytree(small_run, folder / "runs" / run)
    return folder


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_examples_run(page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setattr(brought, "_GIVEN", {})
    scope: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{name_of(page)} {number}", "exec"), scope)


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p, "bash")], ids=name_of)
def test_commands_run(page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    for command in commands(page, "bash"):
        words = shlex.split(command)[1:]
        if words[0] in CHEAP:
            assert cli.main(words) == 0, command
        else:
            parse(words)


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p, "")], ids=name_of)
def test_commands_that_take_long_parse(page: Path) -> None:
    for command in commands(page, ""):
        if command.startswith("make "):
            said = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=True)
            for line in said.stdout.splitlines():
                if "/rewrite " in line:
                    parse(shlex.split(line)[1:])
        else:
            parse(shlex.split(command)[1:])


def parse(words: list[str]) -> None:
    options = cli.build_parser().parse_args(words)
    load_config(None, getattr(options, "set", []), getattr(options, "preset", ""))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_it_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"\]\(((?!http|#)[^)#]+)", text):
        assert (page.parent / path).exists(), path
    for path in re.findall(r"`((?:rewrite|data|docs|tests|benchmarks)/[\w./]+)`", text):
        assert (ROOT / path).exists() or path.startswith("rewrite/simulators/"), path
    known, tables = list_keys(), {name.partition(".")[0] for name in list_keys() if "." in name}
    for key in re.findall(rf"`((?:{'|'.join(sorted(tables))})\.[a-z_]+)\b[^`]*`", text):
        assert key in known or (DOCS / key).exists(), key


def test_the_site_has_every_page_and_nothing_else() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r": ([\w/-]+\.(?:md|ipynb))$", text, re.MULTILINE))
    assert listed == {p.relative_to(DOCS).as_posix() for p in (*PAGES, *DOCS.glob("notebooks/*.ipynb"))}
    assert yaml.safe_load(text)["strict"] is True
    for name in re.findall(r"^::: ([\w.]+)$", (DOCS / "reference" / "api.md").read_text(), re.MULTILINE):
        module, _, last = name.rpartition(".")
        try:
            found = __import__(name, fromlist=["_"])
        except ModuleNotFoundError:
            found = getattr(__import__(module, fromlist=["_"]), last)
        assert found.__doc__, name


def test_the_run_folder_is_told_whole(small_run: Path) -> None:
    text = (DOCS / "reference" / "run-folder.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (\w+) \|", text, re.MULTILINE))
    assert {artefact: stage.name for stage in STAGES for artefact in stage.writes}.items() <= rows.items()
    stats = json.loads((small_run / "6_stats.json").read_text())
    keys = text.split("## 6_stats.json")[1]
    named = {key for row in re.findall(r"^\| (`.+?) \|", keys, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}
    assert named == stats.keys()
    told = re.findall(r"^\| `(arms|comparisons|gap)` \| (.+) \|$", keys, re.MULTILINE)
    assert len(told) == 3
    for part, fields in told:
        one = stats[part] if part == "gap" else stats[part][0]
        assert set(re.findall(r"`(\w+)`", fields)) <= one.keys(), part


def test_arms_and_calibrators_are_those_there_are() -> None:
    arms = (DOCS / "science" / "arms.md").read_text()
    for control in Control.__args__:  # type: ignore[attr-defined]
        assert f"`{control}`" in arms, control
    told = (DOCS / "science" / "calibrators.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE)) == {*CALIBRATORS, "calibrator"}


def test_what_builds_the_site_is_pinned_and_apart() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = {re.split("==", line)[0].lower() for line in (ROOT / "constraints-docs.txt").read_text().splitlines()}
    wanted = {re.split(r"[\[>=]", one)[0] for one in project["docs"]}
    assert wanted <= pins and not wanted & {re.split(r"[\[>=]", one)[0] for one in project["dev"]}


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    mkdocs = ROOT / ".venv-docs" / "bin" / "mkdocs"
    if not mkdocs.exists():
        pytest.skip("no .venv-docs here: `make docs` makes it and builds the site")
    build = [str(mkdocs), "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "A config and a run folder" in (tmp_path / "site" / "reference" / "api" / "index.html").read_text()
