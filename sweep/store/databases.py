"""Databases in the directory of a sweep."""

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
