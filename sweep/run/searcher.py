"""The Ray Tune searcher over all studies: what to train next, and what came of it."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher
from ray.tune.utils.util import unflatten_dict  # type: ignore[attr-defined]

from sweep.run.listener import Listener
from sweep.run.studies import Studies, Ticket
from sweep.store.files import renamed
from trainables.config.trial import TrialSpec
from trainables.storage import Storage
from trainables.trial.checkpoint import names as checkpoints
from trainables.trial.result import RESULT, Result, TrialRecord, read_result, trial_directory

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5  # of a trial whose process ends, in a row and without a newer checkpoint


class EmmSearcher(Searcher):
    """Proposes trials for whichever undecided study has the fewest running, as long as there are
    free slots.

    It keeps nothing that matters: `studies` knows what was asked, the storage what came of it.
    `adopted` are trials that an earlier driver left unfinished; they go first. `wanted`: names of
    the studies that are trained, all of them by default; the others stay as they are. Tune may ask ten
    times a second, so `suggest` is cheap.
    """

    def __init__(
        self,
        studies: Studies,
        adopted: Sequence[Ticket],
        storage: Storage,
        record_of: Callable[[TrialSpec], TrialRecord],
        slots: Callable[[], int],
        listeners: Sequence[Listener],
        most_per_study: int = 8,
        ended: Callable[[], str | None] = lambda: None,
        wanted: Sequence[str] | None = None,
    ) -> None:
        super().__init__(metric="progress", mode="max")
        self.studies, self.adopted, self.storage = studies, list(adopted), storage
        self.record_of, self.slots, self.listeners = record_of, slots, listeners
        self.most_per_study = most_per_study
        self.wanted = list(studies.configurations) if wanted is None else wanted
        # why nothing more is to be trained; what runs then ends with a checkpoint
        self.ended = ended
        self.failure: Exception | None = None  # of ours; nothing is asked after it
        self.live: dict[str, TrialRecord] = {}  # by Tune's trial id
        # lost since which checkpoint, how often; by training key
        self.attempts: dict[str, tuple[str, int]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next trial; None while nothing is useful, FINISHED when every study has a verdict and
        nothing runs.

        While trials run, a verdict is not final: their results may open a study again.
        """
        if self.failure is not None or self.ended():
            return Searcher.FINISHED
        undecided = [name for name in self.wanted if self._is_open(name)]
        if not undecided and not self.live:
            return Searcher.FINISHED
        if not undecided or len(self.live) >= self.slots():
            return None
        ticket = self._next(undecided)
        if ticket is None:
            return None
        record = self.record_of(self.studies.spec(ticket))
        self.live[trial_id] = record
        for listener in self.listeners:
            listener.trial_started(record)
        return {"spec": record.spec.model_dump_json()}

    def _next(self, undecided: list[str]) -> Ticket | None:
        """Trials at once in one study cost images that fewer would save; so studies come first,
        whatever the objective."""
        for ticket in self.adopted:
            if ticket.study in undecided:
                self.adopted.remove(ticket)
                return ticket
        running = Counter(record.spec.name for record in self.live.values())
        name = min(undecided, key=lambda name: running[name])
        return None if running[name] >= self.most_per_study else self.studies.ask(name)

    def _is_open(self, name: str) -> bool:
        return self.studies.verdict(name).state == "searching"

    def is_unneeded(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tune's stop condition: a trial whose study was decided meanwhile. It can go on later from
        its checkpoint."""
        return trial_id in self.live and (
            bool(self.ended()) or not self._is_open(self.live[trial_id].spec.name)
        )

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        record = self.live.get(trial_id)
        if record is not None:
            # Tune gives searchers `snapshot/r_mem` for the r_mem in a trial's `snapshot`
            report = unflatten_dict(result)
            for listener in self.listeners:
                listener.trial_progress(record, report)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Takes the result from the storage, which is the only truth about it."""
        if result:  # Tune tells the last report of a trial here only
            self.on_trial_result(trial_id, result)
        record = self.live.pop(trial_id, None)
        if record is None:
            return
        try:
            self._take(record, error)
        except Exception as failure:
            # Tune would swallow it and train on; the driver raises it when Tune has ended
            log.exception("the result of %s could not be taken", record.training_key)
            self.failure = self.failure or failure

    def _take(self, record: TrialRecord, error: bool) -> None:
        try:
            outcome = self._outcome(record, error)
        except OSError as unread:
            if error:  # what ended the trial may be that it waited for the storage in vain
                raise
            log.warning(
                "%s is read again, since the storage failed: %s", record.training_key, unread
            )
            # it starts again, waits until the storage is back, and finds its result there
            outcome = None
        if outcome is not None:
            self.studies.tell(outcome)
        else:
            self.adopted.append(Ticket(record.spec.name, record.spec.seed, record.spec.n))
        for listener in self.listeners:
            if outcome is None:
                # it goes on, at once if it was lost, else should its study open again
                listener.trial_stopped(record)
            else:
                listener.trial_finished(outcome)

    def _outcome(self, record: TrialRecord, error: bool) -> Result | None:
        """The trial's result; None if it goes on. Raises OSError while the storage fails."""
        directory = trial_directory(self.storage, record.training_key)
        outcome = read_result(directory)
        if outcome is not None:  # an earlier driver may have called the configuration otherwise
            outcome = renamed(outcome, record.spec.name)
        if outcome is None and error and self._count_attempt(record, directory) == MAX_ATTEMPTS:
            cause = (
                f"its process ended {MAX_ATTEMPTS} times in a row without a newer checkpoint; is "
                "there memory enough?"
            )
            outcome = Result(**dict(record), complete=False, cause=cause)
            directory.write(RESULT, outcome.model_dump_json(indent=1).encode())
        return outcome

    def _count_attempt(self, record: TrialRecord, directory: Storage) -> int:
        """How often the trial's process was lost since its newest checkpoint. A lost node is no
        cause to fail a trial."""
        newest = max(checkpoints(directory), default="")
        former, count = self.attempts.get(record.training_key, ("", 0))
        self.attempts[record.training_key] = newest, count + 1 if newest == former else 1
        return self.attempts[record.training_key][1]

    def save(self, checkpoint_path: str) -> None:
        """Tune keeps nothing for us; see `sweep.run.driver`."""
        with open(checkpoint_path, "w") as file:
            file.write("{}")

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a sweep is resumed by the same command, not by Tuner.restore")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles the searcher to a file that nobody reads
