"""Which MLflow a sweep is written to, and whether it can be reached."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from search_spaces.space import SearchSpace
from trainables.config.identity import key_of
from trainables.data.images import ImageData
from trainables.errors import UserError
from trainables.storage import Storage, redacted
from trainables.text import first_line, visible

if TYPE_CHECKING:  # importing mlflow takes seconds: only the thread that writes does it
    pass
import os
import ssl
from http.client import HTTPException
from importlib.metadata import entry_points
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace
    from trainables.data.images import ImageData
from sweep.store.databases import sqlite_url


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
    return sqlite_url(directory / DATABASE), artifacts.as_uri() if "%" in str(artifacts) else str(
        artifacts
    )


def check_tracking(uri: str) -> None:
    """Raises UserError if MLflow can't know what a `--tracking-uri` means."""
    scheme, _, rest = uri.partition("://")
    kind = scheme.lower().partition("+")[0]  # mysql+pymysql
    if kind in ("http", "https"):
        is_whole = _names_a_host(uri)
    elif kind == "sqlite":
        is_whole = rest.startswith("/") and len(rest) > 1
    else:
        plugins = [one.name for one in entry_points(group="mlflow.tracking_store")]
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


def why_unreachable(uri: str) -> str | None:
    """Asks a server whether it is there, for REACH_SECONDS; None if it answers, or can't be asked
    so.

    Any answer will do: a server may want credentials that only MLflow's client knows.
    """
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        directory = Path(parts.path[1:]).parent
        return None if directory.is_dir() else f"there is no directory {directory}"
    if parts.scheme not in ("http", "https"):
        return None
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    try:
        urlopen(f"{address.rstrip('/')}/health", timeout=REACH_SECONDS).close()
    except HTTPError as error:
        return None if error.code < 500 else f"it answers {error.code} {error.reason}"
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        is_tls = isinstance(reason, ssl.SSLError)  # MLflow's client may be told to accept it
        return None if is_tls else one_line(reason)
    return None


def sweep_key(space: SearchSpace, storage: Storage) -> str:
    """Identity of a sweep on an MLflow server; credentials in the URL of its storage are no part of
    it."""
    return key_of({"space": space.name, "storage": storage.identity})


def one_line(error: object, uri: str = "") -> str:
    """What an error says, without the user and password that are part of `uri`."""
    text = first_line(error)
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    return visible(text.replace(f"{user}@", "…@") if at else text)[:300]


def destination(
    space: "SearchSpace", views: Path, uri: str | None, data_of: "Callable[[str], ImageData]"
) -> "Destination":

    local, artifacts = local_tracking(views)
    return Destination(uri or local, None if uri else artifacts, space.images, data_of)
