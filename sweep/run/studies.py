"""Optuna's view of a sweep: one study per configuration, a trial's number is its seed; rebuilt from
the results when lost.

`trials/<training_key>/result.json` is the only truth about a finished trial. `reconcile` makes the
studies agree with it, whatever was lost between a result and Optuna's database, the database
included.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.space import SearchSpace
from sweep.analysis.study import options_of
from sweep.search.belief import Array, Observation
from sweep.search.pooling import search_prior
from sweep.search.rules import Options, Verdict
from sweep.search.sampler import (
    EmmSampler,
    difference_of,
    observations_of,
    study_verdict,
    write_options,
)
from sweep.search.words import belief_text
from sweep.store.files import by_seed
from sweep.store.priors import FrozenPriors
from trainables.config.trial import TrialSpec
from trainables.errors import UserError
from trainables.progress import each
from trainables.text import first_line
from trainables.trial.result import Result, TrialRecord

optuna.logging.set_verbosity(optuna.logging.WARNING)

Kind = TypeVar("Kind", bound=TrialRecord)


@dataclass(frozen=True)
class Ticket:
    """A trial that is to be trained: the study's name, the number in it (which is the seed), and
    N."""

    study: str
    number: int
    n: int


class Studies:
    """All studies of a sweep, by configuration name. `url`: an SQLAlchemy URL, or None to keep them
    in memory.

    Results and records have the names of this space: see `sweep.store.files.read_trials`.
    """

    def __init__(
        self, space: SearchSpace, url: str | None = None, priors: FrozenPriors | None = None
    ) -> None:
        self.space, self.priors = space, priors or FrozenPriors()
        self.configurations = {named.name: named for named in space.configurations}
        self._storage = _opened(url) if url else optuna.storages.InMemoryStorage()
        self._studies = {name: self._open(name) for name in self.configurations}
        self._verdicts: dict[str, Verdict] = {}

    def _open(self, name: str) -> optuna.Study:
        return optuna.create_study(
            study_name=name,
            storage=self._storage,
            sampler=self._sampler(name),
            direction="maximize",
            load_if_exists=True,
        )

    # ------------------------------------------------------------ what happens in a sweep

    def ask(self, name: str) -> Ticket:
        """A new trial of the study, at the N that its sampler proposes. Before the first, the
        study's prior is frozen."""
        study = self._studies[name]
        if not study.get_trials(deepcopy=False):
            self.priors.freeze(name, search_prior(self._shapes(self.configurations[name].recipe)))
            study.sampler = self._sampler(name)
        trial = study.ask()
        return Ticket(name, trial.number, self._suggest(trial))

    def tell(self, result: Result) -> None:
        """Takes over a finished or failed trial; telling the same result twice changes nothing."""
        study = self._studies[result.spec.name]
        frozen = study.get_trials(deepcopy=False)[result.spec.seed]
        if frozen.state.is_finished():
            return
        trial = optuna.trial.Trial(study, frozen._trial_id)
        for name, value in _attributes(result).items():
            trial.set_user_attr(name, value)
        if result.complete:
            study.tell(trial, result.r_mem)
        else:
            study.tell(trial, state=TrialState.FAIL)
        self._verdicts.pop(result.spec.name, None)

    def verdict(self, name: str) -> Verdict:
        if name not in self._verdicts:
            self._verdicts[name] = study_verdict(
                self._studies[name], precision=self.space.search.precision
            )
            self._describe(name, self._verdicts[name])
        return self._verdicts[name]

    def _describe(self, name: str, verdict: Verdict) -> None:
        """For people who open the database in Optuna's dashboard; nothing reads it."""
        study = self._studies[name]
        known = {
            "verdict": f"{verdict.state}: {verdict.reason}",
            "EMM": belief_text(verdict, self.options(name)),
        }
        written = study.user_attrs
        for attribute, text in known.items() if study.get_trials(deepcopy=False) else ():
            if written.get(attribute) != text:
                study.set_user_attr(attribute, text)

    def options(self, name: str) -> Options:
        return options_of(self.space.search, self.configurations[name], self.priors.get(name))

    def observations(self, name: str) -> list[Observation]:
        return observations_of(self._studies[name].get_trials(deepcopy=False))

    def _shapes(self, wanted: str) -> list[Array]:
        """What the finished studies of a recipe tell about its shape."""
        names = [name for name, named in self.configurations.items() if named.recipe == wanted]
        return [self.shape(name) for name in names if self.verdict(name).state == "found"]

    def shape(self, name: str) -> Array:
        return self.options(name).shape(self.observations(name))

    def _sampler(self, name: str) -> EmmSampler:
        return EmmSampler(**vars(self.options(name)))

    def spec(self, ticket: Ticket) -> TrialSpec:
        return TrialSpec(
            name=ticket.study,
            configuration=self.configurations[ticket.study].configuration,
            measurement=self.space.measurement,
            n=ticket.n,
            seed=ticket.number,
        )

    # ------------------------------------------------------------ agreement with the results

    def reconcile(self, results: Iterable[Result], started: Iterable[TrialRecord]) -> list[Ticket]:
        """Makes every study agree with what its storage holds; returns the trials that were started
        and must go on.

        They keep number, seed and N. A study whose database says otherwise than the results is
        built anew from them.
        """
        results, started = list(results), list(started)  # each study looks at all of them
        unfinished: list[Ticket] = []
        for name in each(self.configurations, "bringing Optuna's studies up to date"):
            mine = by_seed([result for result in results if result.spec.name == name])
            open_trials = by_seed([record for record in started if record.spec.name == name])
            study = self._studies[name]
            is_of_another_search = difference_of(study, self.options(name)) is not None
            if is_of_another_search or _contradicts(
                study.get_trials(deepcopy=False), mine, open_trials
            ):
                self.forget([name])
                self._studies[name] = self._open(name)
            unfinished += self._complete(name, mine, open_trials)
        self._verdicts.clear()
        return unfinished

    def forget(self, names: Iterable[str]) -> None:
        """Removes studies from Optuna's database, as far as they are there; the results know what
        they knew."""
        there = optuna.get_all_study_names(self._storage)
        for name in names:
            if name in there:
                optuna.delete_study(study_name=name, storage=self._storage)

    def _complete(
        self, name: str, results: Mapping[int, Result], started: Mapping[int, TrialRecord]
    ) -> list[Ticket]:
        study = self._studies[name]
        known = len(study.get_trials(deepcopy=False))
        if known or results or started:
            write_options(study, self.options(name))
        for number in range(known, max([*results, *started, -1]) + 1):
            study.add_trial(self._as_optuna(results.get(number) or started.get(number)))
        for result in results.values():
            self.tell(result)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [
            Ticket(name, t.number, self._suggest(optuna.trial.Trial(study, t._trial_id)))
            for t in running
        ]

    def _as_optuna(self, record: TrialRecord | None) -> FrozenTrial:
        if record is None:  # asked for, and lost before it began
            return create_trial(state=TrialState.FAIL, user_attrs={"cause": "lost before it began"})
        # a finished one in one piece: told word by word it takes a tenth of a second
        outcome: dict[str, Any] = {"state": TrialState.RUNNING}
        if isinstance(record, Result):
            state = TrialState.COMPLETE if record.complete else TrialState.FAIL
            outcome = {"state": state, "value": record.r_mem, "user_attrs": _attributes(record)}
        return create_trial(
            params={"n": record.spec.n}, distributions={"n": self._distribution}, **outcome
        )

    @cached_property
    def _distribution(self) -> BaseDistribution:
        return IntDistribution(self.space.search.n_low, self.space.search.n_high, log=True)

    def _suggest(self, trial: optuna.trial.Trial) -> int:
        """N of a trial: what is stored, or else what the sampler proposes now."""
        return trial.suggest_int("n", self.space.search.n_low, self.space.search.n_high, log=True)


