"""What a sweep knows, from its storage alone: the one source of status, report and MLflow's study runs."""

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from pydantic import Field, RootModel

from search_spaces.space import SearchSpace
from sweep.bisection import Options, Verdict
from sweep.other_k import result_at, space_at
from sweep.pooling import MIN_POOLED, FrozenPriors, recipe, report_priors
from sweep.posterior import Belief, Observation, Prior, base_prior
from sweep.scale import Scale, scale_of
from sweep.studies import Studies
from trainables.errors import DamagedFile, UserError
from trainables.memorization import r_mem_interval
from trainables.result import MEASURES, FinalMeasurement, Record, Result, TrialRecord, Trials, parsed, read_all
from trainables.storage import Storage

Kind = TypeVar("Kind", bound=TrialRecord)
SWEEP = "sweep.json"
FINAL = "final.json"  # last measurements, by training key


@dataclass(frozen=True)
class StudySummary:
    """One configuration: its verdict, and the trials behind it (sorted by seed).

    `options.prior` is the one to report it with: pooled from the other studies of its recipe if `pooled`, else its own. Of a
    study that was found, the numbers of the verdict follow from it; `alone_low`, `alone_high` from its own trials only.
    """

    name: str
    factors: dict[str, Any]
    verdict: Verdict
    options: Options
    results: list[Result]
    running: list[TrialRecord]
    pooled: bool = False
    contradicts: bool = False  # its own trials speak against what the others have in common, so it stands alone
    finals: Mapping[str, FinalMeasurement] = field(default_factory=dict)  # last measurements, by training key

    @property
    def complete(self) -> list[Result]:
        return [result for result in self.results if result.complete]

    @property
    def observations(self) -> list[Observation]:
        done = [(r.spec.n, r.r_mem, r.n_samples, r.right_censored) for r in self.complete]
        return [Observation(n, r_mem, n_samples, censored) for n, r_mem, n_samples, censored in done if r_mem is not None]

    @cached_property
    def belief(self) -> Belief | None:
        """None before the first trial is complete."""
        return self.options.belief(self.observations) if self.complete else None

    @cached_property
    def alone(self) -> tuple[float | None, float | None]:
        """The interval of the EMM, open where the verdict's is, from the study's own trials only."""
        if not self.complete:
            return None, None
        low, high = replace(self.options, prior=base_prior()).belief(self.observations).interval()
        return (None if self.verdict.emm_low is None else low, None if self.verdict.emm_high is None else high)

    @cached_property
    def scale(self) -> Scale:
        """What an EMM must be read beside."""
        return scale_of(self.complete, self.verdict.emm, self.options)

    @property
    def digest(self) -> str | None:
        """Of the data that it was trained on; None before the first trial."""
        return next((trial.data.digest for trial in [*self.results, *self.running]), None)

    def as_json(self) -> dict[str, Any]:
        """Its part of `emm report --json`."""
        return _configuration(self)

    @property
    def images_trained(self) -> int:
        return sum(result.images_trained for result in self.results)


@dataclass(frozen=True)
class Contrast:
    """EMM of configuration `b` / EMM of `a`, with its 95 % interval; they are told apart if it excludes 1.

    `same_data`: whether both were trained on subsets of the same data set.
    """

    a: str
    b: str
    ratio: float
    low: float
    high: float
    same_data: bool = True

    @property
    def is_clear(self) -> bool:
        return not self.low <= 1 <= self.high


@dataclass(frozen=True)
class SweepSummary:
    """`damaged`: a line for every file of the sweep that says nothing, and is passed over."""

    name: str
    space: SearchSpace
    studies: list[StudySummary]
    damaged: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """The format of `emm report --json`."""
        return {
            "sweep": self.name,
            "k": self.space.measurement.k,
            "configurations": [study.as_json() for study in self.studies],
            "contrasts": [asdict(contrast) for contrast in self.contrasts],
            "passed_over": list(self.damaged),
        }

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """The ratio of the EMMs of every pair of configurations that were found."""
        found = [(study, study.belief) for study in self.studies if study.verdict.state == "found"]
        pairs = itertools.combinations([(study, belief) for study, belief in found if belief is not None], 2)
        return [
            replace(contrast(a.name, belief_a, b.name, belief_b), same_data=a.digest == b.digest)
            for (a, belief_a), (b, belief_b) in pairs
        ]

    @property
    def steps(self) -> list[Contrast]:
        """The contrasts of configurations that differ by one step of one factor."""
        adjacent = {(a.name, b.name) for a, b in neighbours(self.studies)}
        return [one for one in self.contrasts if (one.a, one.b) in adjacent]


