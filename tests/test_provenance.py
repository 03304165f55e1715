"""What is said of the code that made a thing."""

import subprocess
import tomllib
from pathlib import Path

import pytest

from trainables import provenance
from trainables.provenance import ours, packages, yours

ROOT = Path(__file__).parent.parent


def git(directory: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", *who, "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "mine.py").write_text("a = 1\n")
    git(tmp_path, "add", "mine.py")
    git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def test_a_repository_of_the_users_is_told_by_its_commit_and_state(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "results").mkdir()
    (repository / "results/new.txt").write_text("not part of it")
    assert yours(repository / "results") == {"commit": commit, "clean": True}
    (repository / "mine.py").write_text("a = 2\n")
    assert yours(repository) == {"commit": commit, "clean": False}


def test_without_a_repository_or_git_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    assert yours(Path("/")) == {}
    assert yours(ROOT) == {}, "that is ours"
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert yours(repository) == {}


def test_ours_is_not_taken_from_the_repository_around_an_installation(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As site-packages of an environment inside a project."""
    inside = repository / "env/site-packages"
    inside.mkdir(parents=True)
    monkeypatch.setattr(provenance, "HERE", inside)
    assert ours.__wrapped__().keys() == {"version"}
    monkeypatch.setattr(provenance, "HERE", repository)
    assert ours.__wrapped__()["commit"] == git(repository, "rev-parse", "HEAD")


def test_a_program_that_a_repository_names_is_not_run(repository: Path) -> None:
    seen = repository / "seen"
    script = repository / "hook.sh"
    script.write_text(f"#!/bin/sh\ntouch {seen}\n")
    script.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(script))
    assert yours(repository)["clean"] is True
    assert not seen.exists()


def test_versions_are_those_that_are_installed() -> None:
    import numpy

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert ours()["version"] == project["version"]
    assert packages()["numpy"] == numpy.__version__
    assert {"python", "torch", "ray", "optuna", "mlflow"} <= packages().keys()
