"""Which code made a thing: its version and commit, and the packages under it. No vendor is imported."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = "torch", "torchvision", "numpy", "scipy", "ray", "optuna", "mlflow"

GIT_SECONDS = 5.0

HERE = Path(__file__).resolve().parent.parent


@cache
def ours() -> dict[str, Any]:
    """The code of emm-sweep: `version`; `commit` and `clean` of its repository, where it is run from
    one."""
    found = _repository(HERE) if _git(HERE, "rev-parse", "--show-toplevel") == str(HERE) else {}
    return {"version": _version("emm-sweep"), **found}


def yours(directory: Path) -> dict[str, Any]:
    """`commit` and `clean` of the repository that a directory is in, if that is not ours; else
    nothing."""
    top = _git(directory, "rev-parse", "--show-toplevel")
    return {} if top in (None, str(HERE)) else _repository(directory)


@cache
def packages() -> dict[str, str]:
    """Name → version, of those that decide numbers or keep them; and of Python."""
    found = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version()} | {
        name: number for name, number in found.items() if number is not None
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a job whose nodes have the code alone
        return None


def _repository(directory: Path) -> dict[str, Any]:
    """`commit`, and `clean`: whether nothing of it was changed since. Nothing where there is no
    repository, or no git."""
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "clean": None if changed is None else not changed}


def _git(directory: Path, *arguments: str) -> str | None:
    # none of its programs is run; in a repository of another user's git itself refuses
    safe = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
    try:
        done = subprocess.run(
            ["git", *safe, "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
