"""Ray clusters on loopback, as `ray start` makes them: a token, fake GPUs, processes that end with
the test.

127.0.0.2 and up: Ray rewrites 127.0.0.1 to the address of the machine where nodes have to find each
other.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import psutil

ROOT = Path(__file__).parent.parent
RAY = str(Path(sys.executable).with_name("ray"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """A head without CPUs for trials unless asked; `add` starts another node. `environment`: what
    clients need."""

    def __init__(self, directory, cpus=2, gpus=0):
        self.directory, self.nodes = Path(directory), []
        self.port, dashboard = free_port(), free_port()
        self.address, self.dashboard = f"127.0.0.2:{self.port}", f"http://127.0.0.1:{dashboard}"
        token = self.directory / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_worker_niceness": "0",  # as in conftest.py
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_TMPDIR": str(self.directory),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        self._start(
            "--head", f"--port={self.port}", f"--dashboard-port={dashboard}", cpus=cpus, gpus=gpus
        )
        self._wait_for_dashboard()

    def add(self, cpus=1, gpus=0):
        return self._start(f"--address={self.address}", cpus=cpus, gpus=gpus)

    def _start(self, *options, cpus, gpus):
        command = [RAY, "start", *options, f"--node-ip-address=127.0.0.{len(self.nodes) + 2}"]
        command += ["--dashboard-host=127.0.0.1"] if "--head" in options else []
        # by default every Ray on a machine wants the same port for the agent that takes jobs, and
        # the second has none
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        command += [f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--disable-usage-stats", "--block"]
        with open(self.directory / f"node{len(self.nodes)}.log", "wb") as log:
            node = subprocess.Popen(
                command,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes.append(node)
        self._wait_for_start(node, self.directory / f"node{len(self.nodes) - 1}.log")
        return node

    @staticmethod
    def _wait_for_start(node, log):
        """One node after the other: of two that start on one machine at once, one gives up."""
        deadline = time.monotonic() + 60
        while "Ray runtime started" not in log.read_text():
            if node.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.1)

    def _wait_for_dashboard(self):
        opener, deadline = build_opener(ProxyHandler({})), time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                opener.open(f"{self.dashboard}/api/version", timeout=5).close()
                return
            except HTTPError:  # an answer
                return
            except OSError:
                time.sleep(0.3)
        raise TimeoutError((self.directory / "node0.log").read_text())

    def kill(self, node):
        """Every process of a node, at once."""
        with suppress(psutil.NoSuchProcess):
            processes = [
                psutil.Process(node.pid),
                *psutil.Process(node.pid).children(recursive=True),
            ]
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
        node.wait()

    def emm(self, *arguments, **options):
        command = [sys.executable, "-m", "sweep", *map(str, arguments)]
        environment = {**self.environment, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command,
            env=environment,
            cwd=options.pop("cwd", "/"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )


@contextmanager
def cluster(directory, cpus=2, gpus=0):
    one = Cluster(directory, cpus, gpus)
    try:
        yield one
    finally:
        for node in reversed(one.nodes):
            one.kill(node)
