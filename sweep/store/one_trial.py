"""A finished trial by what people call it, its configuration, N and seed; and its model."""

from typing import TYPE_CHECKING

from sweep.store.files import read_made_sweep, read_trials
from sweep.store.lone_trials import holds_lone_trials, read_lone_trials
from sweep.store.places import place
from trainables.errors import UserError
from trainables.storage import Storage
from trainables.text import some
from trainables.trial.result import Result

if TYPE_CHECKING:
    from trainables.trial.model import Model

MOST_SHOWN = 12  # trials, in a message


def load_model(
    directory: str,
    config: str | None = None,
    n: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    trust_code: bool = False,
) -> "Model":
    """Of the trial that `find_trial` finds in a DIR or URL. Raises UserError as that does, and as
    `open_model` does."""
    from trainables.data.sources import load
    from trainables.trial.model import open_model

    storage = place(directory).storage
    result = find_trial(storage, config, n, seed)
    return open_model(result, storage, lambda: load(result.configuration.data), device, trust_code)


def find_trial(
    storage: Storage, config: str | None = None, n: int | None = None, seed: int | None = None
) -> Result:
    """The finished trial of a sweep, or of `emm trial --out`, of that configuration, N and seed; what
    is None may be anything, if one trial alone is left.

    Raises UserError, with those there are, if there is none or more than one.
    """
    results = _results(storage)
    if config is not None:
        names = list(dict.fromkeys(result.spec.name for result in results))
        if config not in names:
            raise UserError(
                f"no configuration {config!r} has a trial here; there are {some(names, MOST_SHOWN)}"
            )
        results = [result for result in results if result.spec.name == config]
    asked = {name: value for name, value in (("n", n), ("seed", seed)) if value is not None}
    fitting = [
        result
        for result in results
        if all(getattr(result.spec, name) == value for name, value in asked.items())
    ]
    found = [result for result in fitting if result.complete]
    if len(found) == 1:
        return found[0]
    if fitting and not found:
        failed = fitting[0]
        raise UserError(f"{_title(failed)}: it failed ({failed.cause}), and has no model")
    if len(found) > 1 and None not in (config, n, seed):
        keys = some([result.training_key for result in found], MOST_SHOWN)
        raise UserError(
            f"{len(found)} trials of {_title(found[0])} differ in other settings: {keys} in "
            "trials/; a trial in a directory of its own can be named"
        )
    titles = [_title(result) for result in found or results if result.complete]
    there = some(titles, MOST_SHOWN)
    if found:
        raise UserError(f"more than one trial is meant; say config, n and seed of {there}")
    given = " ".join(f"{name}={value}" for name, value in asked.items())
    raise UserError(f"no trial with {given or 'a result'} is finished; there are {there or 'none'}")


def _title(result: Result) -> str:
    return f"{result.spec.name} n={result.spec.n} seed={result.spec.seed}"


def _results(storage: Storage) -> list[Result]:
    """In the order of their names, N and seeds."""
    if holds_lone_trials(storage):
        results = read_lone_trials(storage).results
    else:
        sweep = read_made_sweep(storage)
        results = read_trials(storage, sweep.space, sweep.configurations).results
    return sorted(results, key=lambda one: (one.spec.name, one.spec.n, one.spec.seed))
