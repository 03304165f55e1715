"""The MLflow UI: a server on loopback for a local sweep."""

import json
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any
from urllib.parse import quote

import requests
from sqlalchemy.exc import SQLAlchemyError

from sweep.store.files import read_space
from sweep.store.lock import holder_of
from sweep.tracking.charts import TRIALS, VIEW
from sweep.tracking.database import REMEDY
from sweep.tracking.moved import settle
from sweep.tracking.place import DATABASE, ENVIRONMENT, EXPERIMENT, local_tracking, sweep_key
from trainables.errors import UserError
from trainables.storage import Storage
from trainables.text import first_line, visible

log = logging.getLogger(__name__)

MAX_COMPARED = 100  # runs on a page, beyond which MLflow becomes slow

START_SECONDS, STOP_SECONDS, ASK_SECONDS = 120.0, 10.0, 10.0


def urls(server: str, key: str) -> dict[str, str]:
    """Where a running `server` shows what. Raises UserError if it lacks the sweep, OSError if it
    does not answer."""
    api = f"{server}/api/2.0/mlflow"
    with _local() as session:
        named = {"experiment_name": EXPERIMENT}
        answer = session.get(f"{api}/experiments/get-by-name", params=named, timeout=ASK_SECONDS)
        experiment = answer.json()["experiment"] if answer.ok else {}
        if VIEW + key not in [tag["key"] for tag in experiment.get("tags", [])]:
            raise UserError("this MLflow lacks the sweep; `emm sync DIR` writes it")
        number = experiment["experiment_id"]
        wanted = {
            "experiment_ids": [number],
            "filter": f"tags.`emm.level` = 'study' and tags.`emm.sweep` = '{key}'",
        }
        answer = session.post(f"{api}/runs/search", json=wanted, timeout=ASK_SECONDS)
        answer.raise_for_status()
        ids = [run["info"]["run_id"] for run in answer.json().get("runs", [])]
    compared, experiments = quote(json.dumps(ids[:MAX_COMPARED])), quote(json.dumps([number]))
    model = "workflowType=machine_learning"
    runs = f"{server}/#/experiments/{number}/runs?{model}&viewStateShareKey={key}"
    return {
        "studies": runs,
        "charts": f"{runs}&compareRunsMode=CHART",
        "compare": f"{server}/#/compare-runs?runs={compared}&experiments={experiments}&{model}",
        "trials": f"{runs}{TRIALS}&compareRunsMode=CHART",
    }


def _local() -> requests.Session:
    """Without a proxy, which would be asked for loopback too, and without credentials."""
    session = requests.Session()
    session.trust_env = False
    return session


def serve(
    storage: Storage, directory: Path, tell: Callable[[str], None], port: int | None = None
) -> None:
    """Shows the sweep, whose database is in `directory`, until Ctrl-C; `tell` is given where.

    Raises UserError if there is none, or no port.
    """
    key = sweep_key(read_space(storage), storage)
    try:
        if holder_of(storage) is None and settle(directory, storage, key):
            tell("this sweep was copied or moved: its MLflow says so now")
    except SQLAlchemyError as error:
        reason = visible(first_line(error))[:300]
        raise UserError(f"{directory / DATABASE}: {reason}; if it is damaged: {REMEDY}") from error
    signal.signal(signal.SIGTERM, _interrupt)  # so that the server never outlives us
    with suppress(KeyboardInterrupt), server(directory, port) as address:
        try:
            found = urls(address, key)
        except requests.RequestException as error:
            reason = f"MLflow can't read it ({visible(first_line(error))[:300]})"
            raise UserError(
                f"{directory / DATABASE}: {reason}; if it is damaged: {REMEDY}"
            ) from error
        for what, url in found.items():
            tell(f"{what:<8} {url}")
        tell("Ctrl-C ends it")
        signal.pause()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def server(directory: Path, port: int | None = None) -> Iterator[str]:
    """An MLflow server on loopback for `directory`'s database; gives its address, and ends all its
    processes."""
    if not (directory / DATABASE).exists():
        raise UserError(
            f"{directory / DATABASE} does not exist; `emm run` or "
            f"`emm sync {shlex.quote(str(directory))}` makes it"
        )
    uri, artifacts = local_tracking(directory)
    port = _usable(port)
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", uri, "--artifacts-destination", artifacts]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait(process, f"{address}/health", output, directory / DATABASE)
            yield address
        finally:
            _end_group(process)


def _usable(port: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"--port {port}: can't be used ({error}); leave it out, and a free one is chosen"
            ) from None
        return int(probe.getsockname()[1])


def _wait(
    process: "subprocess.Popen[bytes]", health: str, output: IO[bytes], database: Path
) -> None:
    """Until the server answers. Raises UserError if it can't open its database."""
    deadline = time.monotonic() + START_SECONDS
    with _local() as session:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(requests.RequestException):
                session.get(health, timeout=5).raise_for_status()
                return
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
    output.seek(0)
    said = output.read().decode(errors="replace")[-2000:]
    log.warning("the MLflow server did not start:\n%s", said)
    reason = said.strip().rpartition("\n")[2] or f"no answer within {START_SECONDS:g} s"
    remedy = f"if {database} is damaged: {REMEDY}"
    raise UserError(f"the MLflow server did not start ({visible(reason)[:300]}); {remedy}")


def _end_group(process: "subprocess.Popen[Any]") -> None:
    with suppress(ProcessLookupError):  # none is left
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(process.pid, number)
            deadline = time.monotonic() + STOP_SECONDS
            while time.monotonic() < deadline:
                process.poll()  # reaps it: until then it counts as a member
                os.killpg(process.pid, 0)
                time.sleep(0.05)
