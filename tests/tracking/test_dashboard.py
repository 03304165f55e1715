"""Optuna's dashboard on the database of a sweep: every study with its bisection, and attributes
that can be read."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from sweep.run.studies import Studies
from tests.fakes import fake_space
from tests.results import write_sweep
from trainables.data.sources import load
from trainables.storage import Storage
from trainables.trial.result import read_all

pytestmark = pytest.mark.slow


class Silent(WSGIRequestHandler):
    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address on loopback, on a database that `Studies` wrote."""
    from optuna_dashboard import wsgi

    directory, space = tmp_path_factory.mktemp("sweep"), fake_space((8, 16), n_high=256)
    storage = Storage(str(directory))
    write_sweep(storage, space, load(space.base.data), 6)
    url = f"sqlite:///{Path(directory) / 'optuna.db'}"
    studies = Studies(space, url)
    studies.reconcile(*read_all(storage)[:2])
    assert {studies.verdict(name).state for name in studies.configurations} == {"found"}
    with make_server("127.0.0.1", 0, wsgi(url), handler_class=Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def ask(address: str) -> Any:
    with build_opener(ProxyHandler({})).open(address, timeout=20) as answer:
        return json.load(answer)


def test_every_study_is_shown_with_its_bisection(dashboard: str) -> None:
    found = {one["study_name"]: one for one in ask(f"{dashboard}/api/studies")["study_summaries"]}
    assert set(found) == {"width=8", "width=16"}
    study = ask(f"{dashboard}/api/studies/{found['width=16']['study_id']}")
    trials = study["trials"]
    assert [trial["number"] for trial in trials] == list(range(6))
    assert {trial["state"] for trial in trials} == {"Complete"}
    sizes = [float(trial["params"][0]["param_external_value"]) for trial in trials]
    assert sizes == sorted(sizes)  # as they were written
    assert all(0 <= trial["values"][0] <= 1 for trial in trials)
    attributes = {one["key"]: one["value"] for one in study["user_attrs"]}
    assert attributes["verdict"].startswith("found: sd ")
    assert attributes["EMM"].startswith("EMM ")
    (first, *_) = trials
    assert {"n_samples", "n_memorized", "training_key", "images_trained"} <= {
        one["key"] for one in first["user_attrs"]
    }
