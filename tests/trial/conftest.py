"""What several files of tests of a trial begin with."""

import logging

import pytest

from tests.trials import finish, start
from trainables.storage import Storage


@pytest.fixture
def sweep(tmp_path):
    return Storage(str(tmp_path / "sweep"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trial that was never interrupted: its storage, its number of steps, the state after
    training."""
    sweep = Storage(str(tmp_path_factory.mktemp("whole")))
    return sweep, *finish(start(sweep))


@pytest.fixture
def quiet(caplog):
    caplog.set_level(logging.CRITICAL)
