"""Submission of a sweep as a Ray job, which is the same `emm run` on the head node of the cluster.

This code travels with the job as `py_modules`, so that driver and workers run what was submitted; a user's own modules travel
as the working directory, if asked. Secrets do not travel: the token of the cluster, the credentials of storage and MLflow are
read from environment or files where they are used.
"""

import asyncio
import hashlib
import logging
import os
import re
import shlex
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sweep
from sweep.escapes import say
from trainables.errors import UserError
from trainables.storage import redacted

log = logging.getLogger(__name__)

CONNECT_SECONDS = 8.0
READY_SECONDS = 60.0  # for a head that has just started to take jobs
LOST_SECONDS = 60.0  # without an answer of the cluster until the log is no longer followed
PORTS = {"http": 80, "https": 443}
TOKEN = "export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE"
ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_JOB_STOP_WAIT_TIME_S": "30",  # from SIGTERM to SIGKILL of a stopped job; the driver needs 15
}


def check_address(address: str) -> None:
    """Raises UserError within seconds if nothing listens at HOST:PORT or http(s)://HOST:PORT; other forms are left to Ray."""
    if address.startswith("ray://"):
        raise UserError(f"--address {address}: a driver does not run through Ray's client; use HOST:PORT, or emm submit")
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme)
    except ValueError as error:
        raise UserError(f"--address {address}: {error}") from None
    if host is None or port is None:
        return
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
        if not parts.scheme and os.environ.get("RAY_USE_TLS") != "1":
            _check_grpc(f"{host}:{port}")
    except (OSError, TimeoutError) as error:
        raise UserError(f"--address {address}: nothing answers there ({error}); is this the address of the cluster?") from None


def _check_grpc(address: str) -> None:
    """Whether what listens speaks gRPC, as Ray does, which would wait for it for minutes."""
    import grpc

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            raise TimeoutError("no Ray, but something else") from None


def this_code() -> dict[str, Any]:
    """Runtime environment by which every node runs this very code, whatever is installed there."""
    root = Path(sweep.__path__[0]).parent
    packages = [str(root / package) for package in ("trainables", "search_spaces", "sweep")]
    return {"py_modules": packages, "excludes": ["__pycache__"]}


def sweep_id(storage: str) -> str:
    return hashlib.sha256(storage.rstrip("/").encode()).hexdigest()[:8]


class Jobs:
    """The jobs of one sweep on a cluster: `emm-<space>-<hash of the storage URL>-<attempt>`, one at a time.

    `address`: http(s)://HOST:PORT of the dashboard. Raises UserError if it does not answer, or does not let us in.
    """

    def __init__(self, address: str, storage: str) -> None:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        if redacted(storage) != storage:
            raise UserError(
                f"--storage {redacted(storage)}: everybody may read a job's command; give its nodes the credentials"
            )
        if not address.startswith(("http://", "https://")):
            raise UserError(f"--address {address}: give the dashboard's, as http://HOST:8265")
        check_address(address)
        for name in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):  # they set their own level
            logging.getLogger(name).setLevel(logging.ERROR)
        self.address, self.storage = address, storage
        try:
            self.client = JobSubmissionClient(address)
            self._by_attempt()
        except AuthenticationError as error:
            raise UserError(f"--address {address}: it asks for another token; {TOKEN}") from error
        except (ConnectionError, RuntimeError) as error:
            reason = _first_line(error)
            raise UserError(f"--address {address}: is this a Ray dashboard with a job server? ({reason})") from error

    def _by_attempt(self) -> list[tuple[int, Any]]:
        pattern = re.compile(rf"emm-.*-{sweep_id(self.storage)}-(\d+)")
        found = [(pattern.fullmatch(job.submission_id or ""), job) for job in self.client.list_jobs()]
        return sorted(((int(match[1]), job) for match, job in found if match), key=lambda pair: pair[0])

    def running(self) -> Any | None:
        """Details of the job that has not ended, or None."""
        return next((job for _, job in reversed(self._by_attempt()) if not job.status.is_terminal()), None)

    def submit(self, space: str, command: Sequence[str], code: Path | None) -> str:
        """Starts the next attempt and returns its id. `command`: arguments of `emm`; `code`: the user's modules."""
        attempts = self._by_attempt()
        name = f"emm-{space}-{sweep_id(self.storage)}-{attempts[-1][0] + 1 if attempts else 1}"
        environment = {**this_code(), "env_vars": ENVIRONMENT}
        if code is not None:
            environment["working_dir"] = str(code)
        entrypoint = "exec python -m sweep " + shlex.join(command)
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                return str(self.client.submit_job(entrypoint=entrypoint, submission_id=name, runtime_env=environment))
            except RuntimeError as error:
                if "already exists" in str(error):  # somebody was faster with the same command
                    return name
                if "try again later" not in str(error) or time.monotonic() > deadline:  # a head that has just started
                    raise UserError(f"--address {self.address}: the job is not taken ({_first_line(error)})") from error
            time.sleep(1)

    def follow(self, name: str) -> int | None:
        """Prints the log of a job until it has ended; its exit code, or None if the cluster no longer answers.

        The log comes in a thread, so that Ctrl-C ends the waiting at once.
        """
        self.printed, answered = 0, time.monotonic()
        while time.monotonic() - answered < LOST_SECONDS:
            thread = threading.Thread(target=self._print_log, args=[name], name="log", daemon=True)
            thread.start()
            while thread.is_alive():
                thread.join(0.5)
            try:
                details = self.client.get_job_info(name)
            except (RuntimeError, OSError):
                time.sleep(1)
                continue
            answered = time.monotonic()
            if details.status.is_terminal():
                return _exit_code(details)
            time.sleep(0.5)
        return None

    def _print_log(self, name: str) -> None:
        """From where it was left: Ray sends a log from its beginning."""
        import aiohttp

        async def tail() -> None:
            sent = 0
            async for text in self.client.tail_job_logs(name):
                new = text[max(0, self.printed - sent) :]
                sent += len(text)
                self.printed = max(self.printed, sent)
                say(new, end="", flush=True)

        try:
            asyncio.run(tail())
        except (RuntimeError, OSError, aiohttp.ClientError) as error:
            log.info("the log of %s broke off: %s", name, error)

    def stop(self, name: str, timeout: float = 40.0) -> None:
        """SIGTERM: the driver leaves with checkpoints. Returns when it has ended; UserError if not within `timeout` seconds."""
        self.client.stop_job(name)
        deadline = time.monotonic() + timeout
        while not self.client.get_job_info(name).status.is_terminal():
            if time.monotonic() > deadline:
                raise UserError(f"{name} was asked to end and still runs after {timeout:g} s; run emm stop again")
            time.sleep(0.5)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _exit_code(details: Any) -> int:
    """Of the driver; 1 if it never came to run, for a reason that is printed, and 0 where Ray says no more than success."""
    if details.status.value == "FAILED" and details.driver_exit_code is None:
        say(details.message, flush=True)
        return 1
    return int(details.driver_exit_code or 0)
