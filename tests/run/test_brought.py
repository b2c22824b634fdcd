"""Backends that other packages bring: found by what an installed distribution says, imported where they are chosen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from makers.small import SMALL, small_config
from makers.watching import unwatched

import rewrite.__main__ as cli
from rewrite.config import UserError
from rewrite.run import plugins
from rewrite.run.configs import load_config
from rewrite.run.freshness import stage_keys
from rewrite.stages import STAGES

SETTINGS = [word for setting in SMALL for word in ("--set", setting)]
SIMULATOR = '''
"""Says the same of every second latent that is explained."""

from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from rewrite.config import Place, Section
from rewrite.simulators.base import Strengths, find_missing

(Path(__file__).parent / "imported").touch()


class Settings(Section):
    strength: float = 9.0
    """What is said of them [0 to 9]."""
    words: Place = ""
    """A file of words."""


class Second:
    scale = 9.0

    def __init__(self, explanations, latents, strength):
        self.explanations, self.latents, self.strength = explanations, latents, strength

    def simulate(self, text):
        values = np.zeros((len(text.ids), self.latents), dtype=np.float32)
        counted = text.counted()
        for one in self.explanations:
            values[counted, one.latent] = self.strength * (one.latent % 2)
        return Strengths(csr_array(values), find_missing(self.explanations, self.latents))


def build(explanations, latents, settings, peek, open_engine):
    return Second(explanations, latents, settings.strength)
'''
EXPORT = """
def write(run, folder):
    (folder / "simulator.txt").write_text(run.setting("simulator"))
    return ["simulator.txt: who simulates"]
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a package with one module and its entry points where Python finds installed ones."""
    made = []

    def put(module: str, text: str, points: dict[str, list[str]], version: str = "1.2", package: str = "") -> Path:
        folder = tmp_path / f"site-{len(made)}"
        made.append(module)
        info = folder / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(text)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package or module}\nVersion: {version}\n")
        groups = [f"[rewrite.{kind}]\n" + "\n".join(lines) for kind, lines in points.items()]
        (info / "entry_points.txt").write_text("\n\n".join(groups) + "\n")
        monkeypatch.syspath_prepend(folder)
        return folder

    yield put
    for module in made:
        sys.modules.pop(module, None)


def install_second(install: Install, version: str = "1.2") -> Path:
    points = {"simulators": ["second = second_latents"]}
    return install("second_latents", SIMULATOR, points, version, "Second-Latents")


def test_a_run_simulates_with_a_simulator_of_another_package(
    small_run: Path, tmp_path: Path, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install_second(install)
    folder = tmp_path / "r"
    shutil.copytree(small_run, folder)
    command = ["run", "--run", str(folder), *SETTINGS, "--set", "simulator=second"]
    with unwatched():  # The stages, as of any simulator.
        assert cli.main([*command, "--set", "simulators.second.strength=8"]) == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["versions"]["Second-Latents"] == "1.2"
    assert manifest["config"]["simulators"] == {"second": {"strength": 8}}
    assert "second" in (folder / "7_report" / "report.md").read_text()
    assert json.loads((folder / "6_stats.json").read_text())["verdict"]["sentence"] in capsys.readouterr().out
    assert cli.main([*command, "--set", "simulators.second.strenth=8"]) == 2
    said = capsys.readouterr().err
    assert "simulators.second.strenth: no such setting; there are: strength, words" in said


def test_another_version_of_its_package_simulates_anew(install: Install) -> None:
    own = stage_keys(STAGES, small_config())
    install_second(install)
    assert stage_keys(STAGES, small_config()) == own
    first = stage_keys(STAGES, small_config("simulator=second"))
    assert {name for name in first if first[name] != own[name]} == {"simulate", "report"}
    sys.modules.pop("second_latents")
    install_second(install, "1.3")
    second = stage_keys(STAGES, small_config("simulator=second"))
    assert {name for name in first if first[name] != second[name]} == {"simulate", "report"}


def test_another_version_of_one_of_ours_runs_its_stages_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    first = stage_keys(STAGES, small_config())
    table = plugins.table("explainers", "patterns")
    monkeypatch.setattr(table, "version", table.version + 1)  # type: ignore[attr-defined]
    second = stage_keys(STAGES, small_config())
    assert {name for name in first if first[name] != second[name]} == {"explain", "report"}


def test_relative_places_of_its_settings_start_at_their_file(install: Install, tmp_path: Path) -> None:
    folder = install_second(install)
    (tmp_path / "words.txt").touch()
    mine = tmp_path / "mine.toml"
    mine.write_text('[simulators.second]\nwords = "words.txt"\n')
    assert load_config(mine).simulators["second"]["words"] == "words.txt", "not chosen, so not imported"
    assert not (folder / "imported").exists()
    chosen = load_config(mine, ["simulator=second"])
    assert chosen.simulators["second"]["words"] == str(tmp_path / "words.txt")


def test_help_lists_it_without_importing_it(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    folder = install_second(install)
    script = f"import sys; sys.path.insert(0, {str(folder)!r}); import rewrite.__main__ as cli; cli.main(sys.argv[1:])"
    for command in (["--help"], ["help"], ["config"], ["export", "--help"]):
        run = [sys.executable, "-c", script, *command]
        told = subprocess.run(run, capture_output=True, text=True, check=True).stdout
        if command in (["help"], ["config"]):
            assert "simulators.second" in told and "of the package Second-Latents 1.2" in told
    assert cli.main(["help", "simulators"]) == cli.main(["config", "simulators"]) == 0
    assert capsys.readouterr().out.count("of the package Second-Latents 1.2") == 2
    assert not (folder / "imported").exists()
    assert cli.main(["help", "simulators.second"]) == cli.main(["config", "simulators.second"]) == 0
    told = capsys.readouterr().out
    assert "  simulators.second.strength = 9.0" in told and "[simulators.second]\n" in told


def refusal(kind: plugins.Kind, name: str) -> str:
    with pytest.raises(UserError) as caught:
        plugins.load(kind, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_name_lists_what_packages_bring(install: Install) -> None:
    install_second(install)
    assert refusal("simulators", "secnd") == (
        "simulator = secnd: no such simulator; did you mean second? "
        "there are: constant, llm, oracle, patterns, second, towers"
    )


def test_a_name_that_is_built_in_or_brought_twice_is_refused_where_it_is_chosen(install: Install) -> None:
    install("ours", SIMULATOR, {"simulators": ["patterns = ours", "both = ours"]})
    install("theirs", SIMULATOR, {"simulators": ["both = theirs"]})
    assert plugins.load("simulators", "oracle").Settings
    assert refusal("simulators", "patterns") == (
        "simulator = patterns: is built in, and ours brings another of that name; uninstall it"
    )
    assert refusal("simulators", "both") == (
        "simulator = both: ours and theirs both bring one of that name; uninstall one of them"
    )
    assert plugins.tell("simulators")["both"] == "of the package ours 1.2 and of theirs 1.2"
    assert plugins.tell("simulators")["patterns"].startswith("Reads sentences")


@pytest.mark.parametrize(
    ("text", "point", "expected"),
    [
        (
            "import nothing_of_that_name",
            "broken",
            "cannot be imported (ModuleNotFoundError: No module named 'nothing_of",
        ),
        ("raise RuntimeError('no\\nCUDA')", "broken", "cannot be imported (RuntimeError: no CUDA)"),
        ("def build(: pass", "broken", "cannot be imported (SyntaxError: "),
        ("", "broken:absent", "cannot be imported (AttributeError: "),
        ("", "broken", "defines no build in broken"),
        ("def build(): pass", "broken", "defines no Settings in broken that are a rewrite.config.Section"),
        ("def build(): pass\nSettings = dict", "broken", "defines no Settings in broken"),
    ],
)
def test_a_package_that_cannot_be_used_is_one_line_where_it_is_chosen(
    text: str, point: str, expected: str, install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("broken", text, {"explainers": [f"mine = {point}"], "engines": [f"mine = {point}"]})
    mine = tmp_path / "mine.toml"
    mine.write_text("[explainers.mine]\nwords = 3\n")
    assert load_config(mine).explainer == "patterns"
    for kind, what in (("explainers", "explainer"), ("engines", "engine")):
        said = refusal(kind, "mine")  # type: ignore[arg-type]
        assert said.startswith(f"{what} = mine: the package broken 1.2, which brings it, ")
        assert expected in said
    assert cli.main(["run", "--run", str(tmp_path / "r"), *SETTINGS, "--set", "engine=mine"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("rewrite: engine = mine: the package broken 1.2")


def test_a_form_of_export_is_brought(
    small_run: Path, tmp_path: Path, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("forms", EXPORT, {"exports": ["who = forms"]})
    with pytest.raises(SystemExit, match="0"):
        cli.main(["export", "--help"])
    assert "who: of the package forms 1.2" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["export", "who", str(small_run), "--out", str(tmp_path / "x")]) == 0
    assert (tmp_path / "x" / "simulator.txt").read_text() == "patterns"
