"""A local MLflow's database is whole or not there, whatever is killed; a damaged one is said to be."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event

from sweep.analysis.summary import summarize
from sweep.report.drawn import Drawing
from sweep.store.databases import sqlite_url
from sweep.store.places import place, purge
from sweep.tracking.database import make_whole, unsynced
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


def schema(path: Path) -> list[Any]:
    with sqlite3.connect(path) as database:
        made = database.execute(
            "SELECT type, name, sql FROM sqlite_master ORDER BY name"
        ).fetchall()
        (version,) = database.execute("SELECT version_num FROM alembic_version")
    # MLflow writes the constraints of a table in any order
    lines = [sorted(line.strip("\t ,") for line in (sql or "").splitlines()) for *_, sql in made]
    return [version, [one[:2] for one in made], lines]


def test_it_is_what_mlflow_makes_and_only_its_making_waits_for_no_disk(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    prepare_environment()
    modes: set[int] = set()  # of SQLite's `synchronous`, of all connections that are used

    def look(_: object, cursor: Any, *rest: object) -> None:
        modes.update(cursor.connection.execute("PRAGMA synchronous").fetchone())

    event.listen(Engine, "before_cursor_execute", look)
    try:
        MlflowClient(sqlite_url(tmp_path / "own.db"))
        assert modes == {2}
        modes.clear()
        make_whole(sqlite_url(tmp_path / DATABASE))
        assert modes == {0}
        modes.clear()
        MlflowClient(sqlite_url(tmp_path / DATABASE)).create_experiment("one")
        assert modes == {2}
    finally:
        event.remove(Engine, "before_cursor_execute", look)
    assert schema(tmp_path / DATABASE) == schema(tmp_path / "own.db")


def test_no_other_file_is_unsafe_meanwhile(tmp_path: Path) -> None:
    def mode(name: str) -> Any:
        engine = create_engine(sqlite_url(tmp_path / name))
        with engine.connect() as database:
            return database.exec_driver_sql("PRAGMA synchronous").scalar()

    with unsynced(tmp_path / "part"):
        assert (mode("part"), mode("optuna.db")) == (0, 2)
    assert mode("part") == 2


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


def test_what_is_drawn_for_a_new_one_is_begun_before_it_is_made(
    swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, bool]] = []  # whether there are figures to draw, and a database

    def look(drawings: Collection[Drawing]) -> AbstractContextManager[None]:
        asked.append((len(drawings) > 0, (swept / DATABASE).exists()))
        return nullcontext()

    monkeypatch.setattr("sweep.tracking.sync.ahead", look)
    synced(swept)
    assert asked == [(True, False)]
    synced(swept)
    assert asked[1:] == [(False, True)]
