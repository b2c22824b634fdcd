"""The notebooks run, from the first cell to the last, and are kept without what they showed."""

from __future__ import annotations

import ast
import json
import linecache
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from rewrite.run import brought, configs
from rewrite.run.configs import read_preset

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells_of(notebook: Path, kind: str) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def run_cell(code: str, name: str, scope: dict[str, Any]) -> Any:
    """Run a cell as a notebook does: what its last expression is, is shown."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    tree = ast.parse(code, name)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), scope)
    return eval(compile(last, name, "eval"), scope) if last else None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(notebook: Path) -> None:
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    text = "\n".join(cells_of(notebook, "markdown"))
    assert text.startswith("# ")
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", text):
        assert (FOLDER / path).exists(), path


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that the first notebook leaves and the third one begins with."""
    return tmp_path_factory.mktemp("begun") / "r"


FEWER = {
    "corpus": {"max_documents": 60, "train": 30, "calibrate": 12, "max_windows": 2},
    "collect": {"train_tokens": 20_000},
    "cost": {"documents": 4},
}
"""What is laid over the preset of the notebook that trains nothing; the first one runs as it is."""


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook: Path, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if notebook.stem == "own_simulator" and begun.exists():
        shutil.copytree(begun, tmp_path / "runs" / "simulators")
    if notebook.stem == "own_model_and_coder":
        quick = read_preset("quick")
        monkeypatch.setattr(configs, "read_preset", lambda name: {k: v | FEWER.get(k, {}) for k, v in quick.items()})
    monkeypatch.setattr(brought, "_GIVEN", {})
    scope: dict[str, Any] = {"__name__": "__main__"}
    shown = [run_cell(code, f"<{notebook.stem} {n}>", scope) for n, code in enumerate(cells_of(notebook, "code"))]
    told = [one._repr_html_() if hasattr(one, "_repr_html_") else repr(one) for one in shown if one is not None]
    assert len(told) > len(shown) / 2 and all(told)
    assert any("recovers" in one for one in told), "a notebook comes to a verdict"
    if notebook.stem == "first_rewrite":
        shutil.copytree(tmp_path / "runs" / "first", begun)
