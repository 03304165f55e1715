"""The house: which package may import which, and where each vendor lives."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in ("trainables", "search_spaces", "sweep")
    for path in sorted((ROOT / package).rglob("*.py"))
}
RANK = {"trainables": 0, "search_spaces": 1, "sweep": 2}
ROOMS = {
    "optuna": {"sweep.bisection", "sweep.studies"},
    "mlflow": {"sweep.tracking", "sweep.ui"},
    "ray": {"trainables.trainable", "sweep.searcher", "sweep.driver", "sweep.cluster", "sweep.machines"},
}
NO_TORCH = {name for name in MODULES if name.startswith("search_spaces")} | {
    "sweep.posterior",
    "sweep.bisection",
    "sweep.studies",
    "sweep.lock",
    "sweep.budget",
    "trainables.config",
    "trainables.result",
    "trainables.storage",
    "trainables.errors",
    "trainables.datasets",
    "trainables.images",
}


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def lines_of_code(path: Path) -> int:
    tree, used = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.stmt):
            first_inner = min((child.lineno for child in getattr(node, "body", [])), default=node.end_lineno + 1)
            used.update(range(node.lineno, first_inner))
    return len(used)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name):
    inner = {module.split(".")[0] for module in imports(MODULES[name])} & RANK.keys()
    assert all(RANK[package] <= RANK[name.split(".")[0]] for package in inner)


def test_what_is_imported_is_declared():
    """Not left to come along with something else."""
    declared = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["photos"]}
    names = {"sklearn": "scikit-learn", "skimage": "scikit-image", "PIL": "pillow", "yaml": "pyyaml", "grpc": "grpcio"}
    used = {module.split(".")[0] for path in MODULES.values() for module in imports(path)} - RANK.keys()
    assert {names.get(module, module) for module in used - sys.stdlib_module_names} <= declared


def test_there_is_no_cycle():
    graph = {name: {other for other in imports(path) if other in MODULES and other != name} for name, path in MODULES.items()}
    while leaves := [name for name, needs in graph.items() if not needs & graph.keys()]:
        for leaf in leaves:
            del graph[leaf]
    assert not graph, f"in or above a cycle: {sorted(graph)}"


@pytest.mark.parametrize("vendor", ROOMS)
def test_vendors_stay_in_their_rooms(vendor):
    users = {name for name, path in MODULES.items() if any(module.split(".")[0] == vendor for module in imports(path))}
    assert users <= ROOMS[vendor]


@pytest.mark.parametrize("name", sorted(NO_TORCH & MODULES.keys()))
def test_torch_is_not_imported(name):
    code = f"import sys, {name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom sweep.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(bool({'torch', 'ray', 'mlflow', 'optuna', 'scipy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_the_product_stays_small():
    """Statements count, and what is written in them; docstrings, comments and blank lines do not."""
    lines = {name: lines_of_code(path) for name, path in MODULES.items()}
    assert sum(lines.values()) < 9000
    assert max(lines.values()) <= 400, max(lines, key=lines.__getitem__)
