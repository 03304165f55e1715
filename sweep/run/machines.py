"""Where trials run: this machine, with a Ray that nobody else can use, or a cluster that is
joined."""

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import joblib
import ray

from sweep.run.cluster import TOKEN, check_address, check_per_trial, this_code
from trainables.errors import UserError
from trainables.import_path import OURS, THEIRS, ours_first
from trainables.progress import work
from trainables.text import first_line

log = logging.getLogger(__name__)

SOCKET_PATH = 107  # bytes, at most, of the path of a Unix socket
# what mkdtemp and Ray add to TMPDIR: our directory, that of its session, the longest socket
RAYS_PART = len("/emm-12345678/r/session_2026-01-31_08-00-00_000000_4194304/sockets/plasma_store")
LOOK_SECONDS = 60.0  # for the first process of Ray's to say where it finds our modules


@dataclass(frozen=True)
class Resources:
    """What a trial is given, and where the trials run. `address` None: a Ray of its own on this
    machine, on loopback."""

    cpus_per_trial: float = 1
    gpus_per_trial: float | None = None  # None: 1 if there are GPUs, else 0
    workers: int | None = None  # trials at once; None: as many as fit
    address: str | None = None
    # cost: at most two trials of a study at once, though workers idle; wall: eight
    objective: Literal["cost", "wall"] = "wall"


def check_local_resources(resources: Resources, cpus: int, gpus: int) -> None:
    """Raises UserError for more than this machine has: locally, waiting for it would be for
    ever."""
    check_per_trial(resources.cpus_per_trial, resources.gpus_per_trial)
    cpus_each, gpus_each = resources.cpus_per_trial, resources.gpus_per_trial or 0
    for name, each, there_are in (("CPU", cpus_each, cpus), ("GPU", gpus_each, gpus)):
        if each > there_are:
            option = f"--{name.lower()}s-per-trial {each:g}"
            raise UserError(f"{option}: this machine has {there_are} {name}s")
    if resources.workers is None:
        return
    for name, each, there_are in (("CPU", cpus_each, cpus), ("GPU", gpus_each, gpus)):
        if resources.workers * each > there_are:
            needed = f"{each:g} {name}s each"
            raise UserError(
                f"--workers {resources.workers}: {needed}, and this machine has {there_are}"
            )


def usable_cpus() -> int:
    """CPUs that this process may use: those it may run on, or the quota of its container where that
    is less; a quota of 1.5 counts as 2."""
    return int(joblib.cpu_count())


def usable_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def claim(resources: Resources) -> None:
    """Raises UserError if trials can't have that much: of this machine, or of the cluster at the
    address, which is joined."""
    if resources.address is not None:
        start_ray(resources)
        return
    session_parent()
    check_local_resources(
        resources, usable_cpus(), usable_gpus() if resources.gpus_per_trial else 0
    )


def start_ray(resources: Resources, tell: Callable[[str], None] = log.warning) -> None:
    """Connects to the cluster, or starts a Ray for this process alone, on loopback and with a token
    that nobody else knows.

    Raises UserError if there is no cluster at the address, it does not let us in, or its processes
    find other modules than ours. Does nothing if it was called before. `stop_ray` ends it. `tell`
    is given a line if a local Ray is open to more than this machine.
    """
    if ray.is_initialized():
        return
    ours_first()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Tune is not to print beside the lines of the sweep
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    with work("joining the cluster" if resources.address else "starting Ray"):
        if resources.address:
            _join(resources.address, common)
        else:
            _start_local(common, tell)
        check_workers()


def _join(address: str, common: dict[str, Any]) -> None:
    check_address(address)
    if "://" in address:
        raise UserError(
            f"--address {address}: give HOST:PORT of the cluster's head; a URL is for emm submit"
        )
    is_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # it has brought this code along
    environment = None if is_job else {**this_code(), "env_vars": {THEIRS: os.environ[THEIRS]}}
    try:
        # Ray puts the driver's working directory before everything on its workers' import path
        with tempfile.TemporaryDirectory(prefix="emm-") as empty, contextlib.chdir(empty):
            ray.init(address, runtime_env=environment, **common)
    except (ConnectionError, ray.exceptions.AuthenticationError, RuntimeError) as error:
        reason = first_line(error)
        raise UserError(
            f"--address {address}: the cluster does not take us in ({reason}); if it has a token, "
            f"{TOKEN}"
        ) from error


_token = secrets.token_hex(32)  # one for this process: Ray remembers it
_session: Path | None = None  # the directory of the local Ray


