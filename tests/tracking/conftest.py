"""What several files of tests of MLflow begin with."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.tracking.place import DATABASE
from tests.tracked import Sweep, new_sweep


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow does not wait until a first trial trains, which nothing here does."""
    monkeypatch.setattr("sweep.tracking.tracker.BEGIN_SECONDS", 0.0)


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing else: making them takes seconds, copying them
    does not."""
    path = tmp_path_factory.mktemp("blank") / DATABASE
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture
def empty(tmp_path: Path, blank: Path) -> Sweep:
    (tmp_path / DATABASE).write_bytes(blank.read_bytes())
    return new_sweep(tmp_path)


@pytest.fixture
def dead() -> Iterator[str]:
    """Where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unused.getsockname()[1]}"
