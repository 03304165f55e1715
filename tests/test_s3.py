"""A sweep on object storage: a loopback S3 server of moto's, through pyarrow."""

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sweep.analysis.summary import summarize
from sweep.run.checks import Sweep, check_sweep
from sweep.store.lock import Lock
from sweep.store.places import place, purge
from tests.fakes import fake_space
from trainables.errors import UserError
from trainables.storage import Storage
from trainables.text import redacted
from trainables.trial.result import read_all

ROOT = Path(__file__).parent.parent


@pytest.fixture
def bucket(s3_host):
    """URL of a bucket, and the options at the end of a URL in it."""
    return "s3://emm", f"?scheme=http&region=us-east-1&endpoint_override={s3_host}"


def test_a_bucket_that_is_not_there_and_a_server_that_is_not_there(bucket):
    with pytest.raises(UserError, match="can't be"), Lock(Storage(f"s3://nosuch/x{bucket[1]}")):
        pass
    with pytest.raises(UserError, match="can't be read"):
        check_sweep(
            Storage("s3://emm/x?scheme=http&region=us-east-1&endpoint_override=127.0.0.1:1"),
            Sweep(fake_space()),
        )


def test_credentials_are_not_shown():
    url = "s3://AKIA:hush@bucket/a@b?region=x&access_key=hush&session_token=hush&scheme=http"
    assert redacted(url) == "s3://…@bucket/a@b?region=x&access_key=…&session_token=…&scheme=http"
    assert redacted("s3://AKIA:hu/sh+@bucket/x") == "s3://…@bucket/x"
    for innocent in ("s3://bucket/a@b", "http://host:5000/a@b", "/a:b@c", "file:///a:b@c"):
        assert redacted(innocent) == innocent
    with pytest.raises(UserError) as error:
        Storage("nosuch://AKIA:hush@bucket/x")
    assert "hush" not in str(error.value)


def fake_sweep(url, *arguments):
    command = [sys.executable, "-m", "tests.fake_sweep", url, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def outcome(url):
    return [(r.spec.name, r.spec.seed, r.spec.n, r.r_mem) for r in read_all(Storage(url))[0]]


@pytest.mark.timeout(280)
@pytest.mark.slow
def test_a_sweep_that_is_killed_with_its_disk_goes_on_from_the_bucket_to_the_same_end(
    bucket, tmp_path
):
    """Each driver has an Optuna database of its own, in a fresh temporary directory: nothing is
    left but the bucket."""
    url = f"{bucket[0]}/sweep{bucket[1]}"
    first = fake_sweep(url, "1", "8")
    while first.poll() is None and len(outcome(url)) < 2:
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = fake_sweep(url, "1", "8")
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    undisturbed = fake_sweep(str(tmp_path / "local"), "1", "8")
    undisturbed.communicate(timeout=120)
    assert outcome(url) == outcome(str(tmp_path / "local"))
    (study,) = summarize(Storage(url)).studies
    assert study.verdict.state == "found"
    assert purge(place(url)) == []
    assert Storage(url).list() == []


class Relay(socketserver.ThreadingTCPServer):
    """Passes what comes to its port on to another one, unless it is cut: then connections break,
    also those that are open."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", 0), Passing)
        self.target, self.is_cut, self.refused = port, False, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def server_close(self):
        self.shutdown()
        super().server_close()


class Passing(socketserver.BaseRequestHandler):
    def handle(self):
        if self.server.is_cut:
            self.server.refused += 1
            return
        with socket.create_connection(("127.0.0.1", self.server.target)) as there:
            back = threading.Thread(target=self.passing, args=(there, self.request), daemon=True)
            back.start()
            self.passing(self.request, there)
            back.join()

    def passing(self, source, sink):
        source.settimeout(0.2)
        while not self.server.is_cut:
            try:
                if not (data := source.recv(65536)):
                    break
                sink.sendall(data)
            except TimeoutError:
                continue
            except OSError:
                break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.mark.timeout(400)
@pytest.mark.slow
def test_a_sweep_waits_while_the_bucket_cannot_be_reached(bucket, tmp_path):
    """For longer than a client tries by itself; trials keep what they have and the sweep ends as if
    nothing had been."""
    front, port = bucket[1].rsplit(":", 1)
    settings = (
        "measurement.n_samples=40 measurement.n_selection=20 measurement.snapshots=4 "
        "search.max_trials=2 trainer.length=300"
    )

    def run(storage, views):
        where = ["--storage", storage, "--out", str(views)]
        command = [sys.executable, "-m", "sweep", "run", "digits-width", "--workers", "1", *where]
        command += [part for setting in settings.split() for part in ("--set", setting)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    here = Storage(f"s3://emm/waits{bucket[1]}")
    with Relay(int(port)) as relay:
        driver = run(f"s3://emm/waits{front}:{relay.server_address[1]}", tmp_path / "far")
        while driver.poll() is None and len(here.list("trials")) < 2:
            time.sleep(0.2)
        relay.is_cut = True
        time.sleep(45)  # a client of pyarrow's tries for some seconds
        relay.is_cut = False
        output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    assert relay.refused
    assert "a trial waits for the storage" in output
    undisturbed = run(str(tmp_path / "near"), tmp_path / "near")
    undisturbed.communicate(timeout=200)
    assert outcome(here.url) == outcome(str(tmp_path / "near"))
    assert len(outcome(here.url)) == 4
