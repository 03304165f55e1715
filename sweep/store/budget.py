"""What a sweep may cost: device hours over all its runs, and the time at which this run ends."""

import logging
import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from pydantic import Field

from trainables.storage import Storage
from trainables.trial.result import Record, Result, TrialRecord, parsed

log = logging.getLogger(__name__)

SPENT = "spent"  # directory of one file a run, so that each has one writer

WRITE_SECONDS = 30.0


@dataclass(frozen=True)
class Limits:
    """`hours` of devices, those of earlier runs of the sweep included; `deadline` in seconds since
    the epoch."""

    hours: float | None = None
    deadline: float | None = None


class Spent(Record):
    """What is in a file of `spent/`, one of each run of the driver."""

    device_hours: float = Field(ge=0)


def hours_spent(storage: Storage) -> float:
    """Device hours of all runs so far, as far as they were written: the last half minute of a
    killed one is missing."""
    spent = storage / SPENT
    found = {f"{spent.shown}/{name}": spent.read_json(name) for name in storage.list(SPENT)}
    return sum(
        parsed(Spent, content, file).device_hours
        for file, content in found.items()
        if content is not None
    )


class Budget:
    """Counts the seconds of every step of every trial, those that were lost and trained again too.
    A listener of the searcher.

    `devices` of a trial: its GPUs, or 1 where it trains on CPUs.
    """

    def __init__(self, storage: Storage, limits: Limits, devices: float) -> None:
        self.storage, self.limits, self.devices = storage, limits, devices
        self.before, self.hours, self.written_at = hours_spent(storage), 0.0, time.monotonic()
        self.file = f"{SPENT}/{time.strftime('%Y%m%d-%H%M%S')}-{uuid4().hex[:8]}.json"

    def ended(self) -> str | None:
        """Why nothing more may be trained, or None."""
        spent, limits = self.before + self.hours, self.limits
        if limits.hours is not None and spent >= limits.hours:
            return (
                f"the budget of {limits.hours:g} device hours is spent ({spent:.3g}); more of "
                "--budget-hours goes on"
            )
        if limits.deadline is not None and time.time() >= limits.deadline:
            return "the deadline has come; the same command with a later one goes on"
        return None

    def trial_started(self, record: TrialRecord) -> None: ...

    def trial_progress(self, record: TrialRecord, report: dict[str, Any]) -> None:
        self.spend(report["time_this_iter_s"])

    def spend(self, seconds: float) -> None:
        """Adds `seconds` of one trial's devices."""
        self.hours += seconds * self.devices / 3600
        if time.monotonic() - self.written_at > WRITE_SECONDS:
            self.write()

    def trial_finished(self, result: Result) -> None: ...

    def trial_stopped(self, record: TrialRecord) -> None: ...

    def write(self) -> None:
        self.written_at = time.monotonic()
        try:
            self.storage.write_json(self.file, {"device_hours": self.hours})
        except OSError as error:
            log.warning("what was spent could not be written, and is written later: %s", error)
