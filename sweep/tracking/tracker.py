"""Tells MLflow what happens in a sweep, from a thread of its own."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.search.rules import Verdict
from sweep.tracking.content import Content
from sweep.tracking.page import Page
from sweep.tracking.place import Destination, one_line, prepare_environment
from sweep.tracking.sync import SweepView, sync
from trainables.progress import work
from trainables.storage import Storage
from trainables.trial.result import Result, Snapshot, TrialRecord

log = logging.getLogger(__name__)

BEGIN_SECONDS = 20.0  # until a first trial trains: before, the cores are its processes' to start

MAX_FAILURES, PAUSE_SECONDS = 3, 60.0  # so many failures in a row, and nothing is tried for so long


def make_up(summary: SweepSummary, storage: Storage, destination: Destination) -> bool:
    """Writes what an earlier run of a sweep that is decided by now could not; returns whether
    MLflow holds everything."""
    try:
        sync(summary, storage, destination)
    except Exception as error:  # noqa: BLE001  whatever it is, a sweep has its answer without MLflow
        log.warning("MLflow: %s", one_line(error, destination.uri))
        return False
    return True


class Tracker:
    """Tells MLflow what happens in a sweep: a listener of the searcher. Nothing here blocks or
    raises.

    `verdict` gives the live verdict of a study by its name. An error is logged, and told to `tell`,
    once per kind; after some in a row nothing is tried for a while. What was missed is made up for
    by `close`, by the next run, or by `emm sync`.
    """

    def __init__(
        self,
        summary: SweepSummary,
        verdict: Callable[[str], Verdict],
        storage: Storage,
        destination: Destination,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.missed = 0
        self._uri, self._tell = destination.uri, tell
        self._final: SweepSummary | None = None
        self._summary, self._verdict = summary, verdict
        self._studies = {study.name: study for study in summary.studies}
        # images trained at the last snapshot that was told, by training key
        self._snapshots: dict[str, int] = {}
        self._open_view = partial(SweepView, summary.space, storage, destination)
        self._view: SweepView | None = None
        self._failures, self._paused_until, self._logged = 0, 0.0, set[type]()
        self._tasks: queue.SimpleQueue[Callable[[SweepView], None] | None] = queue.SimpleQueue()
        self._tasks.put(lambda view: view.sync(summary, live=True))
        self._tasks.put(self._watch)
        self._monitor: Any = None
        self._begun, self._is_ended = threading.Event(), False
        prepare_environment()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def trial_started(self, record: TrialRecord) -> None:
        self._update(record, running=[record])
        self._put(lambda content: [content.trial_status(record, "RUNNING")])

    def trial_progress(self, record: TrialRecord, report: Mapping[str, Any]) -> None:
        """Takes the newest snapshot from a trial's report, if there is a new one."""
        self._begun.set()
        content = report.get("snapshot")
        if not content or self._snapshots.get(record.training_key) == content["images_trained"]:
            return
        snapshot = Snapshot.model_validate(content)
        self._snapshots[record.training_key] = snapshot.images_trained
        self._put(lambda content: [content.trial_curve(record, snapshot)])

    def trial_finished(self, result: Result) -> None:
        self._begun.set()
        study = self._update(result, results=[result])
        self._put(lambda content: [content.trial(result)])
        self._put(lambda content: content.study(study, live=True))

    def trial_stopped(self, record: TrialRecord) -> None:
        self._put(lambda content: [content.trial_status(record, "KILLED")])

    def end(self, final: SweepSummary | None = None) -> None:
        """Nothing more is told; what is left and what was missed is written meanwhile, see `close`.
        `final`: what the sweep came to."""
        self._final, self._is_ended = final, True
        self._begun.set()
        self._tasks.put(None)

    def close(self, timeout: float = 60.0, final: SweepSummary | None = None) -> bool:
        """Ends it, if it was not, and waits for at most `timeout` seconds until all is written.

        Returns whether MLflow holds everything now.
        """
        if not self._is_ended:
            self.end(final)
        with work("MLflow takes the last of it"):
            self._thread.join(timeout)
        lacks = self._thread.is_alive() or bool(self.missed)
        if lacks:
            log.warning("MLflow lacks some of this sweep; `emm sync` writes it")
        return not lacks

    def _put(self, make_pages: Callable[[Content], list[Page]]) -> None:
        """Pages are made by the thread that writes them."""

        def task(view: SweepView) -> None:
            for page in make_pages(view.content):
                view.writer.put(page)

        self._tasks.put(task)

    def _update(
        self,
        record: TrialRecord,
        running: Sequence[TrialRecord] = (),
        results: Sequence[Result] = (),
    ) -> StudySummary:
        """The study of `record` as it is now, `record` being in what is given and nowhere else."""
        name, key = record.spec.name, record.training_key
        former = self._studies[name]
        self._studies[name] = replace(
            former,
            verdict=self._verdict(name),
            running=[*(other for other in former.running if other.training_key != key), *running],
            results=[*(other for other in former.results if other.training_key != key), *results],
        )
        return self._studies[name]

    def _work(self) -> None:
        self._begun.wait(BEGIN_SECONDS)
        while (task := self._tasks.get()) is not None:
            if time.monotonic() < self._paused_until:
                self.missed += 1
            else:
                self._attempt(task)
        if self._monitor:
            self._monitor.finish()
        final = self._final or replace(self._summary, studies=list(self._studies.values()))
        if self._attempt(lambda view: view.sync(final, live=False)):
            self.missed = 0

    def _watch(self, view: SweepView) -> None:
        self._monitor = view.writer.monitor(view.content.sweep_head())

    def _attempt(self, task: Callable[[SweepView], None]) -> bool:
        try:
            self._view = self._view or self._open_view()
            task(self._view)
        except Exception as error:  # noqa: BLE001  whatever it is, a sweep goes on without MLflow
            self._view, self._failures, self.missed = None, self._failures + 1, self.missed + 1
            if self._failures >= MAX_FAILURES:
                self._paused_until = time.monotonic() + PAUSE_SECONDS
            if type(error) not in self._logged:
                self._logged.add(type(error))
                reason = one_line(error, self._uri)
                log.warning("MLflow: %s", reason)
                if self._tell:
                    self._tell(f"note: MLflow: {reason}; the sweep goes on without it")
            return False
        self._failures = 0
        return True
