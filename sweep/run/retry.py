"""`emm run --retry-failed`: a failed trial becomes one that was started and goes on, at the same N
and seed."""

from collections.abc import Collection, Mapping

from search_spaces.space import SearchSpace
from sweep.analysis.summary import summary_of
from sweep.store.files import read_keys, read_trials
from sweep.store.priors import FrozenPriors
from trainables.storage import Storage
from trainables.trial.result import FAILED, RESULT, STARTED, Result, TrialRecord, trial_directory


def reopen_failed(
    storage: Storage,
    space: SearchSpace,
    keys: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
) -> list[Result]:
    """Opens the failed trials of studies without an answer again, and returns them. Needs the lock
    of the sweep.

    `keys`: name → configuration key of `space`, where the sweep does not know all of its names yet.
    `only`: the names of the studies that are looked at, all by default.

    The next driver adopts them: from the newest checkpoint if there is one. What a trial last
    failed of is kept beside it.
    """
    known = read_keys(storage) | dict(keys or {})
    results, started, _ = read_trials(storage, space, known)
    summary = summary_of(space, results, started, FrozenPriors(storage, known))
    unanswered = [
        study
        for study in summary.studies
        if study.verdict.state in ("searching", "unresolved")
        and (only is None or study.name in only)
    ]
    failed = [result for study in unanswered for result in study.results if not result.complete]
    for result in failed:
        reopen(storage, result)
    return failed


def reopen(storage: Storage, failed: Result) -> None:
    """Makes a failed trial one that was started; what it failed of is kept beside it."""
    directory = trial_directory(storage, failed.training_key)
    directory.write(FAILED, failed.model_dump_json(indent=1).encode())
    directory.write(
        STARTED, TrialRecord.model_validate(dict(failed)).model_dump_json(indent=1).encode()
    )
    directory.delete(RESULT)
