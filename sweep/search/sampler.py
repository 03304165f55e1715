"""The search as an Optuna sampler, and the verdict on a study of Optuna.

Only COMPLETE trials are observations; a FAILed one says nothing about the EMM.

    study = optuna.create_study(direction="maximize", sampler=EmmSampler(low=100, high=40_000))
    while (verdict := study_verdict(study)).state == "searching":
        trial = study.ask()
        n = trial.suggest_int("n", 100, 40_000, log=True)
        r_mem, n_samples = train_and_measure(n, seed=trial.number)
        trial.set_user_attr("n_samples", n_samples)   # 2,000 are assumed without it
        study.tell(trial, r_mem)                      # user attr right_censored=True: R_mem is at least this
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from sweep.search.belief import Observation, Prior, base_prior
from sweep.search.rules import NOT_JUDGED, Failed, Options, Verdict, judge, propose

OPTIONS_KEY = "emm.options"


def study_verdict(
    study: optuna.Study, precision: float | None = None, prior: Prior | None = None
) -> Verdict:
    """The verdict on a study, whatever its sampler; `precision` and `prior` other than the study's
    own, if wanted.

    Trials that fail end the study as unresolved when the last three all failed, or at least three
    did and they outnumber the finished ones. Raises ValueError where trials have finished that no
    `EmmSampler` has asked for.
    """
    options = _stored(study)
    trials = study.get_trials(deepcopy=False)
    if options is None:
        if any(t.state == TrialState.COMPLETE for t in trials):
            raise ValueError(
                f"study {study.study_name!r} knows no range of N: its first trial needs an "
                "EmmSampler"
            )
        return NOT_JUDGED
    options = replace(
        options, precision=precision or options.precision, prior=prior or options.prior
    )
    return judge(outcomes(trials), options)


def stop_when_decided(study: optuna.Study, trial: FrozenTrial) -> None:
    """Callback for `study.optimize`."""
    if study_verdict(study).state != "searching":
        study.stop()


class EmmSampler(optuna.samplers.BaseSampler):
    """Suggests N, and only N; arguments as in `Options`.

    The first trial writes the options into the study. Later samplers must agree in all but those
    that may change (`precision`, `max_trials`, `guard`, `replicates`, `targets`), whose newest value
    counts from the next trial on, and `prior`, which stays as it was: else ValueError.
    """

    def __init__(
        self,
        low: int,
        high: int,
        target: float = Options.target,
        precision: float = Options.precision,
        max_trials: int = Options.max_trials,
        cost: Literal["images", "constant"] = Options.cost,
        start: int | None = None,
        prior: Prior | None = None,
        guard: bool = Options.guard,
        replicates: int = Options.replicates,
        targets: Sequence[float] = Options.targets,
    ) -> None:
        prior = prior or base_prior()
        self.options = Options(
            *(low, high, target, precision, max_trials, cost, start, prior, guard, replicates),
            targets=tuple(targets),
        )

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        try:
            write_options(study, self.options)
        except ValueError:
            # it exists by now, and would count as running for ever
            study.tell(trial.number, state=TrialState.FAIL)
            raise

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        # n comes from sample_independent, which sees the range that the objective asks for
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> int:
        options = _stored(study) or self.options
        if param_name != "n" or not isinstance(param_distribution, IntDistribution):
            raise ValueError(f'EmmSampler suggests the integer "n" alone, not {param_name!r}')
        asked = (param_distribution.low, param_distribution.high)
        if asked != (options.low, options.high):
            raise ValueError(
                f"suggest_int asks for n in {asked}, the study searches "
                f"{(options.low, options.high)}"
            )
        trials = study.get_trials(deepcopy=False)
        finished = observations_of(trials)
        running = [t for t in trials if t.state == TrialState.RUNNING and t.number != trial.number]
        pending = [t.params["n"] for t in running if "n" in t.params]
        # Another process has asked but not yet stored its N: it will get what we would get in its
        # place.
        for _ in (t for t in running if "n" not in t.params and t.number < trial.number):
            pending.append(propose(finished, pending, options))
        return propose(finished, pending, options)


def write_options(study: optuna.Study, options: Options) -> None:
    """Writes into a study how it searches: the newest of what may change, and the prior that it
    began with.

    Raises ValueError, and writes nothing, if the study searches another range or target, or at
    another cost or start.
    """
    difference = difference_of(study, options)
    if difference is not None:
        raise ValueError(f"study {study.study_name!r} searches with {difference}")
    stored = _stored(study)
    if stored is not None:
        options = replace(options, prior=stored.prior)
    if options != stored:
        study.set_user_attr(OPTIONS_KEY, asdict(options))


def difference_of(study: optuna.Study, options: Options) -> str | None:
    """How a study searches otherwise than `options` in what may not change ("low=4, not low=8");
    None if it does not."""
    stored = _stored(study)
    return None if stored is None else stored.difference(options)


def _stored(study: optuna.Study) -> Options | None:
    values = study.user_attrs.get(OPTIONS_KEY)
    return None if values is None else Options.from_json(values)


def observations_of(trials: Sequence[FrozenTrial]) -> list[Observation]:
    """Of the COMPLETE ones."""
    return [trial for trial in outcomes(trials) if isinstance(trial, Observation)]


def outcomes(trials: Sequence[FrozenTrial]) -> list[Observation | Failed]:
    """The trials that have ended and had an N, in their order."""
    found: list[Observation | Failed] = []
    for trial in trials:
        if "n" not in trial.params:
            continue
        if trial.state == TrialState.FAIL:
            found.append(Failed(trial.params["n"], trial.user_attrs.get("cause", "unknown")))
        if trial.state == TrialState.COMPLETE:
            found.append(_observation(trial))
    return found


def _observation(trial: FrozenTrial) -> Observation:
    assert trial.value is not None
    n_samples = trial.user_attrs.get("n_samples", 2000)
    right_censored = trial.user_attrs.get("right_censored", False)
    try:
        return Observation(trial.params["n"], trial.value, n_samples, right_censored)
    except ValueError as error:
        raise ValueError(f"trial {trial.number}: {error}") from None
