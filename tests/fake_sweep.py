"""A driver of a fake sweep in a process of its own, for tests to kill: `python -m tests.fake_sweep
DIR WORKERS WIDTH …`.

`--kill MOMENT`: it kills itself at one of MOMENTS.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

import optuna

from sweep.run.checks import Sweep, check_sweep
from sweep.run.driver import Run
from sweep.run.machines import Resources, start_ray
from sweep.run.searcher import EmmSearcher
from sweep.run.studies import Studies
from sweep.store.lock import Lock
from sweep.store.places import place
from sweep.tracking.content import Content
from sweep.tracking.place import Destination, local_tracking
from sweep.tracking.sync import sync
from sweep.tracking.tracker import Tracker
from tests.fakes import FakeTrainable, fake_space

MOMENTS = {  # of what, before or after which call of it in this process
    "the sweep is written, nothing runs": (sys.modules[__name__], "start_ray", "before", 1),
    "a trial is asked for and not started": (Studies, "ask", "after", 2),
    "a trial is training": (EmmSearcher, "on_trial_result", "after", 5),
    "a result is written, Optuna not told": (EmmSearcher, "_take", "before", 2),
    "Optuna is told, MLflow not": (Tracker, "trial_finished", "before", 2),
    "half of a trial is in MLflow": (Content, "_measurement", "before", 2),
    "a trial is in MLflow, its study not": (Content, "study", "before", 3),
    "Optuna's database is built again": (optuna.Study, "add_trial", "after", 2),
    "all is decided, MLflow not closed": (Tracker, "close", "before", 1),
    "all is written, the lock is held": (Lock, "__exit__", "before", 1),
}


def kill_at(owner: object, name: str, when: str, number: int) -> None:
    call, calls = getattr(owner, name), 0

    def counted(*arguments, **named):
        nonlocal calls
        calls += 1
        is_due = calls == number
        if is_due and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        value = call(*arguments, **named)
        if is_due:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    setattr(owner, name, counted)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("workers", type=int)
    parser.add_argument("widths", type=int, nargs="+")
    parser.add_argument("--kill", choices=MOMENTS)
    parser.add_argument("--address")
    parser.add_argument("--views", type=Path)
    parser.add_argument("--tracking-uri")
    options = parser.parse_args()
    if options.kill:
        kill_at(*MOMENTS[options.kill])
    sweep, here = Sweep(fake_space(tuple(options.widths))), place(options.directory)
    storage, views = here.storage, options.views or here.views or Path(tempfile.mkdtemp())
    sweep.load_data()
    check_sweep(storage, sweep)
    with Lock(storage):
        run = Run(
            sweep,
            storage,
            views,
            Resources(workers=options.workers, address=options.address),
            FakeTrainable,
        )
        local, artifacts = local_tracking(views)
        where = (
            Destination(options.tracking_uri, None)
            if options.tracking_uri
            else Destination(local, artifacts)
        )
        if not run.is_decided:
            start_ray(run.resources)
            tracker = Tracker(run.summary(), run.studies.verdict, storage, where)
            run.fit([tracker])
            print("MLflow holds all" if tracker.close(final=run.summary()) else "MLflow lacks some")
        else:
            sync(run.summary(), storage, where)


if __name__ == "__main__":
    main()
