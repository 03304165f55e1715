"""What an EMM must be read beside: how far copies lie, how dense the data are, what half of the
training would have given.

The ⅓ rule compares two distances, so the same EMM means another thing on denser data, with a
blunter ceiling, or where the training was cut short. What half of the training would have given is
known where its first half is a training of half the length (`TrialSpec.why_no_half`). Figures are
of the trials near the EMM; before there is one, of all complete trials.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweep.search.belief import Observation
from sweep.search.rules import NEAR, SURE, Options
from trainables.trial.result import Result

MEANS = ("median_d1", "nn_distance", "null_rate", "ceiling")
# R_mem above which the median distance is that of a copy, so that it says how blurred copies are
COPYING = 0.5


@dataclass(frozen=True)
class Scale:
    """Means over `n_trials` trials; None where nothing was measured.

    `median_d1`: median distance of generated images to their nearest training image; `nn_distance`:
    median distance of a training image to its nearest other one (both L2, pixel values 0–255);
    `null_rate`: share of held-out images that the rule calls memorized; `ceiling`: R_mem of the
    closed-form optimum; `noisy_copier`: of copies of the training images with so much noise that
    they lie at median d1, of those trials that mostly copy; `share`: N / |D| at the EMM. `half_emm`
    and its interval: the EMM had the training ended halfway, an approximation, since it follows
    from the few images of one snapshot; an end is None where the trials do not bound it.
    `why_no_half`: why all three are None, in words, if the training can't tell; else "".
    """

    n_trials: int
    median_d1: float | None
    nn_distance: float | None
    null_rate: float | None
    ceiling: float | None
    noisy_copier: float | None
    share: float | None
    half_emm: float | None
    half_low: float | None
    half_high: float | None
    why_no_half: str = ""


def near(trials: Sequence[Result], emm: float | None) -> list[Result]:
    """The trials whose N is within e^0.5 of the EMM."""
    return [trial for trial in trials if emm and abs(math.log(trial.spec.n / emm)) <= NEAR]


def scale_of(complete: Sequence[Result], emm: float | None, options: Options) -> Scale:
    trials = near(complete, emm) or list(complete)
    means = {name: _mean([getattr(trial, name) for trial in trials]) for name in MEANS}
    copier = _mean([t.noisy_copier for t in trials if t.r_mem is not None and t.r_mem > COPYING])
    size = min((trial.data.size for trial in complete), default=None)
    why = next((trial.spec.why_no_half for trial in complete), "")  # of one configuration
    half_emm, low, high = (None, None, None) if why else _half(complete, options)
    return Scale(
        n_trials=len(trials),
        median_d1=means["median_d1"],
        nn_distance=means["nn_distance"],
        null_rate=means["null_rate"],
        ceiling=means["ceiling"],
        noisy_copier=copier,
        share=emm / size if emm and size else None,
        half_emm=half_emm,
        half_low=low,
        half_high=high,
        why_no_half=why,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _half(
    complete: Sequence[Result], options: Options
) -> tuple[float | None, float | None, float | None]:
    """EMM at half of the training and its 95 % interval; outside the range of N, only the end that
    is known."""
    measured = [
        (t.spec.n, t.r_mem_half, t.measurement.n_selection)
        for t in complete
        if t.r_mem_half is not None
    ]
    if not measured:
        return None, None, None
    belief = options.belief([Observation(n, r_mem, n_samples) for n, r_mem, n_samples in measured])
    low, high = belief.interval()
    if belief.p_below(options.low) > SURE:
        return None, None, high
    if belief.p_above(options.high) > SURE:
        return None, low, None
    return belief.median, low, high
