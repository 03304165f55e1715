"""What a sweep knows, from its storage alone: the one source of status, report and MLflow's study runs."""

from dataclasses import dataclass
from typing import Any

from search_spaces.space import SearchSpace
from sweep.bisection import Options, Verdict
from sweep.posterior import Belief, Observation
from sweep.studies import Studies
from trainables.errors import UserError
from trainables.memorization import r_mem_interval
from trainables.result import Result, TrialRecord, read_all
from trainables.storage import Storage

SWEEP = "sweep.json"


@dataclass(frozen=True)
class StudySummary:
    """One configuration: its verdict, and the trials behind it (sorted by seed)."""

    name: str
    factors: dict[str, Any]
    verdict: Verdict
    options: Options
    results: list[Result]
    running: list[TrialRecord]

    @property
    def complete(self) -> list[Result]:
        return [result for result in self.results if result.complete]

    @property
    def observations(self) -> list[Observation]:
        done = [(r.spec.n, r.r_mem, r.n_samples, r.right_censored) for r in self.complete]
        return [Observation(n, r_mem, n_samples, censored) for n, r_mem, n_samples, censored in done if r_mem is not None]

    @property
    def belief(self) -> Belief | None:
        """None before the first trial is complete."""
        return self.options.belief(self.observations) if self.complete else None

    @property
    def images_trained(self) -> int:
        return sum(result.images_trained for result in self.results)


@dataclass(frozen=True)
class SweepSummary:
    name: str
    space: SearchSpace
    studies: list[StudySummary]

    def as_json(self) -> dict[str, Any]:
        """The format of `emm report --json`; the interval of a study's own trials is the only one there is so far."""
        return {"sweep": self.name, "configurations": [_configuration(study) for study in self.studies]}


def read_space(storage: Storage) -> SearchSpace:
    """The search space that a sweep's storage was made for. Raises UserError if there is no sweep."""
    content = storage.read_json(SWEEP)
    if content is None:
        raise UserError(f"{storage.url} holds no sweep; give the DIR or URL of one that `emm run` made")
    return SearchSpace.model_validate(content["space"])


def summarize(storage: Storage) -> SweepSummary:
    """Reads all results of a sweep and judges every study by them. Raises UserError if there is no sweep."""
    return summary_of(read_space(storage), *read_all(storage))


def summary_of(space: SearchSpace, results: list[Result], started: list[TrialRecord]) -> SweepSummary:
    studies = Studies(space)
    studies.reconcile(results, started)
    summaries = [
        StudySummary(
            name=named.name,
            factors=named.factors,
            verdict=studies.verdict(named.name),
            options=studies.options(named.name),
            results=sorted((r for r in results if r.spec.name == named.name), key=lambda r: r.spec.seed),
            running=sorted((t for t in started if t.spec.name == named.name), key=lambda t: t.spec.seed),
        )
        for named in space.configurations
    ]
    return SweepSummary(space.name, space, summaries)


def _configuration(study: StudySummary) -> dict[str, Any]:
    verdict = study.verdict
    trials = [*map(_trial, study.results), *map(_running_trial, study.running)]
    return {
        "name": study.name,
        "factors": study.factors,
        "verdict": verdict.state,
        "reason": verdict.reason,
        "emm": verdict.emm,
        "emm_low": verdict.emm_low,
        "emm_high": verdict.emm_high,
        "alone_low": verdict.emm_low,
        "alone_high": verdict.emm_high,
        "images_trained": study.images_trained,
        "trials": sorted(trials, key=lambda trial: trial["seed"]),
    }


def _trial(result: Result) -> dict[str, Any]:
    low, high = r_mem_interval(result.n_memorized, result.n_samples) if result.complete else (None, None)
    return {
        "n": result.spec.n,
        "seed": result.spec.seed,
        "r_mem": result.r_mem,
        "r_mem_low": low,
        "r_mem_high": high,
        "r_mem_last": result.r_mem_last,
        "r_mem_half": result.r_mem_half,
        "ceiling": result.ceiling,
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
        "n_samples": 0,
        "right_censored": False,
        "images_trained": 0,
        "state": "running",
        "training_key": record.training_key,
    }
