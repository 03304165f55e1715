"""A driver of a fake sweep in a process of its own, for tests to kill: `python -m tests.fake_sweep DIR WORKERS WIDTH …`."""

import sys
import tempfile
from pathlib import Path

from sweep.driver import Resources, Run, Sweep, check_sweep, start_ray
from sweep.lock import Lock
from sweep.places import place
from sweep.tracking import Destination, Tracker
from sweep.ui import local_tracking
from tests.fakes import FakeTrainable, fake_space


def main(directory: str, workers: int, widths: tuple[int, ...]) -> None:
    sweep, here = Sweep(fake_space(widths)), place(directory)
    storage, views = here.storage, here.views or Path(tempfile.mkdtemp())
    sweep.load_data()
    check_sweep(storage, sweep)
    with Lock(storage):
        run = Run(sweep, storage, views, Resources(workers=workers), FakeTrainable)
        if not run.is_decided:
            start_ray(run.resources)
            tracker = Tracker(run.summary(), run.studies.verdict, storage, Destination(*local_tracking(views)))
            run.fit([tracker])
            tracker.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), tuple(int(width) for width in sys.argv[3:]))
