"""Databases in the directory of a sweep."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from trainables.errors import UserError


def sqlite_url(path: Path) -> str:
    """SQLAlchemy's URL of a database in a file, whatever its name. Raises UserError for a name that
    this SQLAlchemy can't express: before 2.1 one with a question mark."""
    from sqlalchemy import URL, make_url

    url = URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)
    if make_url(url).database != str(path.absolute()):
        raise UserError(
            f"{path.parent}: a database can't be opened there; choose a directory without ? in "
            "its path"
        )
    # of what follows sqlite:/// MLflow makes the parents, without unquoting them
    return url.replace("sqlite:", "sqlite+pysqlite:", 1) if "%" in url else url


def sound_url(path: Path, tell: Callable[[str], None]) -> str:
    """SQLAlchemy's URL of a database that is only a view of the results: one that is damaged is
    removed, which `tell` is told, since it is made again from them. Raises UserError if it can't be
    read for another cause, and as `sqlite_url` does.
    """
    url = sqlite_url(path)
    damage = _damage(path) if path.exists() else None
    if damage is not None:
        for name in (
            f"{path.name}-journal",
            path.name,
        ):  # another one's journal would spoil the new
            path.with_name(name).unlink(missing_ok=True)
        tell(f"{path} was damaged ({damage}), and is made again from the results")
    return url


def _damage(path: Path) -> str | None:
    """What SQLite says is wrong with a database; None if nothing is. Rows that belong to none are
    what a lost table leaves: quick_check is content with them."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            orphan = connection.execute("PRAGMA foreign_key_check").fetchone()
    except (
        sqlite3.OperationalError
    ) as error:  # locked, no file at all: nothing is said of its content
        raise UserError(
            f"{path} can't be read ({error}); end what uses it, or remove it: it is made again "
            "from the results"
        ) from None
    except sqlite3.DatabaseError as error:
        return str(error)
    if found != "ok":
        return found.splitlines()[-1]
    return None if orphan is None else f"what {orphan[0]} belongs to is not in {orphan[2]}"
