"""The server of `emm ui`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import requests

from sweep.tracking import server as module
from sweep.tracking.place import DATABASE, sweep_key, why_unreachable
from sweep.tracking.server import serve, server, urls
from sweep.tracking.sync import sync
from tests.tracked import SPACE, Sweep, artifacts, destination, new_sweep, runs, track
from trainables.errors import UserError


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, blank: Path) -> Iterator[tuple[Sweep, str]]:
    directory = tmp_path_factory.mktemp("served")
    (directory / DATABASE).write_bytes(blank.read_bytes())
    sweep = new_sweep(directory)
    sweep.finished("width=4", 8, 0)
    sync(sweep.summary, sweep.storage, destination(sweep))
    with server(directory) as address:
        yield sweep, address
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(directory) in " ".join(process.info["cmdline"] or [])
    ]
    assert not left, "the server left processes behind"


@pytest.mark.timeout(120)
def test_a_server_shows_and_takes_the_same_runs(served: tuple[Sweep, str]) -> None:
    sweep, address = served
    shown = urls(address, sweep_key(SPACE, sweep.storage))
    assert shown["studies"].startswith(
        f"{address}/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey="
    )
    before = runs(address)
    assert all(before[name].info.run_id in shown["compare"] for name in ("width=4", "width=8"))
    with pytest.raises(UserError, match="emm sync"):
        urls(address, "another sweep")
    where = replace(destination(sweep), uri=address)
    tracker = track(sweep, where)
    tracker.trial_finished(sweep.finished("width=8", 16, 0))
    tracker.close(40)
    assert tracker.missed == 0
    after = runs(address)
    assert set(after) - set(before) == {"width=8 N=16 seed=0"}
    assert {name: run.info.run_id for name, run in after.items() if name in before} == {
        name: run.info.run_id for name, run in before.items()
    }
    assert set(artifacts(after["width=8 N=16 seed=0"])) == {"distances.csv", "samples.png"}


@pytest.mark.timeout(120)
def test_a_server_is_there_for_this_machine_alone(served: tuple[Sweep, str]) -> None:
    sweep, address = served
    assert why_unreachable(address) is None
    listening = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # others come and go meanwhile
            family = [process, *process.parents()]
            if any(sweep.storage.root in " ".join(one.cmdline()) for one in family):
                connections = process.net_connections("inet")
                listening += [one for one in connections if one.status == psutil.CONN_LISTEN]
    assert listening
    assert {one.laddr.ip for one in listening} == {"127.0.0.1"}, listening


@pytest.mark.timeout(120)
def test_a_port_in_use_is_the_users_mistake(served: tuple[Sweep, str]) -> None:
    sweep, address = served
    with (
        pytest.raises(UserError, match="leave it out"),
        server(Path(sweep.storage.root), int(address.rsplit(":", 1)[1])),
    ):
        pass


def test_a_directory_without_a_database_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="emm sync"), server(tmp_path):
        pass
    assert not os.listdir(tmp_path)


def test_a_database_that_mlflow_cannot_read_is_one_line(
    served: tuple[Sweep, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lacks a table: the server starts, and answers 503."""
    sweep, address = served

    @contextmanager
    def damaged(*_: object) -> Iterator[str]:
        yield f"{address}/nothing"

    def refused(*_: object) -> dict[str, str]:
        raise requests.HTTPError("503 Server Error")

    monkeypatch.setattr(module, "server", damaged)
    monkeypatch.setattr(module, "urls", refused)
    told = list[str]()
    with pytest.raises(UserError, match=r"MLflow can't read it \(503 .*delete that file"):
        serve(sweep.storage, Path(sweep.storage.root), told.append)
    assert not told