def _opened(url: str) -> optuna.storages.BaseStorage:
    try:
        return optuna.storages.RDBStorage(url)
    except RuntimeError as error:  # another Optuna's tables
        reason = first_line(error).rstrip(".")
        raise UserError(
            f"optuna.db: {reason}; or remove it: it is made again from the results"
        ) from error


def _contradicts(
    trials: Sequence[FrozenTrial], results: Mapping[int, Result], started: Mapping[int, TrialRecord]
) -> bool:
    """Whether Optuna holds a finished trial of which the storage knows nothing, or a trial of which
    it knows something else.

    It does where a driver on another machine, with a database of its own, has gone on since.
    """
    for trial in trials:
        result = results.get(trial.number)
        record = result or started.get(trial.number)
        if record is not None and trial.params.get("n") != record.spec.n:
            return True
        if trial.state == TrialState.COMPLETE and (result is None or trial.value != result.r_mem):
            return True
        if trial.state == TrialState.FAIL and trial.params and (result is None or result.complete):
            return True
    return False


def _attributes(result: Result) -> dict[str, Any]:
    if not result.complete:
        return {"cause": result.cause, "training_key": result.training_key}
    names = ("n_samples", "n_memorized", "right_censored", "images_trained", "training_key")
    return {name: getattr(result, name) for name in names}
