"""Who may import whom (`rewrite/__init__.py` tells the pipeline; CONTRIBUTING the floors): no circles, no siblings."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rewrite

ROOT = Path(rewrite.__file__).parent
FLOORS = {
    0: {"config"},
    1: {
        "records",
        "stats",
        "resampling",
        "power",
        "components",
        "models",
        "subject",
        "coder",
        "corpus",
        "exemplars",
        "plugins",
        "prompting",
        "sampling",
        "grammar",
        "planted",
        "planted_model",
        "features",
        "figures",
        "tables",
        "cost_figures",
        "saelens",
        "scoring",
        "selection",
        "candidates",
        "revision",
        "pictures",
        "place_figures",
        "escaping",
        "csvs",
        "sidefiles",
    },
    2: {
        "store",
        "fresh",
        "activations",
        "simulations",
        "explanations",
        "splice",
        "calibrate",
        "hookpoint",
        "attribution",
        "costs",
        "firings",
        "controls",
        "probes",
        "arms",
        "losses",
        "finished",
        "pairing",
        "spending",
        "standing",
        "encoding",
        "calls",
        "schemes",
        "scores",
        "judge",
        "places",
        "curves",
        "heldout",
        "excerpts",
        "latent_files",
        "recorded",
        "facts",
        "gathering",
        "page",
        "explainers",
        "simulators",
        "engines",
    },
    3: {"stages", "comparison", "compare_page", "planning", "exports"},
    4: {"pipeline"},
    5: {"running"},
    6: {"status", "testbed"},
    7: {"__main__"},
}
BACKENDS = {"explainers", "simulators", "engines", "exports"}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def floor_of(module: str) -> int:
    head = module.split(".")[0]
    found = [floor for floor, names in FLOORS.items() if head in names]
    assert found, f"{module} stands on no floor: add it to FLOORS and to CONTRIBUTING"
    return found[0]


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "rewrite":
            found |= {a.name for a in node.names if not a.name.startswith("__")}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("rewrite."):
            found.add(node.module.removeprefix("rewrite."))
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("rewrite.") for a in node.names if a.name.startswith("rewrite.")}
    return found


PACKAGES = {ROOT, *(ROOT / name for name in ("stages", "explainers", "simulators", "engines"))}
MODULES = sorted(
    p
    for p in ROOT.rglob("*.py")
    if "data" not in p.relative_to(ROOT).parts and not (p.name == "__init__.py" and p.parent in PACKAGES)
)


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_imports_go_down(path: Path) -> None:
    module = module_of(path)
    for imported in imports_of(path):
        if module.split(".")[0] in BACKENDS and imported.split(".")[0] == module.split(".")[0]:
            # A backend may be a folder of files, which know each other.
            own = imported.split(".")[1] == module.split(".")[1]
            assert own or imported.endswith(".base"), f"{module} imports its sibling {imported}"
        elif floor_of(module) == 3:
            assert floor_of(imported) < 3, f"{module} imports another stage"
        elif floor_of(imported) == floor_of(module):
            assert floor_of(module) in (1, 2), f"{module} imports {imported} beside it"
        else:
            assert floor_of(imported) < floor_of(module), f"{module} imports {imported} from a floor above"


def test_there_are_no_circles() -> None:
    graph = {module_of(p): imports_of(p) for p in MODULES}

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' → '.join((*path, module))}"
        for imported in graph.get(module, set()):
            walk(imported, (*path, module))

    for module in graph:
        walk(module, ())


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_files_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
