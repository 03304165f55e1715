"""The files of one trial: what it is, its checkpoints, its weights and measurement, its result."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.errors import DamagedFile
from trainables.storage import Storage
from trainables.trial import checkpoint, weights as kept_weights
from trainables.trial.result import (
    MEASUREMENT,
    RESULT,
    STARTED,
    Result,
    TrialRecord,
    read_result,
    trial_directory,
)

log = logging.getLogger(__name__)


class TrialFiles:
    """The directory `trials/<training_key>/` in the storage of a sweep. Raises OSError where the
    storage fails.

    earlier: the result that is there, of this or of another measurement of the same training.
    """

    def __init__(self, sweep: Storage, record: TrialRecord) -> None:
        self.record = record
        self.storage = trial_directory(sweep, record.training_key)
        self.earlier = self._earlier()

    def _earlier(self) -> Result | None:
        try:
            return read_result(self.storage)
        except DamagedFile as error:
            log.warning("trained again: %s", error)
            return None

    @property
    def result(self) -> Result | None:
        """The earlier result if it is of this very measurement."""
        earlier = self.earlier
        if earlier is None or earlier.measurement_key != self.record.measurement_key:
            return None
        return earlier

    def start(self) -> None:
        """From here on others can adopt the trial."""
        self.storage.delete_parts()
        self.storage.write(STARTED, self.record.model_dump_json(indent=1).encode())

    def weights(self) -> Any | None:
        """What the trainer of an earlier, finished attempt sampled with; None if it is lost."""
        return kept_weights.read(self.storage)

    def newest_state(self) -> dict[str, Any] | None:
        """Of an earlier attempt that did not finish; None if there is none."""
        return checkpoint.load_newest(self.storage)

    def finish(self, weights: Any, arrays: Mapping[str, NDArray[Any]], result: Result) -> None:
        """The weights first, the result last: what has a result has everything."""
        kept_weights.write(self.storage, weights)
        with self.storage.writing(MEASUREMENT) as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        self._write(result)
        checkpoint.delete_all(self.storage)

    def fail(self, result: Result) -> None:
        """A good result is kept, whatever fails later; the newest checkpoint stays, for `emm run
        --retry-failed`."""
        if self.earlier is None or not self.earlier.complete:
            self._write(result)
        checkpoint.delete_all(self.storage, but=1)

    def _write(self, result: Result) -> None:
        self.storage.write(RESULT, result.model_dump_json(indent=1).encode())
