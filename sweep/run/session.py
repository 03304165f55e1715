"""Ray for the time of a run, which ends in time when a signal comes."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sweep.run.driver import SIGTERM, Run
from sweep.run.machines import remove_session, start_ray, stop_ray

log = logging.getLogger(__name__)

GONE_SECONDS = 13.0  # from a SIGTERM to the end of the process, at most


@contextmanager
def session(
    run: Run, tell: Callable[[str], None], warn: Callable[[str], None] = log.warning
) -> Iterator[None]:
    """Starts Ray for the block, or joins the cluster, and ends that.

    A SIGTERM ends the run: its trials leave checkpoints, the block ends, and then the process, with
    exit code 143; GONE_SECONDS later at most, whatever Ray or MLflow are waiting for. `tell` is
    given the reason, `warn` what `start_ray` tells.
    """

    def end(number: int, frame: FrameType | None) -> None:
        run.ended = SIGTERM
        timer = threading.Timer(GONE_SECONDS, leave)
        timer.daemon = True
        timer.start()

    def leave() -> None:
        tell(SIGTERM)
        remove_session()
        os._exit(128 + signal.SIGTERM)

    # while Ray starts, so that its files go
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    start_ray(run.resources, warn)
    signal.signal(signal.SIGTERM, end)  # after Ray has set its own
    try:
        yield
    finally:
        stop_ray()
    if run.is_terminated:
        tell(SIGTERM)
        sys.exit(128 + signal.SIGTERM)
