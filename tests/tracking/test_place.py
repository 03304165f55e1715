"""Which MLflow a sweep is written to, and whether it can be reached."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from sweep.cli.main import main
from sweep.cli.run import _sync_command
from sweep.store.places import Place, new_place, place
from sweep.tracking.place import Destination, check_tracking, why_unreachable
from sweep.tracking.sync import sync
from sweep.tracking.tracker import Tracker, make_up
from tests.tracked import Sweep
from trainables.errors import UserError

BAD = ["nonsense://x", "localhost:5000", "127.0.0.1:5000", "http://", "http://:5000", "http://host:port", "http://[::1",
       "sqlite:x.db", "sqlite://x.db", "sqlite:///", "mlruns", "file:///tmp/x", "http//host"]  # fmt: skip
GOOD = ["http://localhost:5000", "https://user:word@host/mlflow", "HTTP://host", "sqlite:///x.db", "sqlite:////tmp/x.db",
        "postgresql+psycopg2://me@host/db", "mysql://host/db", "databricks", "databricks://profile"]  # fmt: skip


@pytest.mark.parametrize("uri", BAD)
@pytest.mark.parametrize("command", ["run", "submit", "sync"])
def test_a_uri_that_says_nothing_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, uri: str
) -> None:
    out = tmp_path / "out"
    arguments = {
        "run": ["digits-width", "--out", str(out)],
        "submit": ["digits-width", "--address", "http://127.0.0.1:9", "--storage", str(out)],
        "sync": [str(out)],
    }
    with pytest.raises(SystemExit) as ended:
        main([command, *arguments[command], "--tracking-uri", uri])
    assert ended.value.code == 2
    expected = (
        f"emm: error: --tracking-uri {uri}: give http://HOST:PORT of a server, or sqlite:///FILE\n"
    )
    assert capsys.readouterr().err.endswith(expected)
    assert not out.exists()


@pytest.mark.parametrize("uri", GOOD)
def test_a_uri_that_mlflow_knows_is_taken(uri: str) -> None:
    check_tracking(uri)


def test_a_dead_server_is_said_before_the_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dead: str
) -> None:
    out = tmp_path / "out"
    uri = f"http://me:topsecret@{dead}"
    for command in (
        ["run", "digits-width", "--out", str(out), "--cpus-per-trial", "4096"],
        ["sync", str(out)],
    ):
        begin = time.monotonic()
        with pytest.raises(SystemExit) as ended:
            main([*command, "--tracking-uri", uri])
        assert time.monotonic() - begin < 15
        assert ended.value.code == 2
        said = capsys.readouterr().err.splitlines()
        assert f"http://…@{dead}" in said[0]
        assert "topsecret" not in said[0]
        assert "no MLflow can be reached" in said[0]
        assert said[0].startswith("warning: " if command[0] == "run" else "emm: error: ")
    assert not out.exists()


def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        assert "timed out" in (why_unreachable(address, seconds=0.3) or "")
    assert (
        why_unreachable(f"sqlite:///{tmp_path}/none/x.db")
        == f"there is no directory {tmp_path}/none"
    )
    assert why_unreachable(f"sqlite:///{tmp_path}/x.db") is None


@contextmanager
def answering(status: int, **headers: str) -> Iterator[str]:
    """A server on loopback that answers everything so, with a body that never ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "100")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{made.server_port}"
        made.shutdown()


@pytest.mark.parametrize(
    ("status", "reason"),
    [(200, None), (401, None), (404, None), (503, "it answers 503 Service Unavailable")],
)
def test_any_answer_of_a_server_that_works_will_do(status: int, reason: str | None) -> None:
    with answering(status) as address:
        assert why_unreachable(f"http://{address}") == reason
        assert why_unreachable(f"http://me:topsecret@{address}/?x=1") == reason
        assert why_unreachable(f"https://{address}") is None, "what TLS takes is not ours to say"


def test_where_a_server_sends_us_to_is_asked(dead: str) -> None:
    with answering(302, Location=f"http://{dead}/") as address:
        assert why_unreachable(f"http://{address}") == "[Errno 111] Connection refused"


def test_passwords_of_a_server_are_not_shown(
    empty: Sweep, dead: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    where, told = Destination(f"http://me:topsecret@{dead}"), list[str]()
    with pytest.raises(UserError, match="MLflow at http://…@127") as error:
        sync(empty.summary, empty.storage, where)
    tracker = Tracker(
        empty.summary,
        lambda name: empty.summary.studies[0].verdict,
        empty.storage,
        where,
        told.append,
    )
    assert not tracker.close(30)
    assert not make_up(empty.summary, empty.storage, where)
    assert len(told) == 1, "on the terminal, once, while the sweep goes on"
    assert told[0].startswith("note: MLflow: ")
    assert "topsecret" not in " ".join(
        [str(error.value), *told, *(one.getMessage() for one in caplog.records)]
    )


def test_the_command_that_mends_it_names_the_server_that_lacks_it(tmp_path: Path) -> None:
    local, remote = new_place(tmp_path / "a b", None), place("memory://bucket/x")
    both = Place(remote.storage, tmp_path / "views")
    assert _sync_command(local, None) == f"emm sync '{tmp_path}/a b'"
    assert (
        _sync_command(local, "http://h:1") == f"emm sync '{tmp_path}/a b' --tracking-uri http://h:1"
    )
    assert (
        _sync_command(both, "http://h:1") == f"emm sync {tmp_path}/views --tracking-uri http://h:1"
    )
    assert (
        _sync_command(remote, "http://me:word@h:1")
        == "emm sync memory://bucket/x --tracking-uri 'http://…@h:1'"
    )
    assert (
        _sync_command(remote, None) == "emm sync memory://bucket/x --tracking-uri http://HOST:PORT"
    )


def test_importing_it_does_not_import_mlflow() -> None:
    code = "import sys, sweep.tracking.tracker, sweep.tracking.server; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
