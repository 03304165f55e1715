"""Submission of a sweep as a Ray job, which is the same `emm run` on the head node of the cluster.

This code travels with the job as `py_modules`, so that driver and workers run what was submitted; a
user's own modules travel as a directory inside the working directory, if asked: Ray puts the
working directory itself before everything on the import path. Secrets do not travel: the token of
the cluster, the credentials of storage and MLflow are read from environment or files where they are
used.
"""

import asyncio
import hashlib
import logging
import os
import re
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sweep.run.cluster import TOKEN, UNSENT, check_address, this_code
from trainables.errors import UserError
from trainables.import_path import CODE
from trainables.text import first_line, redacted

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace

log = logging.getLogger(__name__)

READY_SECONDS = 60.0  # for a head that has just started to take jobs

LOST_SECONDS = 60.0  # without an answer of the cluster until the log is no longer followed

MOST_CODE = 100 * 1024**2  # bytes that Ray's dashboard takes in one upload

SPACE_FILES = (".py", ".yaml", ".yml")

# loggers of Ray's client of jobs, which set their own level
LOUD = ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk")

ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # from SIGTERM to SIGKILL of a stopped job; the driver needs 15
    "RAY_JOB_STOP_WAIT_TIME_S": "30",
}


def sweep_id(storage: str) -> str:
    same = storage.rstrip("/") if "://" in storage else os.path.normpath(storage)
    return hashlib.sha256(same.encode()).hexdigest()[:8]


def job_name(space: str) -> str:
    """Of a space, by name or file: what may stand in a job's id, [a-zA-Z0-9-], 40 characters at
    most."""
    return re.sub("[^a-zA-Z0-9]+", "-", Path(space).stem).strip("-")[:40] or "space"


def check_code(code: Path) -> None:
    """Raises UserError if a directory of the user's is more than Ray's dashboard takes.

    Where an ignore file stands, only Ray can tell what it sends: it is then found out when it is
    sent.
    """
    if not code.is_dir():
        raise UserError(f"--code {code}: no such directory")
    size = 0
    for directory, folders, files in os.walk(code):
        if {".gitignore", ".rayignore"} & set(files):
            return
        folders[:] = [folder for folder in folders if folder not in UNSENT]
        size += sum(os.lstat(os.path.join(directory, file)).st_size for file in files)
    if size > MOST_CODE:
        raise UserError(_too_much(code, f"{size / 1024**2:.0f} MiB"))


def space_in_job(space: str, code: Path | None) -> str:
    """What a job calls the space: its name, or the path of its file inside `code`. UserError if the
    file does not travel."""
    if Path(space).suffix not in SPACE_FILES:
        return space
    if code is not None and not Path(space).is_absolute() and (code / space).is_file():
        return space
    if not Path(space).is_file():
        raise UserError(
            f"{space}: no such file" + ("" if code is None else f", neither here nor in {code}")
        )
    if code is None or not Path(space).resolve().is_relative_to(code.resolve()):
        raise UserError(
            f"{space}: a job does not see this file; add --code DIR, a directory that holds it"
        )
    return Path(space).resolve().relative_to(code.resolve()).as_posix()


def check_elsewhere(option: str, place: str) -> None:
    """Raises UserError for a path that a job would look up in a directory of its own, which ends
    with it, and for a URL that holds credentials."""
    if redacted(place) != place:
        raise UserError(
            f"{option} {redacted(place)}: everybody may read a job's command; give its nodes the "
            "credentials"
        )
    path = place.removeprefix("sqlite:///").removeprefix("file:")
    if "://" not in path and not path.startswith("/") and not path.startswith("databricks"):
        raise UserError(
            f"{option} {place}: a job works in another directory; give a URL, or a path from / on "
            "that its nodes see"
        )


def check_data_elsewhere(space: "SearchSpace", code: Path | None) -> None:
    """The same for the data of a space, unless it travels with `code`."""
    for named in space.configurations:
        for field, path in _paths("data", named.configuration.data.model_dump()):
            if not Path(path).is_absolute() and not (code is not None and (code / path).exists()):
                where = "" if code is None else f", and {code} does not hold it"
                raise UserError(
                    f"{field}={path}: a job works in another directory{where}; give a path from / "
                    "on that its head sees"
                )


