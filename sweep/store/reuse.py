"""Finished trials of another sweep, taken over by one that asks another question of the same
configuration, which is then not trained again."""

from collections.abc import Collection
from dataclasses import dataclass

from sweep.store.places import place
from trainables.config.identity import identity
from trainables.config.measurement import Measurement
from trainables.errors import UserError
from trainables.storage import Storage
from trainables.trial.result import RESULT, Result, read_all, trial_directory


@dataclass(frozen=True)
class Former:
    """Finished trials, and where they lie. `damaged`: a line for every file that says nothing."""

    storage: Storage
    results: list[Result]
    damaged: list[str]

    def of(self, keys: Collection[str], measurement: Measurement) -> list[Result]:
        """Those of configurations with one of these keys that were measured like this."""
        asked = identity(measurement)
        return [
            result
            for result in self.results
            if result.configuration_key in keys and identity(result.spec.measurement) == asked
        ]


def former_trials(where: str, here: Storage) -> Former:
    """What `emm run` or `emm trial --out` has finished there, by directory or URL. Raises UserError
    if that is nothing, or `here`."""
    storage = place(where).storage
    if storage.identity == here.identity:
        raise UserError(f"--reuse {where}: this is the sweep itself; leave it out")
    results, _, damaged = read_all(storage)
    finished = [result for result in results if result.complete]
    if not finished:
        raise UserError(f"--reuse {where}: no finished trial is there; leave it out")
    return Former(storage, finished, damaged)


def take_over(
    former: Former, here: Storage, keys: Collection[str], measurement: Measurement
) -> int:
    """Copies the trials of `former` that fit and that are not finished `here`; returns how many.

    The result of each comes last: what is cut off is no finished trial. Raises OSError where one
    can't be read or written.
    """
    count = 0
    for result in former.of(keys, measurement):
        source = trial_directory(former.storage, result.training_key)
        target = trial_directory(here, result.training_key)
        if target.exists(RESULT):
            continue
        for name in sorted(source.list(), key=lambda name: name == RESULT):
            content = source.read(name)
            if content is not None:
                target.write(name, content)
        count += 1
    return count