def neighbours(studies: Sequence[StudySummary]) -> Iterable[tuple[StudySummary, StudySummary]]:
    """Pairs of studies that differ by one step of one factor, its levels in the order of the table."""
    levels: dict[str, list[str]] = {}
    for study in studies:
        for factor, value in study.factors.items():
            if repr(value) not in levels.setdefault(factor, []):
                levels[factor].append(repr(value))
    positions = [[levels[factor].index(repr(value)) for factor, value in study.factors.items()] for study in studies]
    for (a, here), (b, there) in itertools.combinations(zip(studies, positions, strict=True), 2):
        if sum(abs(i - j) for i, j in zip(here, there, strict=True)) == 1:
            yield a, b


class Finals(RootModel[dict[str, FinalMeasurement]]):
    """What is in `final.json`: last measurements by training key."""


class SweepFile(Record):
    """What is in `sweep.json`."""

    id: str | None = Field(None, description="of this sweep, by which a pointer to its storage is known to mean it")
    space: SearchSpace
    configurations: dict[str, str] = Field({}, description="configuration name → configuration key")


def read_sweep(storage: Storage) -> SweepFile | None:
    """None if there is no sweep. Raises DamagedFile if the file is broken."""
    content = storage.read_json(SWEEP)
    return None if content is None else parsed(SweepFile, content, f"{storage.shown}/{SWEEP}")


def read_space(storage: Storage) -> SearchSpace:
    """The search space that a sweep's storage was made for. Raises UserError if there is no sweep."""
    return _read_made_sweep(storage).space


def _read_made_sweep(storage: Storage) -> SweepFile:
    if (found := read_sweep(storage)) is None:
        raise UserError(f"{storage.shown} holds no sweep; give the DIR or URL of one that `emm run` made")
    return found


def read_keys(storage: Storage) -> dict[str, str]:
    """Name → configuration key, of all configurations that a sweep has had, under every name that they have had."""
    found = read_sweep(storage)
    return {} if found is None else found.configurations


def read_trials(storage: Storage, space: SearchSpace, keys: Mapping[str, str]) -> Trials:
    """The results of the configurations of `space`, and their trials that started and have none, by (name, seed).

    A trial belongs to the configuration whose key it has (`keys`: by name), and is given the name which that has in `space`:
    it may have been called otherwise when the trial was written. Where a name has no key, names must do.
    """
    results, started, damaged = read_all(storage)
    names = {keys[named.name]: named.name for named in space.configurations if named.name in keys}
    unknown = {named.name for named in space.configurations} - set(names.values())
    by_time = sorted(results, key=lambda result: (result.finished_at, result.training_key))
    return Trials(_renamed(by_time, names, unknown), _renamed(started, names, unknown), damaged)


def _renamed(trials: Sequence[Kind], names: Mapping[str, str], unknown: Collection[str]) -> list[Kind]:
    """Those that belong to one of `names` (by configuration key), or are called as one of `unknown`."""
    found = []
    for trial in trials:
        former = trial.spec.name
        name = names.get(trial.configuration_key, former if former in unknown else None)
        if name is not None:
            found.append(trial if name == former else renamed(trial, name))
    return sorted(found, key=lambda trial: (trial.spec.name, trial.spec.seed))


def renamed(trial: Kind, name: str) -> Kind:
    """The same trial under another name of its configuration."""
    return trial.model_copy(update={"spec": trial.spec.model_copy(update={"name": name})})


def summarize(storage: Storage, k: float | None = None) -> SweepSummary:
    """Reads all results of a sweep and judges every study by them, at another k if one is given.

    The priors that the studies searched with, and last measurements, hold for their own k only. Raises UserError if there is
    no sweep.
    """
    sweep = _read_made_sweep(storage)
    space, keys = sweep.space, sweep.configurations
    results, started, damaged = read_trials(storage, space, keys)
    if k is None or k == space.measurement.k:
        return summary_of(space, results, started, FrozenPriors(storage, keys), read_finals(storage), damaged)
    judged = []
    for result in results:
        try:
            judged.append(result_at(result, storage, k, space.search.target))
        except DamagedFile as error:
            damaged.append(str(error))
    return summary_of(space_at(space, k), judged, started, damaged=damaged)


