"""One thread per test process: small tensors are faster so, and resumed training is compared bit
for bit."""

import logging
import os
import tempfile
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray has its workers at 15, where beside the tests of another process they wait for minutes
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture
def short_path():
    """Ray's sockets need short paths, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="emm") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def s3_host():
    """Host and port of a loopback S3 server of moto's, with a bucket `emm`."""
    from moto.server import ThreadedMotoServer

    secrets = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in secrets.items():
            patch.setenv(name, value)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.delenv(name, raising=False)
        server = ThreadedMotoServer("127.0.0.1", port=0)
        server.start()
        host, port = server.get_host_and_port()
        new_bucket = Request(f"http://{host}:{port}/emm", method="PUT")
        build_opener(ProxyHandler({})).open(new_bucket, timeout=20)
        yield f"{host}:{port}"
        server.stop()


def pytest_terminal_summary(terminalreporter):
    """The table of what failed, of the tests of faults that ran."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
    ]
    rows = [
        row
        for report in reports
        if report.when == "call"
        for name, row in report.user_properties
        if name == "fault"
    ]
    if rows:
        terminalreporter.section("faults")
        print_row = "| {} | {} | {} | {} | {} | {} |".format
        terminalreporter.line(
            print_row(
                "fault",
                "moment",
                "finished trials lost",
                "trained twice",
                "verdicts",
                "seconds to recover",
            )
        )
        terminalreporter.line("|---|---|---|---|---|---|")
        for *row, seconds in rows:
            terminalreporter.line(print_row(*row, f"{seconds:.1f}"))


@pytest.fixture(autouse=True)
def no_log_outlives_a_test():
    """A command that ran in this process leaves its log's handler, on a stream of a test that has
    ended."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    for handler in [
        one for one in root.handlers if type(one) in (logging.StreamHandler, logging.FileHandler)
    ]:
        if handler not in before:
            root.removeHandler(handler)
            handler.close()
