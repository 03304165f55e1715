"""Which MLflow a sweep is written to, and whether it can be reached."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from search_spaces.space import SearchSpace
from sweep.store.databases import sqlite_url
from trainables.config.identity import key_of
from trainables.data.images import ImageData
from trainables.errors import UserError
from trainables.storage import Storage
from trainables.text import first_line, redacted, visible


@dataclass(frozen=True)
class Destination:
    """Which MLflow a sweep is written to, and what of it.

    `uri`: http(s) address of a server, or `sqlite:///` and the path of a file; `artifacts`: where
    the files of runs go, None for the server's own place; `images`: which pictures are logged;
    `data`: for "pairs", the data of a configuration by name.
    """

    uri: str
    artifacts: str | None = None
    images: Literal["none", "generated", "pairs"] = "none"
    data: Callable[[str], ImageData] | None = None


EXPERIMENT = "emm-sweep"

DATABASE, ARTIFACTS = "mlflow.db", "artifacts"  # in the directory of a local sweep

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default a call on a dead server takes four minutes
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its seven processes outlive the server
}

OTHER_STORES = ("postgresql", "mysql", "mssql", "databricks")  # and what MLflow's plugins add

REACH_SECONDS = 3.0


def prepare_environment() -> None:
    """What MLflow reads when it is imported and when it is called; what the user has set wins."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def local_tracking(directory: Path) -> tuple[str, str]:
    """Tracking URI and place of the artifacts of a local sweep."""
    artifacts = directory.absolute() / ARTIFACTS
    # MLflow unquotes paths as well, so that one with a % must be a URI; others stay as earlier
    # versions wrote them
    place = artifacts.as_uri() if "%" in str(artifacts) else str(artifacts)
    return sqlite_url(directory / DATABASE), place


def check_tracking(uri: str) -> None:
    """Raises UserError if MLflow can't know what a `--tracking-uri` means."""
    scheme, _, rest = uri.partition("://")
    kind = scheme.lower().partition("+")[0]  # mysql+pymysql
    if kind in ("http", "https"):
        is_whole = _names_a_host(uri)
    elif kind == "sqlite":
        is_whole = rest.startswith("/") and len(rest) > 1
    else:
        plugins = [plugin.name for plugin in entry_points(group="mlflow.tracking_store")]
        is_whole = uri == "databricks" or (bool(rest) and kind in (*OTHER_STORES, *plugins))
    if not is_whole:
        raise UserError(
            f"--tracking-uri {redacted(uri)}: give http://HOST:PORT of a server, or sqlite:///FILE"
        )


def _names_a_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


def why_unreachable(uri: str, seconds: float = REACH_SECONDS) -> str | None:
    """Asks a server whether it is there, for some seconds; None if it answers, or can't be asked
    so.

    Any answer will do: a server may want credentials that only MLflow's client knows.
    """
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        directory = Path(parts.path[1:]).parent
        return None if directory.is_dir() else f"there is no directory {directory}"
    if parts.scheme not in ("http", "https"):
        return None
    import requests  # that takes a tenth of a second

    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    try:
        # without a body: whatever it holds is not waited for
        with requests.get(f"{address.rstrip('/')}/health", timeout=seconds, stream=True) as answer:
            if answer.status_code >= 500:
                return f"it answers {answer.status_code} {answer.reason}"
    except requests.exceptions.SSLError:
        return None  # MLflow's client may be told to accept it
    except requests.RequestException as error:
        return one_line(_root(error))
    return None


def _root(error: BaseException) -> BaseException:
    """What a library's errors about an error come from."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def sweep_key(space: SearchSpace, storage: Storage) -> str:
    """Identity of a sweep on an MLflow server; credentials in the URL of its storage are no part of
    it."""
    return key_of({"space": space.name, "storage": storage.identity})


def study_key(sweep: str, name: str) -> str:
    return key_of({"sweep": sweep, "study": name})


def trial_key(sweep: str, training_key: str) -> str:
    return key_of({"sweep": sweep, "trial": training_key})


def one_line(error: object, uri: str = "") -> str:
    """What an error says, without the user and password that are part of `uri`."""
    text = first_line(error)
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    return visible(text.replace(f"{user}@", "…@") if at else text)[:300]


def destination(
    space: SearchSpace, views: Path, uri: str | None, data_of: Callable[[str], ImageData]
) -> Destination:
    """`views`: the directory in which the database is if there is no `uri`."""
    if uri:
        return Destination(uri, None, space.images, data_of)
    return Destination(*local_tracking(views), space.images, data_of)
