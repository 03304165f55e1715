"""When copying sets in: after how many images R_mem first reaches a level, and how that grows with N.

Bonnaire et al. (arXiv 2505.17638) and Favero et al. (arXiv 2505.16959) find τ ∝ N. An onset τ is
read from the snapshots of a trial, so that older results tell it too. Between two snapshots it is
interpolated: the logit of R_mem, of counts + ½, is taken as linear in the logarithm of the images.
Of a trial that is there at its first snapshot, or at none, only a bound is known, and the fit takes
it as one (Tobin 1958). Where the learning rate decays, an onset is one of that schedule: it may be
the low rate that lets R_mem rise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logit, stdtrit

from trainables.trial.result import Result, Snapshot

Array = NDArray[np.float64]

LEVELS = (0.5, 0.9)  # of R_mem

# "at": known; "before": at most, for the first snapshot has it; "after": at least, for none has it
Side = Literal["at", "before", "after"]

# what is said of the onset of a trial at each level; the last three in their units
NUMBERS = {
    level: tuple(
        f"{name}_{100 * level:.0f}" for name in ("onset", "images_to", "epochs_to", "steps_to")
    )
    for level in LEVELS
}

# ---------------------------------------------------------------- of one trial


@dataclass(frozen=True)
class Onset:
    """Images trained until R_mem first reached a level, or a bound of them."""

    images: float
    side: Side


def onset_of(curve: Sequence[Snapshot], level: float) -> Onset | None:
    """None without a snapshot of a training; a closed-form optimum has none."""
    trained = [snapshot for snapshot in curve if snapshot.images_trained]
    if not trained:
        return None
    first = next((i for i, one in enumerate(trained) if one.r_mem >= level), None)
    if first is None:
        return Onset(trained[-1].images_trained, "after")
    if first == 0:
        return Onset(trained[0].images_trained, "before")
    around = trained[first - 1 : first + 1]
    # of few samples, counts + ½ may put the level outside of the two: then it is the nearer one
    ln_images = np.interp(
        logit(level), [*map(_logit, around)], [math.log(one.images_trained) for one in around]
    )
    return Onset(math.exp(ln_images), "at")


def _logit(snapshot: Snapshot) -> float:
    copies = snapshot.r_mem * snapshot.n_samples
    return math.log((copies + 0.5) / (snapshot.n_samples - copies + 0.5))


def onset_numbers(result: Result) -> dict[str, float | Side | None]:
    """By the names in NUMBERS; None where nothing is known, as of a trial that failed."""
    numbers: dict[str, float | Side | None] = {}
    for level, names in NUMBERS.items():
        onset = onset_of(result.curve, level) if result.complete else None
        numbers |= dict.fromkeys(names)
        if onset is not None:
            sizes = (1, result.spec.n, result.configuration.trainer.batch)
            values = (onset.side, *(onset.images / size for size in sizes))
            numbers |= zip(names, values, strict=True)
    return numbers


# ---------------------------------------------------------------- over N

Form = Literal["proportional", "affine", "power"]

LEAST_SD = 0.01  # of ln τ around a law: interpolation alone errs by that

WIDE = 50.0  # no logarithm of images, or exponent, is so large
LARGEST = 700.0  # nor that of a, extrapolated to N = 1, of which a float can hold the exponential

TOLD_APART = 2.0  # AICc by which a law must be better than another


@dataclass(frozen=True)
class Estimate:
    """With its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Law:
    """τ = aN ("proportional"), a + bN ("affine"; a in images, b in epochs) or aN^b ("power"), as
    fitted.

    `sd`: of ln τ between trials of one N, as the known ones tell by their degrees of freedom; `aicc`:
    Akaike's criterion for few trials, the lower the better.
    """

    form: Form
    a: Estimate
    b: Estimate | None
    sd: float
    aicc: float


@dataclass(frozen=True)
class Growth:
    """How the onset at one level grows with N: the numbers of trials by what is known of theirs,
    and the laws that these can tell, by form."""

    level: float
    counts: Mapping[Side, int]
    laws: Mapping[Form, Law]

    @property
    def preferred(self) -> list[Form]:
        """The form of the lowest AICc, and those that can't be told from it."""
        ranked = sorted(self.laws.values(), key=lambda law: law.aicc)
        return [law.form for law in ranked if law.aicc < ranked[0].aicc + TOLD_APART]

    @property
    def exponent(self) -> Estimate | None:
        """b of the power law, if it was fitted."""
        power = self.laws.get("power")
        return None if power is None else power.b

    def as_json(self) -> dict[str, Any]:
        """Its part of `emm report --json`."""
        return {
            "level": self.level,
            **{str(side): count for side, count in self.counts.items()},
            "preferred": self.preferred,
            "laws": {form: asdict(law) for form, law in self.laws.items()},
        }


def growth_of(results: Sequence[Result], level: float) -> Growth:
    """Over the complete trials of a study."""
    onsets = [(r.spec.n, onset_of(r.curve, level)) for r in results if r.complete]
    known = [(n, onset) for n, onset in onsets if onset is not None]
    counts = {side: sum(onset.side == side for _, onset in known) for side in SIGNS}
    n = np.array([n for n, _ in known], dtype=float)
    ln_tau = np.log([onset.images for _, onset in known])
    sign = np.array([SIGNS[onset.side] for _, onset in known])
    fits = [_fit(form, n, ln_tau, sign) for form in FORMS]
    return Growth(level, counts, {law.form: law for law in fits if law is not None})


