"""Writes the search as a package for OptunaHub's registry, which needs Optuna, numpy and scipy alone.

    python docs/optunahub/build.py OUT    # OUT/package/samplers/emm, to be copied into a fork of it

The registry wants the code itself, not a dependency: the modules of `sweep/search` are copied, and
import each other by relative names.
"""

import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def build(out: Path) -> Path:
    """Returns the directory of the package."""
    package = out / "package" / "samplers" / "emm"
    shutil.copytree(HERE / "samplers" / "emm", package, dirs_exist_ok=True)
    for module in sorted((ROOT / "sweep" / "search").glob("*.py")):
        text = module.read_text().replace(
            "from sweep.search import sampler", "from . import sampler"
        )
        (package / module.name).write_text(
            re.sub(r"from sweep\.search(\.\w+)? import", _relative, text)
        )
    shutil.copy(ROOT / "LICENSE", package)
    return package


def _relative(found: re.Match[str]) -> str:
    return f"from {found[1] or '.'} import"


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
