"""What the finished trials of one study say about its EMM: a belief, as a pure function of
observations.

Model of a trial at N images, with x = ln N, m = ln EMM, z = logit R_mem:

    z ~ Normal(h(g) + c(−s·(x − m)),  g² + v + discrepancy²)

* s, slope: fall of logit R_mem per e-fold of N at EMM;
* g, trial noise: spread of logit R_mem over seeds (subset, initialization, latents);
* v, binomial variance of logit R_mem, since R_mem is counted on `n_samples` generated images;
* c, curve, with its discrepancy: see `CURVES`;
* h(g) makes EMM the N at which the *mean* of R_mem over seeds crosses the target.

R_mem near 0 or 1 only says on which side it lies (censored), and one trial in fifty means nothing
at all (a run that died, a network that collapsed). EMM has a flat prior, always; slope, noise and
curve have a `Prior`, which may be pooled over the studies of a sweep (`pool`). Everything is summed
on a grid: no sampling, no optimiser, no randomness. Evidence for the choices: docs/search.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri

Array = NDArray[np.float64]

# from 0.8 to 32: all that there were once, and older sweeps have weights on these alone
N_OLD_SLOPES = 21

SLOPES: Array = 0.8 * (32 / 0.8) ** (np.arange(-6, N_OLD_SLOPES) / (N_OLD_SLOPES - 1))  # from 0.26

N_OLD_NOISES = 9  # from 0.06 to 1.6, likewise

NOISES: Array = 0.06 * (1.6 / 0.06) ** (np.arange(10) / (N_OLD_NOISES - 1))  # to 2.4

HEAVY = 0.7  # share of configurations whose seeds are believed to disagree widely

CURVES = ("logistic", "roughly logistic", "saturating")

SHAPE = (len(CURVES), len(SLOPES), len(NOISES))

# discrepancy of the second curve, as a share of the distance s·|x − m|: far trials say little
ROUGH = 0.2

# logit R_mem far below EMM, minus that at EMM, of the third curve: mean and spread
PLATEAU = 1.1, 0.6

MARGIN = 1.0  # the grid reaches this far, in ln N, beyond both ends of the range

STEP = 0.15  # cells of a first look at the whole range …

CELLS = 96  # … and of the belief

FINE_SLOPES = 13

RULE_SEEDS, BAND_SEEDS = 9, 20  # equally likely, of a prediction: see `Belief.predict`

OUTLIER = 0.02  # share of trials that mean nothing

OUTLIER_DENSITY = {
    "graded": 0.03,
    "high": 0.02,
    "low": 0.8,
}  # where such a trial lands: mostly at R_mem = 0


@dataclass(frozen=True)
class Observation:
    """A finished trial: `r_mem` in [0, 1] of `n_samples` images, after training on `n`.

    `right_censored`: the trial was accepted early, its final R_mem is at least `r_mem`.
    Raises ValueError on anything that is not a measurement.
    """

    n: int
    r_mem: float
    n_samples: int
    right_censored: bool = False

    def __post_init__(self) -> None:
        if not self.n >= 1:
            raise ValueError(f"n = {self.n}: a trial trains on at least one image")
        if not 0 <= self.r_mem <= 1:  # also refuses nan
            raise ValueError(f"r_mem = {self.r_mem}: a memorization ratio lies in [0, 1]")
        if not self.n_samples >= 1:
            raise ValueError(
                f"n_samples = {self.n_samples}: R_mem is measured on at least one image"
            )


@dataclass(frozen=True)
class Prior:
    """Weights on `CURVES`, `SLOPES` and `NOISES`; each sums to 1. JSON: `dataclasses.asdict` and
    `Prior(**…)`.

    The 21 slopes of an older sweep are read as the upper ones of `SLOPES`, its 9 noises as the lower
    ones of `NOISES`; the others have no weight then.
    """

    curve: tuple[float, ...]
    slope: tuple[float, ...]
    noise: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, size in zip(("curve", "slope", "noise"), SHAPE, strict=True):
            weights = tuple(float(w) for w in getattr(self, name))  # JSON gives lists
            if name == "slope" and len(weights) == N_OLD_SLOPES:
                weights = (0.0,) * (size - N_OLD_SLOPES) + weights
            if name == "noise" and len(weights) == N_OLD_NOISES:
                weights = weights + (0.0,) * (size - N_OLD_NOISES)
            if (
                len(weights) != size
                or not all(w >= 0 for w in weights)
                or not math.isclose(sum(weights), 1)
            ):
                raise ValueError(f"prior: {name} needs {size} weights that sum to 1, not {weights}")
            object.__setattr__(self, name, weights)

    def on(self, slopes: Array) -> Array:
        """[curves, slopes, noises] weights, up to a factor, on other log-spaced `slopes`."""
        return _outer(
            np.array(self.curve),
            np.interp(np.log(slopes), np.log(SLOPES), self.slope),
            np.array(self.noise),
        )


def _outer(curve: Array, slope: Array, noise: Array) -> Array:
    return curve[:, None, None] * slope[:, None] * noise


def lognormal(values: Array, centre: float, spread: float) -> Array:
    """Weights of a log-normal on log-spaced `values`; `spread` is the sd of the logarithm."""
    weights: Array = np.exp(-0.5 * (np.log(values / centre) / spread) ** 2)
    weights /= weights.sum()
    return weights


def base_prior(heavy: float = HEAVY) -> Prior:
    """What is believed about a configuration of which nothing is known. `heavy`: the share of those
    whose seeds disagree widely."""
    return Prior(
        tuple(np.full(len(CURVES), 1 / len(CURVES))),
        tuple(lognormal(SLOPES, 4, 1)),
        tuple((1 - heavy) * lognormal(NOISES, 0.35, 0.5) + heavy * lognormal(NOISES, 1, 0.4)),
    )


@dataclass(frozen=True)
class Belief:
    """Belief about ln EMM on M cells, narrow where it is concentrated, and about the shape of the
    curve.

    `edges` [M + 1] of the cells, in ln N; `slopes` [S] the axis of s; `joint` [curves, S, noises,
    M] probabilities; `target` the R_mem whose crossing EMM is; `prior` of the shape, which is in
    `joint`.
    """

    edges: Array
    slopes: Array
    joint: Array
    target: float
    prior: Prior

    @property
    def ln_emm(self) -> Array:
        """[M] centres of the cells."""
        centres: Array = (self.edges[1:] + self.edges[:-1]) / 2
        return centres

    @property
    def probabilities(self) -> Array:
        """[M], sums to 1."""
        p: Array = self.joint.sum((0, 1, 2))
        return p

    @property
    def _cumulative(self) -> Array:
        return np.append(0.0, np.cumsum(self.probabilities))

    def cdf(self, n: float) -> float:
        """P(EMM < n)."""
        return float(np.interp(math.log(n), self.edges, self._cumulative))

    def quantile(self, q: float) -> float:
        """The EMM below which the belief has mass `q`."""
        return math.exp(np.interp(q, self._cumulative, self.edges))

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    def interval(self, mass: float = 0.95) -> tuple[float, float]:
        return self.quantile((1 - mass) / 2), self.quantile((1 + mass) / 2)

    @property
    def mean(self) -> float:
        """Of ln EMM."""
        return float(self.probabilities @ self.ln_emm)

    @property
    def sd(self) -> float:
        """Of ln EMM: 0.05 is about ±5 %."""
        return math.sqrt(float(self.probabilities @ (self.ln_emm - self.mean) ** 2))

    def p_below(self, low: float) -> float:
        return self.cdf(low)

    def p_above(self, high: float) -> float:
        return 1 - self.cdf(high)

    @property
    def slope(self) -> float:
        """Geometric posterior mean of s."""
        return math.exp(float(self.joint.sum((0, 2, 3)) @ np.log(self.slopes)))

    @property
    def noise(self) -> float:
        """Geometric posterior mean of g."""
        return math.exp(float(self.joint.sum((0, 1, 3)) @ np.log(NOISES)))

    def median_seed(self, mass: float = 0.95) -> tuple[float, float, float]:
        """Lower end, median and upper end of the EMM of the *median* seed: the N at which half of
        all trainings pass the target.

        EMM itself is where the mean of R_mem over seeds passes it. With a target above ½ a few bad
        seeds pull that mean down more than good ones can lift it, so it is the smaller of the two,
        and the noisier the seeds the further apart they lie.
        """
        # where c(−s·d) makes up for what h(g) is above the target
        short = _crossing(self.target) - float(logit(self.target))
        d = np.stack([short, short, _plateau_distance(short)])[:, None, :, None]
        ln_n = (self.ln_emm + d / self.slopes[:, None, None]).ravel()
        order = np.argsort(ln_n)
        levels = [(1 - mass) / 2, 0.5, (1 + mass) / 2]
        low, middle, high = np.interp(levels, np.cumsum(self.joint.ravel()[order]), ln_n[order])
        return math.exp(low), math.exp(middle), math.exp(high)

    def noise_quantile(self, q: float) -> float:
        """The g below which its *likelihood* has the share `q`, over the log-spaced range of
        `NOISES`.

        A handful of trials says little of g, so that its prior would make most of an interval, and
        too narrow a one: it is divided out. The weight of each of `NOISES` is spread evenly, in ln
        g, half-way to its neighbours.
        """
        prior = np.array(self.prior.noise)
        likelihood = np.where(prior > 0, self.joint.sum((0, 1, 3)) / np.maximum(prior, 1e-300), 0.0)
        half = math.log(NOISES[1] / NOISES[0]) / 2
        edges = np.append(np.log(NOISES) - half, math.log(NOISES[-1]) + half)
        return math.exp(
            np.interp(q, np.append(0.0, np.cumsum(likelihood / likelihood.sum())), edges)
        )

    def predict(
        self, n: Sequence[float] | Array, seeds: int = RULE_SEEDS
    ) -> tuple[Array, Array, Array]:
        """Mean and 2.5 % / 97.5 % band of R_mem of one more trial at each of `n` [J], counting
        errors left out.

        seeds: how many stand for all. No band reaches beyond the outermost: of 9 these lie at 1.59
        sd, so that it holds 89 % of trials where the curve is known; of 20 at 1.96 sd.
        """
        z, variance = self.logits(n, 400)
        deviates = ndtri((np.arange(seeds) + 0.5) / seeds)[:, None, None]
        z = z + deviates * np.sqrt(variance)
        r = expit(z).reshape(-1, z.shape[-1])
        low, high = np.quantile(r, [0.025, 0.975], axis=0)
        return r.mean(0), low, high

    def logits(self, n: Sequence[float] | Array, cases: int) -> tuple[Array, Array]:
        """[cases, J] mean of logit R_mem at each of `n` [J], and its variance over seeds, counting
        errors left out, in so many equally likely cases of (curve, slope, noise, EMM), in the order of
        their EMM."""
        by_emm = np.moveaxis(self.joint, -1, 0)
        mass = np.cumsum(by_emm.ravel())
        # systematic resampling: no randomness
        chosen = np.searchsorted(mass, (np.arange(cases) + 0.5) / cases * mass[-1])
        m, curve, i, j = np.unravel_index(chosen, by_emm.shape)
        s_d = self.slopes[i, None] * (np.log(np.asarray(n, float)) - self.ln_emm[m, None])
        offset, discrepancy = (a[curve, np.arange(cases)] for a in _curves(s_d))
        return _crossing(self.target)[j, None] + offset, NOISES[j, None] ** 2 + discrepancy


def belief(
    observations: Sequence[Observation],
    low: float,
    high: float,
    target: float = 0.9,
    prior: Prior | None = None,
) -> Belief:
    """Belief about the EMM after `observations`, flat in ln EMM on the range [low, high] and a
    little beyond it.

    The order of the observations does not matter. Raises ValueError unless 1 ≤ low < high and 0 <
    target < 1.
    """
    if not 1 <= low < high:
        raise ValueError(f"range of N: 1 <= low < high is needed, not low = {low}, high = {high}")
    if not 0 < target < 1:
        raise ValueError(f"target = {target}: an R_mem strictly between 0 and 1 is needed")
    prior = prior or base_prior()
    first = _first_look(observations, low, high, target, prior)
    # Slopes between the extremes that are still likely: a curve's slope is soon known better than
    # the spacing of SLOPES.
    p = first.joint.sum((0, 2, 3))
    likely = np.flatnonzero((np.cumsum(p) > 1e-3) & (np.cumsum(p) - p < 1 - 1e-3))
    ends = first.slopes[max(likely[0] - 1, 0)], first.slopes[min(likely[-1] + 1, len(p) - 1)]
    return _on_cells(
        observations, _equal_mass(first), np.geomspace(*ends, FINE_SLOPES), target, prior
    )


def _first_look(
    observations: Sequence[Observation], low: float, high: float, target: float, prior: Prior
) -> Belief:
    """Belief on equal cells, good enough to see where narrow ones are needed."""
    left, right = math.log(low) - MARGIN, math.log(high) + MARGIN
    edges = np.linspace(left, right, math.ceil((right - left) / STEP) + 1)
    return _on_cells(observations, edges, SLOPES[::2], target, prior)


def _equal_mass(first: Belief) -> Array:
    """[CELLS + 1] edges of cells of equal mass under the blurred `first`, a third evenly spread in
    case it misleads."""
    p = np.convolve(first.probabilities, [0.25, 0.5, 0.25], "same")
    p = 2 / 3 * p / p.sum() + 1 / 3 / len(p)
    edges: Array = np.interp(
        np.linspace(0, 1, CELLS + 1), np.append(0.0, np.cumsum(p)), first.edges
    )
    return edges


def _on_cells(
    observations: Sequence[Observation], edges: Array, slopes: Array, target: float, prior: Prior
) -> Belief:
    joint = (
        np.diff(edges)
        * prior.on(slopes)[..., None]
        * _likelihood(observations, edges, slopes, target)
    )
    return Belief(edges, slopes, joint / joint.sum(), target, prior)


def _likelihood(
    observations: Sequence[Observation], edges: Array, slopes: Array, target: float
) -> Array:
    """[curves, S, noises, M] likelihood, up to a factor, of all observations on M cells of ln
    EMM."""
    (z_low, z_high), h = graded(target), _crossing(target).astype(np.float32)[:, None]
    s, m, width = slopes[:, None, None], (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    # s·m varies by s·Δ within a cell of width Δ: without it, spikes of steep curves fall between
    # the centres.
    spread = (NOISES[:, None] ** 2 + (s * width) ** 2 / 12).astype(np.float32)  # [S, noises, M]
    product = np.ones((len(CURVES), *spread.shape))
    # in one order, so that the sums are the same whatever order they come in
    ordered = sorted(observations, key=lambda o: (o.n, o.r_mem, o.n_samples, o.right_censored))
    for o in ordered:
        k = o.r_mem * o.n_samples
        z = min(max(math.log((k + 0.5) / (o.n_samples - k + 0.5)), z_low), z_high)
        r = float(expit(z))
        v = counting_variance(r, o.n_samples)
        # single precision: twice as fast
        offset, discrepancy = _curves((s * (math.log(o.n) - m)).astype(np.float32))
        weight = 1 / (discrepancy + (spread + v))
        u = np.sqrt(weight) * (z - h - offset)
        has_logit = 0 < k < o.n_samples  # no copy, or nothing else, has none
        if has_logit and z_low < z < z_high and not o.right_censored:
            p = np.sqrt(weight / (2 * math.pi)) * np.exp(-0.5 * u**2)
            floor = OUTLIER_DENSITY["graded"]
        else:
            above = z >= z_high or k >= o.n_samples or o.right_censored
            p = ndtr(-u if above else u)
            floor = OUTLIER_DENSITY["high" if above else "low"]
        product *= (1 - OUTLIER) * p + OUTLIER * floor
        product /= product.max()  # hundreds of trials do not underflow
    return product


def graded(target: float) -> tuple[float, float]:
    """The logits between which the value of an R_mem counts, and not only its side: of target .9 those
    of .047 and .994."""
    h0 = float(logit(target))
    return min(-3.0, h0 - 2), max(3.0, h0 + 3)


def counting_variance(r: Any, n_samples: int) -> Any:
    """Of the logit of an R_mem whose true value is `r`, counted on `n_samples` images."""
    return 1 / (n_samples * r + 0.5) + 1 / (n_samples * (1 - r) + 0.5)


def _curves(s_d: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What each of `CURVES` adds to logit R_mem at distance `s_d` = s·(x − m), and its
    discrepancy²: [curves, *s_d]."""
    rough = (ROUGH * s_d) ** 2
    level, spread = PLATEAU
    # logit of A·sigmoid, for the A of that level
    plateau = -np.logaddexp(math.log(-math.expm1(-level)) + s_d, -level)
    offset = np.stack([-s_d, -s_d, plateau])
    discrepancy = np.stack(
        [np.zeros_like(s_d), rough, np.where(s_d < 0, (spread * plateau / level) ** 2, rough)]
    )
    return offset, discrepancy