# of z in the probability of a bound: Φ(z) of one from above, Φ(−z) of one from below
SIGNS: dict[Side, int] = {"at": 0, "before": 1, "after": -1}


def _proportional(p: Array, n: Array) -> tuple[Array, Array]:
    return p[0] + np.log(n), np.ones((1, len(n)))


def _affine(p: Array, n: Array) -> tuple[Array, Array]:
    """The parameters are ln τ at the smallest and at the largest N, so that τ is positive whatever
    they are."""
    along = (n - n.min()) / np.ptp(n)
    parts = np.stack([1 - along, along]) * np.exp(p)[:, None]
    return np.log(parts.sum(0)), parts / parts.sum(0)


def _power(p: Array, n: Array) -> tuple[Array, Array]:
    slopes = np.stack([np.ones_like(n), np.log(n)])
    return p @ slopes, slopes


# form → from its parameters [p] and N [trials]: ln τ, and its slopes by the parameters [p, trials]
FORMS: dict[Form, Callable[[Array, Array], tuple[Array, Array]]] = {
    "proportional": _proportional,
    "affine": _affine,
    "power": _power,
}


def _fit(form: Form, n: Array, ln_tau: Array, sign: Array) -> Law | None:
    """By maximum likelihood, ln τ being normal around the law. n, ln_tau and sign are [trials].

    None if too few onsets are known for its AICc, those of one N alone, or of so nearly one that a
    parameter could be anything; bounds do not count there. Intervals follow from the observed
    information, with the n − p degrees of freedom of the known ones: without bounds, they are those
    of least squares where a law is linear in ln N.
    """
    from scipy.optimize import minimize  # which takes a fifth of a second to import

    is_known, p = sign == 0, 1 if form == "proportional" else 2
    count = int(is_known.sum())
    if count < p + 3 or len(np.unique(n[is_known])) < 2:
        return None

    def loss(parameters: Array) -> tuple[float, Array]:
        """−ln likelihood and its gradient; the last parameter is ln sd."""
        ln_sd = parameters[p]
        fitted, slopes = FORMS[form](parameters[:p], n)
        z = (ln_tau - fitted) * math.exp(-ln_sd)
        ln_density, ln_tail = -0.5 * z**2 - 0.5 * math.log(2 * math.pi), log_ndtr(sign * z)
        pull = np.where(is_known, z, -sign * np.exp(ln_density - ln_tail))  # by z
        likelihood = np.where(is_known, ln_density - ln_sd, ln_tail).sum()
        gradient = np.append(-slopes @ pull * math.exp(-ln_sd), count - pull @ z)
        return -float(likelihood), gradient

    start = [*_start(form, n, ln_tau), math.log(0.3)]
    most = np.array([LARGEST, WIDE] if form == "power" else [WIDE] * p)
    bounds = [*zip(-most, most, strict=True), (math.log(LEAST_SD), WIDE)]
    # not by L-BFGS-B: in SciPy 1.17 its threads take a hundred times as long
    tight: Any = {"ftol": 1e-12}
    best = minimize(loss, start, jac=True, method="SLSQP", bounds=bounds, options=tight)
    sd = math.exp(best.x[p])
    free = p + int(sd > 1.01 * LEAST_SD)  # a spread that is held at its least is not
    information = _hessian(loss, best.x)[:free, :free]
    cov = np.linalg.pinv(information)[:p, :p] * count / (count - p)
    reach = float(stdtrit(count - p, 0.975))
    if np.any(abs(best.x[:p]) + reach * np.sqrt(np.diag(cov)) >= most):
        return None
    a, b = _estimates(form, best.x[:p], cov, reach, n)
    k, unbiased = p + 1, sd * math.sqrt(count / (count - p))
    aicc = 2 * best.fun + 2 * k + 2 * k * (k + 1) / (count - k - 1)
    return Law(form, a, b, unbiased, float(aicc))


def _start(form: Form, n: Array, ln_tau: Array) -> Array:
    """As if all bounds were onsets."""
    if form == "proportional":
        return np.array([np.mean(ln_tau - np.log(n))])
    slope, level = np.polyfit(np.log(n), ln_tau, 1)
    if form == "power":
        return np.array([level, slope])
    return np.array([level + slope * math.log(end) for end in (n.min(), n.max())])


def _hessian(loss: Callable[[Array], tuple[float, Array]], at: Array, step: float = 1e-4) -> Array:
    """By central differences of the gradient."""
    steps = step * np.eye(len(at))
    rows = np.array([loss(at + i)[1] - loss(at - i)[1] for i in steps]) / (2 * step)
    hessian: Array = (rows + rows.T) / 2
    return hessian


def _estimates(
    form: Form, values: Array, cov: Array, reach: float, n: Array
) -> tuple[Estimate, Estimate | None]:
    """a and b, from the parameters [p] of a form and their covariance; `reach`: of the intervals,
    in standard deviations. Those of a line follow from its ends by linear propagation."""
    if form == "affine":
        of_ends = np.linalg.inv([[1, n.min()], [1, n.max()]])
        slopes = of_ends * np.exp(values)
        values, cov = of_ends @ np.exp(values), slopes @ cov @ slopes.T
    reaches = reach * np.sqrt(np.diag(cov))
    ends = np.stack([values, values - reaches, values + reaches], axis=1)
    if form != "affine":  # ln a
        ends[0] = np.exp(ends[0])
    a, *b = (Estimate(*row) for row in ends.tolist())
    return a, (b[0] if b else None)
