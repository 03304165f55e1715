"""What an EMM must be read beside: how far copies lie, how dense the data are, what half of the
training would have given.

The ⅓ rule compares two distances, so the same EMM means another thing on denser data, with a
blunter ceiling, or where the training was cut short. What half of the training would have given is
known where its first half is a training of half the length (`TrialSpec.why_no_half`); so is then
what any other part of it would have given that a snapshot ends. Figures are of the trials near the
EMM; before there is one, of all complete trials.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sweep.search.belief import Observation
from sweep.search.rules import NEAR, SURE, Options
from trainables.measure.measures import BESIDE_EMM
from trainables.trial.result import Result

# R_mem above which the median distance is that of a copy, so that it says how blurred copies are
COPYING = 0.5


class Ends(NamedTuple):
    """An EMM and its 95 % interval; outside the range of N, only the end that is known."""

    emm: float | None = None
    low: float | None = None
    high: float | None = None


UNKNOWN = Ends()


@dataclass(frozen=True)
class Scale:
    """What stands beside an EMM, from `n_trials` trials; None where nothing was measured.

    `means`: of the measures that stand there, by name; `share`: N / |D| at the EMM. `half`: the EMM
    had the training ended halfway, an approximation, since it follows from the few images of one
    snapshot. `why_no_half`: why nothing is known of it, in words, if the training can't tell; else
    "".
    """

    n_trials: int
    means: Mapping[str, float | None]
    share: float | None
    half: Ends
    why_no_half: str = ""

    def as_json(self) -> dict[str, Any]:
        """Its part of `emm report --json`: the means stand among the others."""
        half = {f"half_{name}": value for name, value in self.half._asdict().items()}
        why = {"why_no_half": self.why_no_half}
        return {"n_trials": self.n_trials, **self.means, "share": self.share, **half, **why}


def near(trials: Sequence[Result], emm: float | None) -> list[Result]:
    """The trials whose N is within e^0.5 of the EMM."""
    return [trial for trial in trials if emm and abs(math.log(trial.spec.n / emm)) <= NEAR]


def beside(complete: Sequence[Result], emm: float | None) -> list[Result]:
    """The trials whose figures stand beside an EMM: those near it; while there are none, all."""
    return near(complete, emm) or list(complete)


def copying(trials: Sequence[Result]) -> list[Result]:
    """Those of which most generated images are copies."""
    return [trial for trial in trials if trial.r_mem is not None and trial.r_mem > COPYING]


def scale_of(complete: Sequence[Result], emm: float | None, options: Options) -> Scale:
    trials = beside(complete, emm)
    asked = {"all trials": trials, "trials that copy": copying(trials)}
    means = {
        name: _mean([getattr(trial, name) for trial in asked[row.beside_emm]])
        for name, row in BESIDE_EMM.items()
        if row.beside_emm is not None
    }
    size = min((trial.data.size for trial in complete), default=None)
    why = next((trial.spec.why_no_half for trial in complete), "")  # of one configuration
    half = UNKNOWN if why else _ended_after(0.5, complete, options)
    return Scale(
        n_trials=len(trials),
        means=means,
        share=emm / size if emm and size else None,
        half=half,
        why_no_half=why,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def emm_by_length(complete: Sequence[Result], options: Options) -> dict[float, Ends]:
    """Share of the training → the EMM had all trainings ended there, for every snapshot; nothing
    where a training cut short is none of that length.

    All are of the few images of a snapshot, so the last one is not the EMM of the verdict.
    """
    if not complete or complete[0].spec.why_no_half:
        return {}
    snapshots = complete[0].measurement.snapshots or 0
    shares = [number / snapshots for number in range(1, snapshots + 1)]
    ends = {share: _ended_after(share, complete, options) for share in shares}
    return {share: one for share, one in ends.items() if one != UNKNOWN}


def _ended_after(share: float, complete: Sequence[Result], options: Options) -> Ends:
    seen = [_snapshot(trial, share) for trial in complete]
    known = [observation for observation in seen if observation is not None]
    if not known:
        return UNKNOWN
    belief = options.belief(known)
    low, high = belief.interval()
    if belief.p_below(options.low) > SURE:
        return Ends(high=high)
    if belief.p_above(options.high) > SURE:
        return Ends(low=low)
    return Ends(belief.median, low, high)


def _snapshot(trial: Result, share: float) -> Observation | None:
    """What a trial says had it ended after that share. One that was accepted before: that R_mem is
    at least what it was then."""
    number = round(share * (trial.measurement.snapshots or 0))
    curve = trial.curve[:number]
    if not curve or (len(curve) < number and not trial.right_censored):
        return None
    last, n = curve[-1], trial.spec.n
    return Observation(n, last.r_mem, last.n_samples, right_censored=len(curve) < number)
