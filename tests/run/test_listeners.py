"""The contract of whoever is told what happens to trials: a new listener is a line in LISTENERS."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from sweep.analysis.summary import summarize
from sweep.report.live import Terminal
from sweep.run.studies import Studies
from sweep.store.budget import Budget, Limits
from sweep.store.files import SWEEP
from sweep.tracking.place import Destination
from sweep.tracking.tracker import Tracker
from tests.fakes import fake_space
from tests.results import write_trial
from trainables.data.sources import load
from trainables.storage import Storage
from trainables.trial.result import TrialRecord

SPACE = fake_space((8, 16))
DIGITS = load(SPACE.base.data)
SECONDS = 1.0  # that a call may take: it is Tune's thread that waits


def terminal(studies, storage, is_terminal):
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=100)
    return Terminal(studies.configurations, studies.verdict, studies.options, console)


def tracker(studies, storage, uri):
    return Tracker(summarize(storage), studies.verdict, storage, Destination(uri))


LISTENERS = {
    "terminal": lambda studies, storage: terminal(studies, storage, True),
    "log": lambda studies, storage: terminal(studies, storage, False),
    "MLflow that is not there": lambda studies, storage: tracker(
        studies, storage, "http://127.0.0.1:9"
    ),
    "budget": lambda studies, storage: Budget(storage, Limits(hours=1), devices=1),
}


@pytest.fixture(params=LISTENERS)
def life(request, tmp_path):
    """A listener, and the studies and the storage of a sweep that nothing has happened to."""
    storage = Storage(str(tmp_path))
    storage.write_json(SWEEP, {"sweep": SPACE.name, "space": SPACE.model_dump(mode="json")})
    studies = Studies(SPACE)
    return LISTENERS[request.param](studies, storage), studies, storage


def told(call, *arguments):
    begin = time.monotonic()
    assert call(*arguments) is None
    assert time.monotonic() - begin < SECONDS


def trial(studies, storage, name, **outcome):
    """A record and the result that it comes to."""
    ticket = studies.ask(name)
    named = studies.configurations[name]
    result = write_trial(storage, SPACE, named, DIGITS, ticket.n, ticket.number, **outcome)
    return TrialRecord.model_validate(dict(result)), result


REPORTS = [
    {"state": "training", "progress": 0.0, "time_this_iter_s": 0.5},
    {"state": "training", "progress": 0.5, "time_this_iter_s": 0.5, "seconds_left": 3.0},
    {"state": "training", "progress": 0.6, "time_this_iter_s": 0.5, "note": "it waits"},
    {"state": "measuring", "progress": 1.0, "time_this_iter_s": 0.5, "of a newer version": 1},
]


def test_the_life_of_trials_is_heard_without_waiting(life):
    """One that ends, one that fails, one that is stopped and goes on; two at once."""
    listener, studies, storage = life
    good, its_result = trial(studies, storage, "width=8")
    failure = {"complete": False, "r_mem": None, "cause": "[bold]out of memory\x1b[2J"}
    bad, its_failure = trial(studies, storage, "width=16", **failure)
    for record in (good, bad):
        told(listener.trial_started, record)
    snapshot = its_result.curve[0].model_dump()
    for report in [
        *REPORTS,
        {**REPORTS[0], "snapshot": snapshot},
        {**REPORTS[0], "snapshot": None},
    ]:
        told(listener.trial_progress, good, report)
        told(listener.trial_progress, bad, report)
    told(listener.trial_stopped, good)
    told(listener.trial_started, good)
    for result in (its_result, its_failure):
        studies.tell(result)
        told(listener.trial_finished, result)


def test_what_comes_late_or_twice_does_no_harm(life):
    """Of a trial that it has not heard of: an earlier driver started it."""
    listener, studies, storage = life
    record, result = trial(studies, storage, "width=8")
    told(listener.trial_progress, record, REPORTS[0])
    told(listener.trial_stopped, record)
    studies.tell(result)
    for _ in range(2):
        told(listener.trial_finished, result)
    told(listener.trial_progress, record, REPORTS[1])


def test_every_listener_of_a_run_is_in_the_list():
    """Whatever has these four methods in the product."""
    from benchmarks.house import modules

    methods = ("trial_started", "trial_progress", "trial_finished", "trial_stopped")
    having = {
        name
        for name, path in modules().items()
        if all(f"def {method}" in Path(path).read_text() for method in methods)
    }
    assert having == {
        "sweep.run.listener",
        "sweep.report.live",
        "sweep.tracking.tracker",
        "sweep.store.budget",
    }
