"""A cluster that is joined: its address, what a trial may be given there, and this code, which
travels with us."""

import math
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sweep
from trainables.errors import UserError
from trainables.import_path import OURS
from trainables.text import first_line

CONNECT_SECONDS = 8.0

PORTS = {"http": 80, "https": 443}

UNSENT = ["__pycache__", ".git"]

SMALLEST_SHARE = 0.001  # of a CPU or GPU; Ray counts in ten-thousandths

TOKEN = "export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE"


def check_address(address: str) -> None:
    """Raises UserError within seconds if nothing listens at HOST:PORT, http(s)://HOST:PORT or what
    `auto` stands for."""
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address}: a driver does not run through Ray's client; use HOST:PORT, or "
            "emm submit"
        )
    if address == "local":
        raise UserError("--address local: leave it out, and this run has a Ray of its own")
    where = _found_by_ray() if address == "auto" else address
    parts = urlsplit(where if "://" in where else f"//{where}")
    try:
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme)
    except ValueError as error:
        raise UserError(f"--address {address}: {error}") from None
    if host is None or port is None:
        raise UserError(
            f"--address {address}: it has no port; give HOST:PORT, of Ray's head 6379 unless it "
            "was told another"
        )
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
        if not parts.scheme and os.environ.get("RAY_USE_TLS") != "1":
            _check_grpc(f"{host}:{port}")
    except (OSError, TimeoutError) as error:
        found = "" if where == address else f", which is {where} here"
        raise UserError(
            f"--address {address}{found}: nothing answers there ({error}); is this the address of "
            "the cluster?"
        ) from None


def _found_by_ray() -> str:
    """HOST:PORT of the cluster that Ray takes for `auto`: RAY_ADDRESS, or the one that was started
    last on this machine."""
    from ray._private import services

    try:
        found = services.canonicalize_bootstrap_address("auto")
    except AttributeError:
        # a Ray without this private name: it is asked for what the user exported alone
        found = os.environ.get("RAY_ADDRESS")
    except (ConnectionError, ValueError, OSError) as error:
        raise UserError(
            f"--address auto: no Ray runs on this machine ({first_line(error)}); give HOST:PORT"
        ) from None
    if not found:
        raise UserError("--address auto: no Ray was started on this machine; give HOST:PORT")
    return str(found)


def check_per_trial(cpus: float, gpus: float | None) -> None:
    """Raises UserError for a share of CPUs or GPUs that Ray can give to no trial, on whatever
    machine."""
    for what, share, least in (("cpus", cpus, SMALLEST_SHARE), ("gpus", gpus or 0, 0)):
        if not math.isfinite(share) or share < least or 0 < share < SMALLEST_SHARE:
            raise UserError(
                f"--{what}-per-trial {share:g}: give a number from {SMALLEST_SHARE} up"
                + ("" if least else ", or 0")
            )
    if gpus and gpus > 1 and gpus != int(gpus):
        raise UserError(
            f"--gpus-per-trial {gpus:g}: a trial gets a share of one GPU, or whole ones; give "
            f"{int(gpus)} or less than 1"
        )


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
    return {"py_modules": [str(root / package) for package in OURS], "excludes": UNSENT}