def _plateau_distance(short: Array) -> Array:
    """The s·d at which the third curve is `short` below its logit at EMM; it never is as far above
    it as the plateau."""
    level, _ = PLATEAU
    left = np.exp(np.maximum(short, -0.95 * level)) - math.exp(-level)
    distance: Array = np.log(left / -math.expm1(-level))
    return distance


@lru_cache(maxsize=64)
def _crossing(target: float) -> Array:
    """h(g) [noises]: the mean over z ~ Normal(0, 1) of sigmoid(h + g·z) is `target`."""
    z, w = np.polynomial.hermite_e.hermegauss(40)
    left, right = np.full(len(NOISES), -50.0), np.full(len(NOISES), 50.0)
    for _ in range(60):
        h = (left + right) / 2
        below = expit(h[:, None] + NOISES[:, None] * z) @ w / w.sum() < target
        left, right = np.where(below, h, left), np.where(below, right, h)
    crossing: Array = h
    return crossing


def shape_likelihood(
    observations: Sequence[Observation], low: float, high: float, target: float = 0.9
) -> Array:
    """[curves, slopes, noises] likelihood of the shape alone, EMM summed out: what a study adds to
    `pool`."""
    edges = _equal_mass(_first_look(observations, low, high, target, base_prior()))
    table: Array = _likelihood(observations, edges, SLOPES, target) @ np.diff(edges)
    table /= table.max()
    return table
