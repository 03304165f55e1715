"""What a sweep knows, from its storage alone: the one source of status, report and MLflow's study
runs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from search_spaces.space import NamedConfiguration, SearchSpace
from sweep.analysis.contrasts import Contrast, Contrasts, Known, compared
from sweep.analysis.features import Eye, result_in
from sweep.analysis.other_k import result_at, space_at
from sweep.analysis.study import StudySummary, options_of, outcomes
from sweep.search.pooling import MIN_POOLED, report_priors
from sweep.search.rules import NOT_JUDGED, judge
from sweep.store.files import Invocation, Kind, read_finals, read_made_sweep, read_trials
from sweep.store.priors import FrozenPriors
from trainables.errors import DamagedFile
from trainables.storage import Storage
from trainables.trial.result import FinalMeasurement, Result, TrialRecord


@dataclass(frozen=True)
class SweepSummary:
    """`damaged`: a line for every file of the sweep that says nothing, and is passed over. `other`:
    the same trials by the eye that they are not judged by here, if it is known already. `runs`: of
    drivers. Of several sweeps as one, `notes`: what is compared across them, and `spaces`: theirs."""

    name: str
    space: SearchSpace
    studies: list[StudySummary]
    damaged: Sequence[str] = ()
    other: "SweepSummary | None" = None
    runs: Sequence[Invocation] = ()
    notes: Sequence[str] = ()
    spaces: Sequence[SearchSpace] = ()

    @property
    def configurations(self) -> list[NamedConfiguration]:
        """All that were asked of."""
        return [one for space in self.spaces or [self.space] for one in space.configurations]

    @property
    def eye(self) -> Eye:
        """In which R_mem is counted."""
        return self.space.measurement.judge

    @cached_property
    def eyes(self) -> "dict[Eye, SweepSummary] | None":
        """The same trials judged in pixels, and in features; None if only pixels were compared."""
        if self.space.measurement.features is None:
            return None
        theirs: Eye = "features" if self.eye == "pixels" else "pixels"
        return {self.eye: self, theirs: self.other or seen_in(theirs, self)}

    def as_json(self) -> dict[str, Any]:
        """The format of `emm report --json`; where there are two eyes, the other one's stands
        beside. Made once, so it is read, not changed."""
        content = self._content
        if self.eyes is None:
            return content
        how = self.space.measurement
        (other,) = (summary for summary in self.eyes.values() if summary is not self)
        return {
            **content,
            "judged_in": self.eye,
            "features": {
                "function": how.features,
                "options": how.features_options,
                "rule": how.features_rule,
                "version": how.features_version,
            },
            "beside": other._content,
        }

    @cached_property
    def _content(self) -> dict[str, Any]:
        return {
            "sweep": self.name,
            "k": self.space.measurement.k,
            "configurations": [study.as_json() for study in self.studies],
            "contrasts": [asdict(contrast) for contrast in self.contrasts],
            "interactions": [asdict(one) for one in self.compared.interactions],
            "contrasts_by_target": [
                {"target": target, "contrasts": [asdict(one) for one in found]}
                for target, found in self.contrasts_by_target.items()
            ],
            **({"across_sweeps": list(self.notes)} if self.notes else {}),
            "passed_over": list(self.damaged),
            "runs": [{**run.model_dump(), "command": run.shown} for run in self.runs],
        }

    @cached_property
    def compared(self) -> Contrasts:
        """The contrasts of the configurations that were found."""
        return compared(self._known(self.space.search.target))

    @property
    def contrasts(self) -> list[Contrast]:
        """The ratio of the EMMs of every pair of configurations that were found."""
        return self.compared.pairs

    @cached_property
    def contrasts_by_target(self) -> dict[float, list[Contrast]]:
        """Those of configurations that differ in one factor alone, at every target where it is told
        of both; the intervals of each target hold together."""
        own = self.space.search.target
        targets = {target for study in self.studies for target in study.profile}
        found = {
            target: self.compared if target == own else compared(self._known(target))
            for target in sorted(targets, reverse=True)
        }
        by_target = {
            target: [one for one in contrasts.pairs if one.factor is not None]
            for target, contrasts in found.items()
        }
        return {target: pairs for target, pairs in by_target.items() if pairs}

    def _known(self, target: float) -> list[Known]:
        """The configurations whose EMM is known at a target."""
        beliefs = [(study, study.profile.get(target)) for study in self.studies]
        return [
            Known.by(
                belief,
                study.name,
                study.factors,
                study.digest,
                # in one sweep each trial is of one configuration
                study.training_keys if self.spaces else frozenset(),
            )
            for study, belief in beliefs
            if belief is not None
        ]


def summarize(storage: Storage, k: float | None = None) -> SweepSummary:
    """Reads all results of a sweep and judges every study by them, at another k if one is given.

    The priors that the studies searched with, and last measurements, hold for their own k only.
    Raises UserError if there is no sweep.
    """
    sweep = read_made_sweep(storage)
    space, keys = sweep.space, sweep.configurations
    results, started, damaged = read_trials(storage, space, keys)
    is_own = k == space.measurement.k and space.measurement.judge == "pixels"
    if k is None or is_own:
        return summary_of(
            space,
            results,
            started,
            FrozenPriors(storage, keys),
            read_finals(storage),
            damaged,
            sweep.runs,
        )
    judged = []
    for result in results:
        try:
            judged.append(result_at(result, storage, k))
        except DamagedFile as error:
            damaged.append(str(error))
    return summary_of(space_at(space, k), judged, started, damaged=damaged, runs=sweep.runs)


def summary_of(
    space: SearchSpace,
    results: Sequence[Result],
    started: Sequence[TrialRecord],
    priors: FrozenPriors | None = None,
    finals: Mapping[str, FinalMeasurement] | None = None,
    damaged: Sequence[str] = (),
    runs: Sequence[Invocation] = (),
) -> SweepSummary:
    """Judges every study by its own trials; those that were found are reported with what the others
    of their recipe have in common."""
    priors = priors or FrozenPriors()
    studies = []
    for named in space.configurations:
        options = options_of(space.search, named, priors.get(named.name))
        finished, running = _of(results, named.name), _of(started, named.name)
        has_begun = bool(finished or running)
        study = StudySummary(
            name=named.name,
            factors=named.factors,
            verdict=judge(outcomes(finished), options) if has_begun else NOT_JUDGED,
            options=options,
            results=finished,
            running=running,
            finals=finals or {},
            eye=space.measurement.judge,
        )
        studies.append(study)
    return SweepSummary(space.name, space, _reported(space, studies), damaged, runs=runs)


def seen_in(eye: Eye, judged: SweepSummary) -> SweepSummary:
    """A sweep whose trials were compared in pixels and in features by the eye that it is not judged
    by: every EMM with the same belief, from the other R_mem. Of the search nothing is in it but its
    N."""
    results = [result_in(eye, result) for study in judged.studies for result in study.results]
    started = [record for study in judged.studies for record in study.running]
    measurement = judged.space.measurement.model_copy(update={"judge": eye})
    space = judged.space.model_copy(update={"measurement": measurement})
    seen = summary_of(space, results, started, damaged=judged.damaged, runs=judged.runs)
    return replace(seen, other=judged)


def in_pixels(judged: SweepSummary) -> SweepSummary:
    return judged if judged.eye == "pixels" else seen_in("pixels", judged)


def _of(trials: Sequence[Kind], name: str) -> list[Kind]:
    mine = [trial for trial in trials if trial.spec.name == name]
    return sorted(mine, key=lambda trial: trial.spec.seed)


def _reported(space: SearchSpace, studies: Sequence[StudySummary]) -> list[StudySummary]:
    """The studies, and those that were found under the prior to report them with."""
    recipes = {named.name: named.recipe for named in space.configurations}
    found = [study for study in studies if study.verdict.state == "found"]
    shapes = {study.name: study.options.shape(study.observations) for study in found}
    priors = report_priors(recipes, shapes)
    sharing = Counter(recipes[name] for name in shapes)
    reported = []
    for study in studies:
        if study.name in shapes:
            is_shared = sharing[recipes[study.name]] >= MIN_POOLED
            study = study.under(priors[study.name], is_shared)
        reported.append(study)
    return reported
