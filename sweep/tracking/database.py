"""The database of a local MLflow: whole, or not there at all."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, event, make_url

from sweep.store.databases import sqlite_url

REMEDY = "it is a view of the results: delete that file, and `emm sync` writes it again"


def file_of(uri: str) -> Path | None:
    """The file of a database; None for a server, or what is no SQLite."""
    if not uri.startswith(("sqlite:", "sqlite+")):
        return None
    database = make_url(uri).database
    return Path(database) if database else None


def make_whole(uri: str) -> None:
    """Makes the database of a `uri` that has none yet, and gives it its name when it is complete.

    MLflow makes its tables step by step, for seconds, and can't open what a kill left half-way. So
    none of the steps need be safe on the disk before the next: all of them are before the name is.
    Does nothing for a server. Raises what MLflow raises.
    """
    path = file_of(uri)
    if path is None or path.exists():
        return
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")  # purge knows parts by such names
    with unsynced(part):
        MlflowClient(sqlite_url(part))
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


@contextmanager
def unsynced(path: Path) -> Iterator[None]:
    """SQLite waits for no disk in connections that are made to the file meanwhile."""

    def relax(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            names = [file for _, _, file in connection.execute("PRAGMA database_list")]
            if names == [os.path.realpath(path)]:
                connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)