def read_finals(storage: Storage) -> dict[str, FinalMeasurement]:
    return parsed(Finals, storage.read_json(FINAL) or {}, f"{storage.shown}/{FINAL}").root


def summary_of(
    space: SearchSpace,
    results: list[Result],
    started: list[TrialRecord],
    priors: FrozenPriors | None = None,
    finals: Mapping[str, FinalMeasurement] | None = None,
    damaged: Sequence[str] = (),
) -> SweepSummary:
    studies = Studies(space, priors=priors)
    studies.reconcile(results, started)
    names = list(studies.configurations)
    tables = {name: studies.shape(name) for name in names if studies.verdict(name).state == "found"}
    recipes = {name: recipe(named) for name, named in studies.configurations.items()}
    pooled = report_priors(recipes, tables)
    sharing = Counter(recipes[name] for name in tables)
    summaries = [
        StudySummary(
            name=named.name,
            factors=named.factors,
            **_reported(studies, named.name, pooled.get(named.name)),
            contradicts=named.name in tables and sharing[recipes[named.name]] >= MIN_POOLED and not pooled[named.name],
            results=sorted((r for r in results if r.spec.name == named.name), key=lambda r: r.spec.seed),
            finals=finals or {},
            running=sorted((t for t in started if t.spec.name == named.name), key=lambda t: t.spec.seed),
        )
        for named in space.configurations
    ]
    return SweepSummary(space.name, space, summaries, damaged)


def _reported(studies: Studies, name: str, pooled: Prior | None) -> dict[str, Any]:
    """Verdict and options of a study; once it was found, under the prior to report it with."""
    verdict, options = studies.verdict(name), studies.options(name)
    if verdict.state == "found":
        options = replace(options, prior=pooled or base_prior())
        belief = options.belief(studies.observations(name))
        low, high = belief.interval()
        verdict = replace(verdict, emm=belief.median, emm_low=low, emm_high=high, sd=belief.sd)
    return {"verdict": verdict, "options": options, "pooled": pooled is not None}


def contrast(a: str, belief_a: Belief, b: str, belief_b: Belief) -> Contrast:
    """Two beliefs of independent trials: the difference of ln EMM is taken as normal."""
    difference, sd = belief_b.mean - belief_a.mean, math.hypot(belief_a.sd, belief_b.sd)
    low, high = (math.exp(difference + side * 1.96 * sd) for side in (-1, 1))
    return Contrast(a, b, math.exp(difference), low, high)


def _configuration(study: StudySummary) -> dict[str, Any]:
    verdict = study.verdict
    complete = [_trial(result, study.finals.get(result.training_key)) for result in study.results]
    trials = [*complete, *map(_running_trial, study.running)]
    return {
        "name": study.name,
        "factors": study.factors,
        "verdict": verdict.state,
        "reason": verdict.reason,
        "emm": verdict.emm,
        "emm_low": verdict.emm_low,
        "emm_high": verdict.emm_high,
        "alone_low": study.alone[0],
        "alone_high": study.alone[1],
        "pooled": study.pooled,
        "contradicts": study.contradicts,
        "images_trained": study.images_trained,
        "scale": asdict(study.scale),
        "trials": sorted(trials, key=lambda trial: trial["seed"]),
    }


def _trial(result: Result, final: FinalMeasurement | None) -> dict[str, Any]:
    low, high = r_mem_interval(result.n_memorized, result.n_samples) if result.complete else (None, None)
    return {
        "n": result.spec.n,
        "seed": result.spec.seed,
        "r_mem": result.r_mem,
        "r_mem_low": low,
        "r_mem_high": high,
        "r_mem_last": result.r_mem_last,
        "r_mem_half": result.r_mem_half,
        **{name: getattr(result, name) if result.complete else None for name in (*MEASURES, "r_mem_per_label")},
        "final": final.model_dump() if final else None,
        "n_samples": result.n_samples,
        "right_censored": result.right_censored,
        "images_trained": result.images_trained,
        "state": "complete" if result.complete else "failed",
        "cause": result.cause,
        "training_key": result.training_key,
    }


def _running_trial(record: TrialRecord) -> dict[str, Any]:
    """A trial that has started and has no result yet, whether or not anything is training it just now."""
    return {
        "n": record.spec.n,
        "seed": record.spec.seed,
        "r_mem": None,
        "final": None,
        "n_samples": 0,
        "right_censored": False,
        "images_trained": 0,
        "state": "running",
        "training_key": record.training_key,
    }
