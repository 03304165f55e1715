"""The spread over seeds: how much R_mem differs between trials at one N, and how much of that the subset explains.

A seed decides the subset and the latents of a trial for all configurations alike, the initialization for each configuration
anew. So what two configurations have in common at the same seed is the subset's (and the latents').
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from sweep.posterior import NOISES
from sweep.summary import StudySummary, SweepSummary

NEAR = 0.5  # in ln N from the EMM: nearer to it the curve is as good as linear in logit R_mem
MIN_SEEDS = 4  # that two configurations or more have in common


@dataclass(frozen=True)
class SeedSpread:
    """`sd` of logit R_mem between trials at one N, without the counting error of a measurement; `subset_share` of its variance
    that goes with the subset (the rest: initialization and training), with a 95 % interval by the jackknife over seeds."""

    sd: float
    subset_share: float
    low: float
    high: float
    n_seeds: int


def spread(studies: Sequence[StudySummary]) -> SeedSpread | None:
    """Of trials near the EMMs that were found; None where too few seeds are shared to tell subset from initialization.

    Variance components by moments: products of residuals of different configurations at one seed have the subset's
    variance as their mean, squares of residuals the whole.
    """
    by_seed: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for study in studies:
        for seed, residual, counting in _residuals(study):
            by_seed[seed].append((residual, counting))
    shared = [np.array(rows) for rows in by_seed.values() if len(rows) > 1]
    if len(shared) < MIN_SEEDS:
        return None
    sums = np.array([_sums(rows[:, 0], rows[:, 1]) for rows in shared])
    total, share = _share(sums)
    if total <= 0:
        return None
    left_out = np.array([_share(np.delete(sums, i, axis=0))[1] for i in range(len(sums))])
    error = 1.96 * float(np.sqrt((len(sums) - 1) / len(sums) * np.sum((left_out - left_out.mean()) ** 2)))
    low, high, share = (min(max(value, 0.0), 1.0) for value in (share - error, share + error, share))
    return SeedSpread(float(np.sqrt(total)), share, low, high, len(sums))


def _residuals(study: StudySummary) -> list[tuple[int, float, float]]:
    """(seed, residual of logit R_mem, variance of counting) of the trials near the EMM that are neither 0 nor 1."""
    belief = study.belief
    if study.verdict.state != "found" or belief is None:
        return []
    found = []
    for result in study.complete:
        distance, k, n = np.log(result.spec.n) - belief.mean, result.n_memorized, result.n_samples
        if abs(distance) <= NEAR and 0 < k < n and not result.right_censored:
            expected = logit(study.options.target) - belief.slope * distance
            found.append((result.spec.seed, float(logit(k / n) - expected), 1 / k + 1 / (n - k)))
    return found


def _sums(residuals: np.ndarray, counting: np.ndarray) -> tuple[float, float, float, float]:
    """Of one seed: sum and number of products between configurations, sum and number of squares without counting errors."""
    squares, count = np.sum(residuals**2), len(residuals)
    return (np.sum(residuals) ** 2 - squares) / 2, count * (count - 1) / 2, float(np.sum(residuals**2 - counting)), count


def _share(sums: np.ndarray) -> tuple[float, float]:
    """Variance between trials, and the subset's share of it."""
    products, pairs, squares, count = sums.sum(0)
    total = squares / count
    return float(total), float(products / pairs / total) if total > 0 else 0.0


def seed_lines(summary: SweepSummary) -> list[str]:
    """For people: every study's spread over seeds, trials at the same N, and the subset's share."""
    lines = []
    for study in summary.studies:
        if study.belief is not None and study.verdict.state == "found":
            low, high = noise_interval(study)
            noise = f"{study.belief.noise:.2f} [{low:.2f}, {high:.2f}]"
            lines.append(f"{study.name}: sd of logit R_mem between seeds {noise}{_same_n(study)}")
    if (found := spread(summary.studies)) is not None:
        lines.append(
            f"of the variance between seeds, {found.subset_share:.0%} [{found.low:.0%}, {found.high:.0%}] goes with the "
            f"subset, the rest with initialization and training ({found.n_seeds} seeds that configurations share)"
        )
    elif lines:
        lines.append("too few seeds are shared by configurations to tell the subset's part from the initialization's")
    return lines


def noise_interval(study: StudySummary) -> tuple[float, float]:
    """95 % interval of the sd of logit R_mem between seeds."""
    assert study.belief is not None
    cumulative = np.cumsum(study.belief.joint.sum((0, 1, 3)))
    low, high = (float(NOISES[min(int(np.searchsorted(cumulative, q)), len(NOISES) - 1)]) for q in (0.025, 0.975))
    return low, high


def _same_n(study: StudySummary) -> str:
    repeated = defaultdict(list)
    for result in study.complete:
        if result.r_mem is not None:
            repeated[result.spec.n].append(f"{result.r_mem:.3f}")
    return "".join(f"; N = {n}: R_mem " + " ".join(values) for n, values in sorted(repeated.items()) if len(values) > 1)
