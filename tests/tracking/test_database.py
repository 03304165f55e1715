"""A local MLflow's database is whole or not there, whatever is killed; a damaged one is said to be."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep.analysis.summary import summarize
from sweep.store.databases import sqlite_url
from sweep.store.places import place, purge
from sweep.tracking.database import make_whole
from sweep.tracking.place import DATABASE, Destination, local_tracking, prepare_environment
from sweep.tracking.server import server
from sweep.tracking.sync import sync
from tests.fakes import fake_space
from tests.results import write_sweep
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.storage import Storage

SPACE = fake_space((8,))


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    write_sweep(Storage(str(tmp_path)), SPACE, load(SPACE.base.data), 1)
    return tmp_path


def synced(directory: Path) -> None:
    storage = Storage(str(directory))
    sync(summarize(storage), storage, Destination(*local_tracking(directory)))


def test_a_kill_while_it_is_made_leaves_none(swept: Path) -> None:
    code = (
        "import sys; from sweep.tracking.place import prepare_environment; prepare_environment()\n"
        "from sweep.tracking.database import make_whole; make_whole(sys.argv[1])"
    )
    command = [sys.executable, "-c", code, sqlite_url(swept / DATABASE)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 50
        while not list(swept.glob(f"{DATABASE}.*.part")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (swept / DATABASE).exists()
    synced(swept)
    assert (swept / DATABASE).exists()
    assert purge(place(str(swept))) == [], "what the kill has left is of the sweep"


def test_one_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    prepare_environment()
    (tmp_path / DATABASE).write_bytes(b"whatever")
    make_whole(sqlite_url(tmp_path / DATABASE))
    assert (tmp_path / DATABASE).read_bytes() == b"whatever"
    make_whole("http://127.0.0.1:9")
    assert [path.name for path in tmp_path.iterdir()] == [DATABASE]


def test_a_damaged_one_is_said_to_be_a_view(swept: Path) -> None:
    (swept / DATABASE).write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"mlflow.db is damaged: .* delete that file"):
        synced(swept)
    with (
        pytest.raises(
            UserError, match=r"did not start \(.*mlflow.db is damaged: .* delete that file"
        ),
        server(swept),
    ):
        pass
