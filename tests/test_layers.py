"""The house: folders are layers, no file knows in a circle, and every room can be read in one sitting."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import rewrite
from rewrite.run import plugins

ROOT = Path(rewrite.__file__).parent
CONTRIBUTING = ROOT.parent / "CONTRIBUTING.md"
README = ROOT.parent / "README.md"
LAYERS = [
    *("config", "display", "run", "text", "subject", "coder", "engines", "patterns", "explainers", "simulators"),
    *("arms", "statistics", "report", "exports", "stages", "commands", "__main__"),
]
"""Each may import itself and those before it; nothing reaches back."""
KINDS: tuple[plugins.Kind, ...] = ("explainers", "simulators", "screens", "engines", "executors", "exports")
BACKENDS: dict[str, plugins.Kind] = {plugins.ROOMS.get(kind, kind): kind for kind in KINDS}
ENTRIES, FILES, LINES, BODY = 18, 14, 300, 45
OWN = [entry for entry in ROOT.iterdir() if entry.name not in ("__pycache__", "data", "prompts", "py.typed")]
MODULES = sorted(path for path in ROOT.rglob("*.py") if not {"data", "prompts"} & set(path.relative_to(ROOT).parts))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


NAMES = {module_of(path) for path in MODULES}


def imports_of(path: Path) -> set[str]:
    """The modules of ours that a file imports anywhere in it, by name from `rewrite` on."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rewrite":
            module = node.module.removeprefix("rewrite").removeprefix(".")
            inside = {f"{module}.{alias.name}".removeprefix(".") for alias in node.names}
            found |= (inside & NAMES) or ({module} if module else set())
            assert not isinstance(node, ast.ImportFrom) or node.level == 0, f"{path}: name the module whole"
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("rewrite.") for a in node.names if a.name.startswith("rewrite.")}
    return found


GRAPH = {module_of(path): imports_of(path) for path in MODULES}


def split_backend(module: str) -> tuple[str, str]:
    """The folder of backends that a module stands in, and its name there; empty where it is none."""
    inside = [folder for folder in BACKENDS if module.startswith(f"{folder}.")]
    found = max(inside, key=len, default="")
    return found, module.removeprefix(f"{found}.").split(".")[0] if found else ""


BESIDE = {folder: {split_backend(name)[1] for name in NAMES if split_backend(name)[0] == folder} for folder in BACKENDS}
SHARED = {folder: BESIDE[folder] - {*plugins.names(kind), "base"} for folder, kind in BACKENDS.items()}
"""What stands beside the backends of a folder and is no backend; every backend may know it."""


@pytest.mark.parametrize("module", sorted(GRAPH.keys() - {""}))
def test_no_folder_reaches_back(module: str) -> None:
    own = module.split(".")[0]
    assert own in LAYERS, f"{own} stands in no layer: add it to LAYERS and to CONTRIBUTING"
    for imported in GRAPH[module]:
        other = imported.split(".")[0]
        assert LAYERS.index(other) <= LAYERS.index(own), f"{module} imports {imported}, a layer that comes after it"


@pytest.mark.parametrize("module", sorted(name for name in GRAPH if split_backend(name)[0]))
def test_no_backend_knows_its_sibling(module: str) -> None:
    folder, name = split_backend(module)
    beside = {split_backend(one)[1] for one in GRAPH[module] if split_backend(one)[0] == folder} - {name, "base"}
    assert beside <= SHARED[folder], f"{module} imports its sibling {', '.join(beside - SHARED[folder])}"
    if name in SHARED[folder] or name == "base":
        assert not beside & {*plugins.names(BACKENDS[folder])}, f"{module} is shared by all backends and knows one"


def test_there_are_no_circles() -> None:
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' → '.join((*path, module))}"
        if module not in done:
            for imported in sorted(GRAPH.get(module, set())):
                walk(imported, (*path, module))
            done.add(module)

    for module in sorted(GRAPH):
        walk(module, ())


def test_the_hall_shows_the_whole_house() -> None:
    assert len(OWN) <= ENTRIES, sorted(entry.name for entry in OWN)
    for folder in {path.parent for path in MODULES} - {ROOT, ROOT / "stages"}:
        files = [path for path in folder.iterdir() if path.suffix == ".py"]
        assert len(files) <= FILES, f"{folder}: {len(files)} files"
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), folder


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < BODY, f"{node.name} is longer than {BODY} lines"


def test_a_file_of_tests_is_read_in_one_sitting_too() -> None:
    for path in Path(__file__).parent.rglob("test_*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES, path


def test_contributing_has_a_row_for_each_layer_in_order() -> None:
    rows = re.findall(r"^\| `([a-z_]+)(?:/|\.py)` \|", CONTRIBUTING.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == LAYERS


def test_the_readme_shows_the_hall() -> None:
    tree = README.read_text(encoding="utf-8").split("## Where things are")[1].split("```")[1]
    shown = set(re.findall(r"^  ([a-z_]+(?:/|\.py)|__[a-z]+__\.py)", tree, re.MULTILINE))
    assert shown == {entry.name + ("/" if entry.is_dir() else "") for entry in OWN}
