"""Who is told what happens to trials."""

from typing import Any, Protocol

from trainables.trial.result import Result, TrialRecord


class Listener(Protocol):
    """Who is told what happens to trials: the terminal, the tracking. None of these may block or
    raise."""

    def trial_started(self, record: TrialRecord) -> None: ...

    def trial_progress(self, record: TrialRecord, report: dict[str, Any]) -> None: ...

    def trial_finished(self, result: Result) -> None: ...

    def trial_stopped(self, record: TrialRecord) -> None: ...