def _paths(name: str, tree: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _paths(f"{name}.{key}", value)
        elif key in ("root", "path", "labels_file") and value:
            yield f"{name}.{key}", str(value)


def _too_much(code: Path, size: str) -> str:
    return (
        f"--code {code}: {size}, and Ray's dashboard takes {MOST_CODE // 1024**2} MiB; "
        "keep data and results elsewhere, or name them in a .gitignore there"
    )


@contextmanager
def packed(code: Path) -> Iterator[str]:
    """A directory to be sent as the working directory, in which `code` is called `emm_code`."""
    with tempfile.TemporaryDirectory(prefix="emm-") as directory:
        (Path(directory) / CODE).symlink_to(code.resolve(), target_is_directory=True)
        yield directory


def not_through_a_proxy(address: str) -> None:
    """What is exported for the outside world is not to be asked for this machine, or for a tunnel
    that ends on it."""
    host = urlsplit(address).hostname or ""
    try:
        is_loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if is_loopback:
        for name in ("no_proxy", "NO_PROXY"):
            former = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
            if host not in former.split(","):
                os.environ[name] = f"{former},{host}".lstrip(",")


class Jobs:
    """The jobs of one sweep on a cluster: `emm-<space>-<hash of the storage URL>-<attempt>`, one at
    a time.

    `address`: http(s)://HOST:PORT of the dashboard. Raises UserError if it does not answer, or does
    not let us in.
    """

    def __init__(self, address: str, storage: str) -> None:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        if not address.startswith(("http://", "https://")):
            raise UserError(f"--address {address}: give the dashboard's, as http://HOST:8265")
        check_address(address)
        for name in LOUD:
            logging.getLogger(name).setLevel(logging.ERROR)
        self.address, self.storage = address, storage
        not_through_a_proxy(address)
        try:
            self.client = JobSubmissionClient(address)
            self._by_attempt()
        except AuthenticationError as error:
            raise UserError(f"--address {address}: it asks for another token; {TOKEN}") from error
        except (ConnectionError, RuntimeError) as error:
            reason = first_line(error)
            raise UserError(
                f"--address {address}: is this a Ray dashboard with a job server? ({reason})"
            ) from error

    def _by_attempt(self) -> list[tuple[int, Any]]:
        pattern = re.compile(rf"emm-.*-{sweep_id(self.storage)}-(\d+)")
        found = [
            (pattern.fullmatch(job.submission_id or ""), job) for job in self.client.list_jobs()
        ]
        return sorted(
            ((int(match[1]), job) for match, job in found if match), key=lambda pair: pair[0]
        )

    def running(self) -> Any | None:
        """Details of the job that has not ended, or None."""
        return next(
            (job for _, job in reversed(self._by_attempt()) if not job.status.is_terminal()), None
        )

    def submit(self, space: str, command: Sequence[str], code: Path | None) -> str:
        """Starts the next attempt and returns its id. `command`: arguments of `emm`; `code`: the
        user's modules."""
        if code is None:
            return self._submit(
                space, "exec python -P -m sweep " + shlex.join(command), this_code(), code
            )
        with packed(code) as directory:
            entrypoint = f"cd {CODE} && exec python -P -m sweep " + shlex.join(command)
            return self._submit(space, entrypoint, {**this_code(), "working_dir": directory}, code)

    def _submit(
        self, space: str, entrypoint: str, environment: dict[str, Any], code: Path | None
    ) -> str:
        attempts = self._by_attempt()
        attempt = attempts[-1][0] + 1 if attempts else 1
        name = f"emm-{job_name(space)}-{sweep_id(self.storage)}-{attempt}"
        environment = {**environment, "env_vars": ENVIRONMENT}
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                return str(
                    self.client.submit_job(
                        entrypoint=entrypoint, submission_id=name, runtime_env=environment
                    )
                )
            except (RuntimeError, ValueError) as error:
                if "already exists" in str(error):  # somebody was faster with the same command
                    return name
                if code is not None and re.search(r"\b413\b|exceeds the maximum size", str(error)):
                    raise UserError(_too_much(code, "too much")) from error
                has_just_started = "try again later" in str(error)  # the head
                if not has_just_started or time.monotonic() > deadline:
                    raise UserError(
                        f"--address {self.address}: the job is not taken ({first_line(error)})"
                    ) from error
            time.sleep(1)

    def follow(self, name: str, tell: Callable[[str], None]) -> int | None:
        """Gives `tell` the log of a job, in pieces, until it has ended; its exit code, or None if
        the cluster no longer answers.

        The log comes in a thread, so that Ctrl-C ends the waiting at once. UserError if the cluster
        does not know the job.
        """
        self.told, answered = 0, time.monotonic()
        while time.monotonic() - answered < LOST_SECONDS:
            thread = threading.Thread(
                target=self._tell_log, args=[name, tell], name="log", daemon=True
            )
            thread.start()
            while thread.is_alive():
                thread.join(0.5)
            try:
                details = self.client.get_job_info(name)
            except (RuntimeError, OSError) as error:
                if _is_gone(error):
                    raise UserError(
                        f"{name}: the cluster does not know it any more (was its head "
                        "restarted?); the same command goes on"
                    ) from error
                time.sleep(1)
                continue
            answered = time.monotonic()
            if details.status.is_terminal():
                return _exit_code(details, tell)
            time.sleep(0.5)
        return None

    def _tell_log(self, name: str, tell: Callable[[str], None]) -> None:
        """From where it was left: Ray sends a log from its beginning."""
        import aiohttp

        async def tail() -> None:
            sent = 0
            async for text in self.client.tail_job_logs(name):
                new = text[max(0, self.told - sent) :]
                sent += len(text)
                self.told = max(self.told, sent)
                tell(new)

        try:
            asyncio.run(tail())
        except (RuntimeError, OSError, aiohttp.ClientError) as error:
            log.info("the log of %s broke off: %s", name, error)

    def stop(self, name: str, timeout: float = 40.0) -> None:
        """SIGTERM: the driver leaves with checkpoints. Returns when it has ended, or is gone;
        UserError if it still runs after `timeout` seconds, or the cluster no longer answers."""
        deadline = time.monotonic() + timeout
        try:
            self.client.stop_job(name)
            while not self.client.get_job_info(name).status.is_terminal():
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{name} was asked to end and still runs after {timeout:g} s; run emm "
                        "stop again"
                    )
                time.sleep(0.5)
        except (RuntimeError, OSError) as error:
            if not _is_gone(error):
                raise UserError(
                    f"--address {self.address}: {name} could not be ended ({first_line(error)})"
                ) from error


def _is_gone(error: Exception) -> bool:
    """Whether the cluster says that it has no such job: somebody deleted it, or the head is a new
    one."""
    return re.search(r"status code 404|does not exist", str(error)) is not None


def _exit_code(details: Any, tell: Callable[[str], None]) -> int:
    """Of the driver; 1 if it never came to run, for a reason that is told, and 0 where Ray says
    no more than success."""
    if details.status.value == "FAILED" and details.driver_exit_code is None:
        tell(f"{details.message}\n")
        return 1
    return int(details.driver_exit_code or 0)
