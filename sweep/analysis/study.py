"""One configuration: its verdict, and the trials behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from search_spaces.space import NamedConfiguration, Search
from sweep.analysis.features import Eye
from sweep.analysis.isolation import Isolation, isolation_of
from sweep.analysis.onset import LEVELS, Growth, growth_of, onset_numbers
from sweep.analysis.profile import PROFILE, belief_at
from sweep.analysis.scale import Ends, Scale, beside, copying, emm_by_length, scale_of
from sweep.search.belief import Belief, Observation, Prior, base_prior
from sweep.search.cost import COSTS
from sweep.search.rules import Failed, Options, Verdict
from sweep.store.files import by_seed
from trainables.measure.measures import MEASURES
from trainables.measure.r_mem import r_mem_interval
from trainables.trial.result import FinalMeasurement, Result, TrialRecord


def options_of(search: Search, named: NamedConfiguration, prior: Prior) -> Options:
    """How the study of a configuration searches."""
    return Options.of(search, cost=COSTS[named.configuration.trainer.clock], prior=prior)


def outcomes(results: Sequence[Result]) -> list[Observation | Failed]:
    """What results say to the search, in the order of their seeds."""
    found: list[Observation | Failed] = []
    for _, result in sorted(by_seed(results).items()):
        n = result.spec.n
        if result.r_mem is None or not result.complete:
            found.append(Failed(n, result.cause or "unknown"))
        else:
            found.append(Observation(n, result.r_mem, result.n_samples, result.right_censored))
    return found


@dataclass(frozen=True)
class StudySummary:
    """One configuration: its verdict, and the trials behind it (sorted by seed).

    `options.prior` is the one to report it with: pooled from the other studies of its recipe if
    `pooled`, else its own. Of a study that was found, the numbers of the verdict follow from it;
    `alone_low`, `alone_high` from its own trials only. `eye`: in which R_mem is counted.
    """

    name: str
    factors: dict[str, Any]
    verdict: Verdict
    options: Options
    results: list[Result]
    running: list[TrialRecord]
    pooled: bool = False
    # its own trials speak against what the others have in common, so it stands alone
    contradicts: bool = False
    # last measurements, by training key
    finals: Mapping[str, FinalMeasurement] = field(default_factory=dict)
    eye: Eye = "pixels"
    # with what its own search ended, if it is judged anew for the report
    searched: Verdict | None = None

    @property
    def complete(self) -> list[Result]:
        return [result for result in self.results if result.complete]

    @property
    def observations(self) -> list[Observation]:
        return [trial for trial in outcomes(self.results) if isinstance(trial, Observation)]

    @cached_property
    def belief(self) -> Belief | None:
        """None before the first trial is complete."""
        return self.options.belief(self.observations) if self.complete else None

    @cached_property
    def alone(self) -> tuple[float | None, float | None]:
        """The interval of the EMM, open where the verdict's is, from the study's own trials
        only."""
        if not self.complete:
            return None, None
        low, high = replace(self.options, prior=base_prior()).belief(self.observations).interval()
        return (
            None if self.verdict.emm_low is None else low,
            None if self.verdict.emm_high is None else high,
        )

    @cached_property
    def median_seed(self) -> tuple[float, float, float] | None:
        """Lower end, median and upper end of the EMM of the median seed; None unless the EMM was
        found."""
        found = self.belief is not None and self.verdict.state == "found"
        return self.belief.median_seed() if found and self.belief is not None else None

    @cached_property
    def scale(self) -> Scale:
        """What an EMM must be read beside."""
        return scale_of(self.complete, self.verdict.emm, self.options)

    @cached_property
    def isolation(self) -> Isolation | None:
        """Who is copied, in the trials beside its EMM that mostly copy."""
        return isolation_of(copying(beside(self.complete, self.verdict.emm)))

    @cached_property
    def by_length(self) -> dict[float, Ends]:
        """Share of the training → the EMM had it ended there; see `emm_by_length`."""
        return emm_by_length(self.complete, self.options)

    @cached_property
    def growth(self) -> list[Growth]:
        """How the onset of copying grows with N, at each level."""
        return [growth_of(self.complete, level) for level in LEVELS]

    @cached_property
    def profile(self) -> dict[float, Belief | None]:
        """Target → the belief of the EMM there, from the largest down; None where trials tell
        nothing. The own target is among them where the EMM was found."""
        targets = {self.options.target, *PROFILE, *self.options.targets}
        return {target: self.belief_at(target) for target in sorted(targets, reverse=True)}

    def belief_at(self, target: float) -> Belief | None:
        """The belief of the EMM at a target; None where trials tell nothing."""
        if target == self.options.target:
            return self.belief if self.verdict.state == "found" else None
        return belief_at(self.observations, self.options, target)

    @property
    def training_keys(self) -> frozenset[str]:
        """Of the trials by which its EMM is known."""
        return frozenset(result.training_key for result in self.complete)

    @property
    def digest(self) -> str | None:
        """Of the data that it was trained on; None before the first trial."""
        return next((trial.data.digest for trial in [*self.results, *self.running]), None)

    def under(self, prior: Prior | None, is_shared: bool) -> "StudySummary":
        """A study that was found, as it is reported: with a prior from the others of its recipe, or
        without one alone. `is_shared`: whether there are enough others to have one."""
        options = replace(self.options, prior=prior or base_prior())
        belief = options.belief(self.observations)
        low, high = belief.interval()
        return replace(
            self,
            verdict=replace(
                self.verdict, emm=belief.median, emm_low=low, emm_high=high, sd=belief.sd
            ),
            options=options,
            searched=self.verdict,
            pooled=prior is not None,
            contradicts=is_shared and prior is None,
        )

    def as_json(self) -> dict[str, Any]:
        """Its part of `emm report --json`; made once, so it is read, not changed."""
        return self._content

    @cached_property
    def _content(self) -> dict[str, Any]:
        return _configuration(self)

    @property
    def images_trained(self) -> int:
        return sum(result.images_trained for result in self.results)


def _configuration(study: StudySummary) -> dict[str, Any]:
    verdict, searched = study.verdict, study.searched or study.verdict
    complete = [
        trial_content(result, study.finals.get(result.training_key)) for result in study.results
    ]
    trials = [*complete, *map(_running_trial, study.running)]
    return {
        "name": study.name,
        "factors": study.factors,
        "verdict": verdict.state,
        "reason": verdict.reason,
        "emm": verdict.emm,
        "emm_low": verdict.emm_low,
        "emm_high": verdict.emm_high,
        "search_emm": searched.emm,
        "search_low": searched.emm_low,
        "search_high": searched.emm_high,
        "alone_low": study.alone[0],
        "alone_high": study.alone[1],
        "median_seed": None if study.median_seed is None else study.median_seed[1],
        "median_seed_low": None if study.median_seed is None else study.median_seed[0],
        "median_seed_high": None if study.median_seed is None else study.median_seed[2],
        "pooled": study.pooled,
        "contradicts": study.contradicts,
        "images_trained": study.images_trained,
        "scale": study.scale.as_json(),
        "isolation": None if study.isolation is None else asdict(study.isolation),
        "profile": [
            {"target": target, **_numbers_of(belief)} for target, belief in study.profile.items()
        ],
        "by_length": [
            {"share": share, **ends._asdict()} for share, ends in study.by_length.items()
        ],
        "onset": [growth.as_json() for growth in study.growth],
        "trials": sorted(trials, key=lambda trial: trial["seed"]),
    }


def _numbers_of(belief: Belief | None) -> dict[str, float | None]:
    """The EMM and its interval."""
    low, high = (None, None) if belief is None else belief.interval()
    return {"emm": None if belief is None else belief.median, "emm_low": low, "emm_high": high}


def trial_content(result: Result, final: FinalMeasurement | None = None) -> dict[str, Any]:
    """A finished trial's part of `emm report --json`."""
    low, high = (
        r_mem_interval(result.n_memorized, result.n_samples) if result.complete else (None, None)
    )
    return {
        "n": result.spec.n,
        "seed": result.spec.seed,
        "r_mem": result.r_mem,
        "r_mem_low": low,
        "r_mem_high": high,
        **{name: getattr(result, name) if result.complete else None for name in MEASURES},
        **onset_numbers(result),
        "final": final.model_dump() if final else None,
        "n_samples": result.n_samples,
        "right_censored": result.right_censored,
        "images_trained": result.images_trained,
        "seconds": result.seconds,
        "loss": result.curve[-1].loss if result.curve else None,
        "state": "complete" if result.complete else "failed",
        "cause": result.cause,
        "training_key": result.training_key,
    }


def _running_trial(record: TrialRecord) -> dict[str, Any]:
    """A trial that has started and has no result yet, whether or not anything is training it just
    now."""
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