def _start_local(common: dict[str, Any], tell: Callable[[str], None]) -> None:
    global _session
    _session = Path(tempfile.mkdtemp(prefix="emm-", dir=session_parent()))  # mode 0700
    atexit.register(stop_ray)
    # unset, Ray turns its token mode on; a value of the user's it may have read when it was
    # imported
    os.environ.pop("RAY_AUTH_MODE", None)
    os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
    os.environ["RAY_AUTH_TOKEN"] = _token
    # Ray puts the driver's working directory before everything on its workers' import path:
    # this one holds no modules
    with contextlib.chdir(_session), _address_left_alone(), _nobody_looking():
        ray.init(
            "local",
            num_cpus=usable_cpus(),
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(_session / "r"),  # Ray makes it 0777; nobody else gets through to it
            **common,
        )
    if os.environ.get("RAY_AUTH_MODE") != "token":
        stop_ray()
        raise UserError(
            f"Ray {ray.__version__} starts without a token, open to everybody; install ray>=2.59"
        )
    if any(node["NodeManagerAddress"] != "127.0.0.1" for node in ray.nodes()):
        tell(f"note: Ray {ray.__version__} listens on all interfaces, behind a token")


@contextmanager
def _address_left_alone() -> Iterator[None]:
    """Ray replaces 127.0.0.1 by an address that other machines reach, and then listens on all of
    them. Not in here.

    The name is private: without it, Ray listens as it likes, behind the token.
    """
    from ray._private import services

    resolve = getattr(services, "resolve_ip_for_localhost", None)
    if resolve is None:
        yield
        return
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = resolve


UNWATCHED = ("start_api_server", "start_monitor", "start_log_monitor")


@contextmanager
def _nobody_looking() -> Iterator[None]:
    """Without the processes by which people watch a cluster, or it grows: a Ray of one process has
    no use for dashboard, autoscaler and collected logs, and starts and ends seconds sooner.

    The names are private: what is not there by its name starts as it did.
    """
    from ray._private.node import Node

    former = {name: getattr(Node, name) for name in UNWATCHED if hasattr(Node, name)}
    for name in former:
        setattr(Node, name, lambda self, *_, **__: None)
    try:
        yield
    finally:
        for name, start in former.items():
            setattr(Node, name, start)


def session_parent() -> str:
    """The directory in which the local Ray gets one of its own: RAY_TMPDIR, else TMPDIR or /tmp.

    Raises UserError if it is too long for the paths of sockets, or can't be written.
    """
    named, most = os.environ.get("RAY_TMPDIR"), SOCKET_PATH - RAYS_PART
    candidates = [named] if named else [tempfile.gettempdir(), "/tmp"]
    for parent in map(os.path.abspath, candidates):
        if len(os.fsencode(parent)) <= most and os.access(parent, os.W_OK | os.X_OK):
            return parent
    raise UserError(
        f"{'RAY_TMPDIR' if named else 'TMPDIR'}={candidates[0]}: Ray needs a directory that can "
        "be written, with a path of "
        f"{most} bytes at most; export RAY_TMPDIR=DIR"
    )


def stop_ray() -> None:
    """Ends the local Ray, or leaves the cluster."""
    ray.shutdown()
    remove_session()


def remove_session() -> None:
    """The files of the local Ray, its logs among them."""
    global _session
    if _session is not None:
        shutil.rmtree(_session, ignore_errors=True)
        _session = None


def check_workers() -> None:
    """Raises UserError if a process of Ray's finds other modules under our names than we do."""

    # in here, so that it travels as it is: a function of a module would be looked up by its name
    def look(names: tuple[str, ...]) -> dict[str, tuple[str, str]]:
        """Of each package: its file, and a digest of its modules; "" for what is no package."""
        import hashlib
        import importlib.util
        from pathlib import Path

        found = {}
        for name in names:
            spec = importlib.util.find_spec(name)
            file, digest = (spec.origin or "" if spec else ""), hashlib.sha256()
            is_package = file.endswith("__init__.py")
            for path in sorted(Path(file).parent.rglob("*.py")) if is_package else ():
                digest.update(path.read_bytes())
            found[name] = file, digest.hexdigest() if is_package else ""
        return found

    try:
        theirs = ray.get(ray.remote(num_cpus=0)(look).remote(OURS), timeout=LOOK_SECONDS)
    except ray.exceptions.GetTimeoutError:
        log.warning("no process of Ray's has answered within %g s", LOOK_SECONDS)
        return
    except ray.exceptions.RayError as error:
        raise UserError(
            f"Ray can't start a process ({str(error).strip().splitlines()[-1]})"
        ) from error
    for name, (file, digest) in look(OURS).items():
        if theirs[name][1] != digest:
            raise UserError(
                f"Ray's processes take {theirs[name][0] or 'nothing'} for this package's {name}, "
                f"which is {file}: rename that "
                "file, take its directory from their PYTHONPATH, or install the same version there"
            )
