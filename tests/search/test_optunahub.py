"""The package for OptunaHub: it works where nothing of ours, and no torch, Ray or MLflow, is to be had."""

import runpy
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]

# as optunahub.load_local_module does it, where other packages than Optuna's can't be imported
ALONE = """
import importlib.util, sys, types
for name in ("sweep", "search_spaces", "trainables", "torch", "ray", "mlflow", "pydantic"):
    sys.modules[name] = None
sys.modules["optunahub_registry"] = types.ModuleType("optunahub_registry")
hub = sys.modules["optunahub"] = types.ModuleType("optunahub")

def load_local_module(package, registry_root):
    name = "optunahub_registry.package." + package.replace("/", ".")
    spec = importlib.util.spec_from_file_location(name, f"{registry_root}/{package}/__init__.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

hub.load_local_module = load_local_module
import runpy
sys.argv = ["example.py", sys.argv[1]]
runpy.run_path(sys.argv[1] + "/samplers/emm/example.py", run_name="__main__")
"""


def test_its_example_finds_the_truth_without_us(tmp_path: Path) -> None:
    build = runpy.run_path(str(ROOT / "docs/optunahub/build.py"))["build"]
    package = build(tmp_path)
    assert package == tmp_path / "package/samplers/emm"
    assert {"README.md", "LICENSE", "__init__.py", "example.py"} <= {
        file.name for file in package.iterdir()
    }
    command = [sys.executable, "-c", ALONE, str(tmp_path / "package")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    state, low, high = said.split()[0], *said.split("[")[1].split("]")[0].split(",")
    assert state == "found"
    assert float(low) < 700 < float(high) < 1.6 * float(low)


def test_its_readme_says_what_the_registry_asks_for() -> None:
    text = (ROOT / "docs/optunahub/samplers/emm/README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front.keys() == {"author", "title", "description", "tags", "optuna_versions", "license"}
    assert "sampler" in front["tags"]
