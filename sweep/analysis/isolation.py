"""Who is copied: whether a study's models copy isolated training images more often than others, or
less.

Each trial says how the number of copies of a training image goes with its distance to the nearest
other one (Spearman's ρ, see `trainables.measure.measures`). The rule itself sees copies of isolated
images better, so ρ stands beside that of a model that copies all images alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from trainables.measure.r_mem import Floats
from trainables.trial.result import Result

SPEARMAN = 1.06  # (n − 3) × variance of artanh ρ (Fieller, Hartley and Pearson 1957)
MOST = 1 - 1e-9  # of |ρ|, whose artanh is finite


@dataclass(frozen=True)
class Isolation:
    """ρ of `n_trials` trials with `n_images` training images together, and its 95 % interval;
    `p_permuted`: how often |ρ| would be as large were the copies dealt to the images at random;
    even, even_low, even_high: the same ρ, were all images copied alike, None if that is not
    known."""

    rho: float
    low: float
    high: float
    p_permuted: float
    even: float | None
    even_low: float | None
    even_high: float | None
    n_trials: int
    n_images: int


def isolation_of(copying: Sequence[Result]) -> Isolation | None:
    """Of trials that mostly copy; None if none of them knows its ρ."""
    rho, images = _known(copying, "isolation_rho")
    if not len(rho):
        return None
    low, middle, high = pooled(rho, images)
    even, of_even = _known(copying, "isolation_rho_even")
    even_low, even_middle, even_high = pooled(even, of_even) if len(even) else (None, None, None)
    return Isolation(
        rho=middle,
        low=low,
        high=high,
        p_permuted=p_permuted(rho, images),
        even=even_middle,
        even_low=even_low,
        even_high=even_high,
        n_trials=len(rho),
        n_images=int(images.sum()),
    )


def _known(trials: Sequence[Result], name: str) -> tuple[Floats, Floats]:
    """A correlation of each trial that knows it, and the number of its images: [any] each."""
    pairs = [
        (getattr(trial, name), trial.isolation_images)
        for trial in trials
        if getattr(trial, name) is not None and (trial.isolation_images or 0) > 3
    ]
    rho, images = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return rho, images


def pooled(rho: Floats, images: Floats) -> tuple[float, float, float]:
    """The correlation of all trials together, between the ends of its 95 % interval: [any] each.

    The mean of artanh ρ, weighted by the images of each trial. Its error is the larger of what the
    trials' own errors say, and of what their spread says, which few trials tell roughly (Student's
    t; Hartung and Knapp 2001).
    """
    weights = (images - 3) / SPEARMAN
    z = np.arctanh(rho.clip(-MOST, MOST))
    mean = np.average(z, weights=weights)
    half, freedom = ndtri(0.975), len(z) - 1
    if freedom:
        spread = (weights * (z - mean) ** 2).sum() / freedom
        half = max(half, stdtrit(freedom, 0.975) * np.sqrt(spread))
    half /= np.sqrt(weights.sum())
    low, middle, high = np.tanh([mean - half, mean, mean + half]).tolist()
    return low, middle, high


def p_permuted(rho: Floats, images: Floats) -> float:
    """How often the sum of (n − 1)·ρ over trials is as far from 0 if in each of them the copies are
    dealt to its n images at random: ρ then has mean 0 and variance 1 / (n − 1), whatever ties there
    are, and the sum is close to normal."""
    z = ((images - 1) * rho).sum() / np.sqrt((images - 1).sum())
    return float(2 * ndtr(-abs(z)))
