"""What is asked next and what is concluded: pure functions of the finished and the running trials
(`propose`, `judge`).

No random numbers, nothing remembered between calls. So a study resumes by being loaded, two
processes may share it, and the same functions run without Optuna. Evidence for the rules:
docs/search.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np

from sweep.search.belief import (
    Array,
    Belief,
    Observation,
    Prior,
    base_prior,
    belief,
    shape_likelihood,
)
from sweep.search.information import information

State = Literal["searching", "found", "below_range", "above_range", "unresolved"]

NEAR = 0.5  # a witness lies within e^0.5 of the estimate

ACCEPT = 1.99  # R_mem this far above the target, on the logit, needs no exact value: .985 for .9

LOOKED_AT = 13  # sizes of which the next is chosen, and one more for each that is running

# They lie within so many sd of the estimate. Far below it a trial tells little and costs less still:
# asked for without bound, such trials are many (docs/search.md).
REACH = 2.0

N_SAMPLES = 2000  # taken for those of a trial, until one has finished

ASIDE = 0.15  # where a missing witness is looked for, in ln N from the estimate

SURE = 0.95  # mass of the belief outside the range that ends a study

SENTINEL = 4.0  # a guarded study looks this far above the estimate for a curve that rises again

MAX_FAILED = 3


# factors of the precision
EFFORTS = {"quick": math.sqrt(2), "normal": 1.0, "thorough": 1 / math.sqrt(2)}


@dataclass(frozen=True)
class Failed:
    """A trial at `n` that failed, and its cause. It is never an observation."""

    n: int
    cause: str


MAY_CHANGE = {"may_change": True}  # of a study that has begun


@dataclass(frozen=True)
class Options:
    """How a study searches. Raises ValueError on what cannot be searched.

    `low`, `high` range of N; `target` the R_mem whose crossing is sought; `precision` sd of ln EMM
    to reach; `max_trials` finished trials, times `replicates`, after which the study ends as
    unresolved; `cost` of a trial: ∝ N ("images", exact epochs) or the same for every N ("constant",
    fixed steps); `start` first N, by default `low`, the middle of the range if the cost is
    constant; `prior` of the curve's shape, frozen when the study starts; `guard` against curves
    that dip under the target and rise again, by one trial at 4 × the estimate; `replicates` trials
    at every N, each with a seed of its own; `targets` whose crossings are sought after that of
    `target`, with as many trials more for each.
    """

    low: int
    high: int
    target: float = 0.9
    precision: float = field(default=0.12, metadata=MAY_CHANGE)
    max_trials: int = field(default=32, metadata=MAY_CHANGE)
    cost: Literal["images", "constant"] = "images"
    start: int | None = None
    prior: Prior = field(default_factory=base_prior)
    guard: bool = field(default=False, metadata=MAY_CHANGE)
    replicates: int = field(default=1, metadata=MAY_CHANGE)
    targets: tuple[float, ...] = field(default=(), metadata=MAY_CHANGE)

    def __post_init__(self) -> None:
        if not (
            isinstance(self.low, int) and isinstance(self.high, int) and 1 <= self.low < self.high
        ):
            raise ValueError(
                f"range of N: integers 1 <= low < high are needed, not low={self.low}, "
                f"high={self.high}"
            )
        object.__setattr__(self, "targets", tuple(self.targets))  # JSON gives lists
        for target in (self.target, *self.targets):
            if not 0 < target < 1:
                raise ValueError(f"target={target}: an R_mem strictly between 0 and 1 is needed")
        if not self.precision > 0:
            raise ValueError(f"precision={self.precision}: a positive sd of ln EMM is needed")
        if not self.max_trials >= 1:
            raise ValueError(f"max_trials={self.max_trials}: at least one trial is needed")
        if not self.replicates >= 1:
            raise ValueError(
                f"replicates={self.replicates}: at least one trial at every N is needed"
            )
        if self.cost not in ("images", "constant"):
            raise ValueError(f'cost={self.cost!r}: "images" or "constant" is needed')
        if self.start is None:
            middle = round(math.sqrt(self.low * self.high))
            object.__setattr__(self, "start", self.low if self.cost == "images" else middle)
        if not self.low <= (self.start or self.low) <= self.high:
            raise ValueError(
                f"start={self.start} lies outside the range of N {self.low}..{self.high}"
            )

    @classmethod
    def of(cls, search: Any, **of_study: Any) -> Options:
        """As the `search` of a search space says (n_low, n_high, and what is called as here), and
        what depends on the study: `cost`, `prior`."""
        said = {f.name: getattr(search, f.name) for f in fields(cls) if hasattr(search, f.name)}
        return cls(low=search.n_low, high=search.n_high, **said, **of_study)

    def difference(self, other: Options) -> str | None:
        """In what `other` is another search ("low=4, not low=8"); None if it is the same one.

        What may change is no difference, nor is the prior, which stays as the study began with it.
        """
        for name in (f.name for f in fields(self) if not f.metadata and f.name != "prior"):
            ours = getattr(self, name)
            if ours != (theirs := getattr(other, name)):
                return f"{name}={ours}, not {name}={theirs}"
        return None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Options:
        return cls(**{**values, "prior": Prior(**values["prior"])})

    def belief(self, finished: Sequence[Observation]) -> Belief:
        return self.belief_of(self.heard(finished))

    def belief_of(self, heard: Sequence[Observation]) -> Belief:
        """Of all these trials, those below a dip too."""
        return belief(heard, self.low, self.high, self.target, self.prior)

    def shape(self, finished: Sequence[Observation]) -> Array:
        """What the trials tell other studies: see `shape_likelihood`."""
        heard = self.heard(finished)
        return shape_likelihood(heard, self.low, self.high, self.target)

    def passed(self, trial: Observation) -> bool:
        return trial.r_mem >= self.target

    def missed(self, trial: Observation) -> bool:
        """Below the target; of a trial that was accepted early that is never known."""
        return not (self.passed(trial) or trial.right_censored)

    @property
    def cap(self) -> int:
        """Finished trials at which the study ends."""
        return self.max_trials * self.replicates * (1 + len(self.targets))

    @property
    def own(self) -> Options:
        """The search for its own target alone."""
        return replace(self, targets=(), max_trials=self.cap // self.replicates)

    def at(self, target: float) -> Options:
        """The search for another target alone, whose shape is not what other studies have in common
        at theirs."""
        return replace(self.own, target=target, prior=base_prior(), guard=False)

    def heard(self, finished: Sequence[Observation]) -> Sequence[Observation]:
        """The trials that say where EMM is: with `guard`, those above the last dip."""
        return _from(_dip(finished, self)[0], finished)


@dataclass(frozen=True)
class Verdict:
    """What is known of a study. `emm_low`, `emm_high`: 95 % interval.

    found, searching, unresolved: `emm` is the median of the belief (None before the first finished
    trial). below_range: `emm` and `emm_low` are None, EMM < `emm_high` with 97.5 %. above_range:
    `emm` and `emm_high` are None. `sd` of ln EMM; `reason` one line for a person; `n_trials`
    finished ones.
    """

    state: State
    emm: float | None
    emm_low: float | None
    emm_high: float | None
    sd: float | None
    reason: str
    n_trials: int

    @property
    def known(self) -> list[float]:
        """The EMM and the ends of its interval, as far as they are known."""
        return [n for n in (self.emm, self.emm_low, self.emm_high) if n is not None]


def propose(
    finished: Sequence[Observation],
    pending: Sequence[int],
    options: Options,
    b: Belief | None = None,
) -> int:
    """The N to train next, given the finished trials and the N of those still running: a missing
    witness or sentinel once the belief is narrow, and before that the N whose trial tells most of the
    EMM for what it costs.

    `b` is `options.belief(finished)` where the caller has it already.
    """
    again = _unreplicated(finished, pending, options)
    if again is not None:
        return again
    if options.targets and finished:
        options, b = _still_open(finished, options, b)
    if not finished and not pending:
        return options.start or options.low
    cut, _ = _dip(finished, options)
    finished = _from(cut, finished)
    b = b or options.belief_of(finished)
    lowest = _lowest(cut, finished, options, b)
    passing, failing = _witnesses(finished, options, b)
    asked = None
    if not _guarded(finished, options, b) and (
        _decided(options, b) or not _lacking(finished, options, b)
    ):
        asked = math.floor(min(SENTINEL * max(b.median, options.low), options.high))
    elif b.sd <= options.precision:
        if not failing:
            asked = math.ceil(b.median * math.exp(ASIDE))
        elif not passing:
            asked = max(1, math.floor(b.median * math.exp(-ASIDE)))
    if asked is None or any(abs(math.log(asked / n)) < ASIDE for n in pending):
        asked = _most_telling(finished, pending, options, b, lowest)
    return _free(asked, pending, lowest, options.high)


def _most_telling(
    finished: Sequence[Observation],
    pending: Sequence[int],
    options: Options,
    b: Belief,
    lowest: int,
) -> int:
    """The N whose trial tells most for what it costs, of some around the estimate and from `lowest`
    on."""
    reach = max(REACH * b.sd, 2 * ASIDE)
    around = b.median * np.exp(np.linspace(-reach, reach, LOOKED_AT + len(pending)))
    sizes = sorted({min(max(round(float(n)), lowest), options.high) for n in around})
    sizes = [n for n in sizes if n not in pending] or sizes  # where all are running, one again
    n_samples = max((trial.n_samples for trial in finished), default=N_SAMPLES)
    told = information(b, sizes, n_samples, pending)
    if options.cost == "images":
        told = told / np.array(sizes)
    return sizes[int(np.argmax(told))]


def _still_open(
    finished: Sequence[Observation], options: Options, b: Belief | None
) -> tuple[Options, Belief]:
    """The search that asks next, and its belief: of the targets that are not decided the first, the
    own one before all, that has not had its share of the trials; once all have, the first.

    Trials tell of every target and are counted together: `max_trials` are the share of each.
    """
    at_own = b or options.belief(finished)
    waiting: tuple[Options, Belief] | None = None
    for number, target in enumerate((options.target, *options.targets)):
        search = options.at(target) if number else options.own
        there = search.belief(finished) if number else at_own
        if _judged(finished, search, there).state != "searching":
            continue
        if len(finished) < (number + 1) * options.max_trials * options.replicates:
            return search, there
        waiting = waiting or (search, there)
    return waiting or (options.own, at_own)


def _unreplicated(
    finished: Sequence[Observation], pending: Sequence[int], options: Options
) -> int | None:
    """The smallest N that was asked for, and less often than `options.replicates`."""
    counts = Counter([o.n for o in finished] + list(pending))
    return min((n for n, count in counts.items() if count < options.replicates), default=None)


def _free(n: int, pending: Sequence[int], low: int, high: int) -> int:
    """`n` in the range, or the nearest N there that is not running."""
    n = min(max(n, low), high)
    for step in range(len(pending) + 1):
        for candidate in (n + step, n - step):
            if low <= candidate <= high and candidate not in pending:
                return candidate
    return n


def _witnesses(
    finished: Sequence[Observation], options: Options, b: Belief
) -> tuple[list[int], list[int]]:
    """N of the passing and of the failing trials near the estimate.

    Where the end of the range is nearer than a witness would be looked for, a trial there stands in
    for it.
    """
    low, high = math.floor(b.median * math.exp(-NEAR)), math.ceil(b.median * math.exp(NEAR))
    near = [trial for trial in finished if low <= trial.n <= high]
    passing = [trial.n for trial in near if options.passed(trial)]
    failing = [trial.n for trial in near if options.missed(trial)]
    if not failing and b.median * math.exp(ASIDE) > options.high:
        failing = [trial.n for trial in near if trial.n == options.high]
    if not passing and b.median * math.exp(-ASIDE) < options.low:
        passing = [trial.n for trial in near if trial.n == options.low]
    return passing, failing


def has_witnesses(finished: Sequence[Observation], options: Options, b: Belief) -> bool:
    """Whether a trial that passes the target and one that does not lie near the estimate."""
    return all(_witnesses(finished, options, b))


def _lacking(finished: Sequence[Observation], options: Options, b: Belief) -> str:
    """What an answer lacks, empty if nothing: a belief as narrow as asked, two trials near the
    estimate, a passing and a failing witness."""
    if b.sd > options.precision:
        return f"at most {options.precision:.3g} is asked"
    n_near = sum(abs(math.log(trial.n / b.median)) <= 0.35 for trial in finished)
    if n_near < 2:
        return "fewer than two trials are near the estimate"
    passing, failing = _witnesses(finished, options, b)
    if not passing:
        return "no trial close by passes the target"
    return "" if failing else "no trial close by misses the target"


def _at_an_end(options: Options, b: Belief) -> str:
    """What to say more of an estimate so near an end of the range that no trial was looked for beyond
    it, empty elsewhere: trials at the end itself tell little of the slope."""
    for end in (options.low, options.high):
        if abs(math.log(b.median / end)) < ASIDE:
            return f"; it lies at an end of the range, N = {end}: let the range reach further"
    return ""


def _decided(options: Options, b: Belief) -> State | None:
    """Whether EMM lies outside the range."""
    if b.p_below(options.low) > SURE:
        return "below_range"
    return "above_range" if b.p_above(options.high) > SURE else None


def _guarded(finished: Sequence[Observation], options: Options, b: Belief) -> bool:
    """Whether a trial far above the estimate has shown that the curve does not rise again; True
    without `guard`."""
    sentinel = min(0.9 * SENTINEL * max(b.median, options.low), options.high)
    return not options.guard or any(o.n >= math.floor(sentinel) for o in finished)


def _dip(finished: Sequence[Observation], options: Options) -> tuple[float, Observation | None]:
    """With `guard`, the N under which trials lie below the last dip, 0 if there is none: EMM is the
    largest N that passes, what lies below a dip is moot.

    A trial far above the estimate of those below it shows a dip if it memorizes more than they
    predict, and passes the target, or the trials up there see R_mem cross it themselves. If neither,
    it is returned as well: there is a floor, or a dip too wide to tell.
    """
    if not options.guard:
        return 0, None
    floor = 0.3 * options.target  # a few copies are no sign of a dip
    for trial in sorted(finished, key=lambda trial: -trial.n):
        cut = trial.n / 2.5
        below = [other for other in finished if other.n < cut]
        above = [other for other in finished if other.n >= cut]
        if trial.r_mem <= floor or all(options.passed(other) for other in below):
            continue
        of_below, of_above = options.belief_of(below), options.belief_of(above)
        _, _, (most,) = of_below.predict([trial.n])
        if trial.n > 2 * of_below.median and trial.r_mem > most:
            # what is asked next is to be kept, too
            is_above = options.passed(trial) or of_above.quantile(0.2) > cut
            return (cut, None) if is_above else (0, trial)
    return 0, None


def _from(cut: float, finished: Sequence[Observation]) -> Sequence[Observation]:
    return [trial for trial in finished if trial.n >= cut]


def _lowest(cut: float, heard: Sequence[Observation], options: Options, b: Belief) -> int:
    """The smallest N to ask at: what lies below a dip's `cut` is not heard, and between the cut and the
    smallest N that passed above it a trial may fall into the dip itself."""
    if not cut:
        return options.low
    passed = min((trial.n for trial in heard if options.passed(trial)), default=0)
    return max(math.ceil(cut), min(passed, math.floor(b.median)))


NOT_JUDGED = Verdict("searching", None, None, None, None, "no trial has started", 0)


def judge(
    trials: Sequence[Observation | Failed], options: Options, b: Belief | None = None
) -> Verdict:
    """The verdict that follows from the trials that have ended, in their order; `b` as in
    `propose`.

    Trials that fail end the study as unresolved when the last three all failed, or at least three
    did and they outnumber the finished ones. A study that seeks other targets too is decided when it
    is at each; the numbers are those of its own.
    """
    verdict = _at_own_target(trials, options.own, b)
    for target in options.targets if verdict.state != "searching" else ():
        there = _at_own_target(trials, options.at(target), None)
        if there.state == "searching":
            reason = f"at target {target:g}: {there.reason}"
            return replace(verdict, state="searching", reason=reason)
    return verdict


def _at_own_target(
    trials: Sequence[Observation | Failed], options: Options, b: Belief | None
) -> Verdict:
    verdict = _judged([trial for trial in trials if isinstance(trial, Observation)], options, b)
    failed = [trial for trial in trials if isinstance(trial, Failed)]
    in_a_row = all(isinstance(trial, Failed) for trial in trials[-MAX_FAILED:])
    most = len(failed) > len(trials) - len(failed)
    if verdict.state != "searching" or len(failed) < MAX_FAILED or not (in_a_row or most):
        return verdict
    last = failed[-1]
    reason = f"{len(failed)} of {len(trials)} trials failed, the last at N = {last.n}: {last.cause}"
    return replace(verdict, state="unresolved", reason=reason)


def _judged(finished: Sequence[Observation], options: Options, b: Belief | None) -> Verdict:
    if not finished:
        return Verdict("searching", None, None, None, None, "no trial has finished", 0)
    cut, odd = _dip(finished, options)
    heard = _from(cut, finished)
    b = b or options.belief_of(heard)
    low, high = b.interval()
    known = Verdict("searching", b.median, low, high, b.sd, "", len(finished))
    outside, guarded = _decided(options, b), _guarded(heard, options, b)
    again = _unreplicated(finished, [], options)
    if again is not None and known.n_trials < options.cap:
        return replace(known, reason=f"N = {again} has fewer than {options.replicates} seeds")
    if outside == "below_range" and guarded:
        reason = f"P(EMM < {options.low}) = {b.p_below(options.low):.3f}"
        return replace(known, state="below_range", emm=None, emm_low=None, reason=reason)
    if outside == "above_range":
        reason = f"P(EMM > {options.high}) = {b.p_above(options.high):.3f}"
        return replace(known, state="above_range", emm=None, emm_high=None, reason=reason)
    if odd is not None:
        reason = (
            f"R_mem {odd.r_mem:.3f} at N = {odd.n} is more than smaller N predict: a floor, or a "
            "dip too wide to see through"
        )
        return replace(known, state="unresolved", reason=reason)
    sd = f"sd {b.sd:.3f} of ln EMM"
    lacking = _lacking(heard, options, b)
    if not lacking and not guarded:
        lacking = "no trial far above the estimate has looked for a rise"
    if not lacking:
        return replace(known, state="found", reason=f"{sd}, with trials on both sides of it")
    reason = f"{sd}; {lacking}"
    if known.n_trials >= options.cap:
        way_out = _at_an_end(options, b) or (
            "; with a larger max_trials it goes on "
            f"(--set search.max_trials={2 * options.max_trials})"
        )
        reason = f"after all {known.n_trials} trials: {reason}{way_out}"
        return replace(known, state="unresolved", reason=reason)
    return replace(known, reason=reason)


def accept_bound(target: float) -> float:
    """R_mem above which a trial may end early: it is recorded as right-censored, and the belief
    loses little by it."""
    return 1 / (1 + math.exp(-math.log(target / (1 - target)) - ACCEPT))
