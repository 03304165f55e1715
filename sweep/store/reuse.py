"""Finished trials of another sweep, taken over by one that asks another question of the same
configuration, which is then not trained again."""

from collections.abc import Collection
from dataclasses import dataclass

from search_spaces.space import SearchSpace
from sweep.search.words import counted
from sweep.store.places import place
from trainables.config.identity import identity
from trainables.errors import UserError
from trainables.storage import Storage
from trainables.trial.result import RESULT, Result, Trials, read_all, trial_directory


@dataclass(frozen=True)
class Former:
    """Finished trials, and where they lie. `damaged`: a line for every file that says nothing."""

    storage: Storage
    results: list[Result]
    damaged: list[str]

    def part(self, taken: Collection[Result]) -> str:
        """How many of them were taken, in words."""
        return f"{len(taken)} of the {counted(len(self.results), 'trial')} in {self.storage.shown}"

    def missing(self, there: Trials, keys: Collection[str], space: SearchSpace) -> list[Result]:
        """Those that a sweep of `space` could have trained and that `there` has not: of one of the
        configurations (by key), measured alike, at an N in the range, and with a seed that its study
        has not used and may come to. Of several with one seed (of `emm trial`) the first."""
        search, asked = space.search, identity(space.measurement)
        # one of these that has begun there may be what an earlier copy left
        own = {result.training_key for result in self.results}
        begun = [trial for trial in there.started if trial.training_key not in own]
        used = {(trial.configuration_key, trial.spec.seed) for trial in (*there.results, *begun)}
        found = []
        for result in self.results:
            n, seed = result.spec.n, result.spec.seed
            is_alike = (
                result.configuration_key in keys and identity(result.spec.measurement) == asked
            )
            is_free = (result.configuration_key, seed) not in used and seed < search.cap
            if is_alike and is_free and search.n_low <= n <= search.n_high:
                used.add((result.configuration_key, seed))
                found.append(result)
        return found


def former_trials(where: str, here: Storage) -> Former:
    """What `emm run` or `emm trial --out` has finished there, by directory or URL. Raises UserError
    if that is nothing, or `here`."""
    storage = place(where).storage
    if storage.is_same(here):
        raise UserError(f"--reuse {where}: this is the sweep itself; leave it out")
    results, _, damaged = read_all(storage)
    finished = [result for result in results if result.complete]
    if not finished:
        raise UserError(f"--reuse {where}: no finished trial is there; leave it out")
    return Former(storage, finished, damaged)


def take_over(
    former: Former, here: Storage, keys: Collection[str], space: SearchSpace
) -> list[Result]:
    """Copies what is missing here, and returns it.

    The result of each comes last: what is cut off is no finished trial. Raises OSError where one
    can't be read or written.
    """
    taken = former.missing(read_all(here), keys, space)
    for result in taken:
        source = trial_directory(former.storage, result.training_key)
        target = trial_directory(here, result.training_key)
        for name in sorted(source.list(), key=lambda name: name == RESULT):
            content = source.read(name)
            if content is not None:
                target.write(name, content)
    return taken
