"""Who is copied: whether a study's models copy isolated training images more often than others, or
less.

Each trial says how the number of copies of a training image goes with its distance to the nearest
other one (Spearman's ρ, see `trainables.measure.measures`). The rule itself sees copies of isolated
images better, so ρ stands beside that of a model that copies all images alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from trainables.trial.result import Result

SPEARMAN = 1.06  # (n − 3) × variance of artanh ρ (Fieller, Hartley and Pearson 1957)
MOST = 1 - 1e-9  # of |ρ|, whose artanh is finite


@dataclass(frozen=True)
class Isolation:
    """ρ of `n_trials` trials with `n_images` training images together, its 95 % interval, and
    `p_permuted`: how often |ρ| would be as large were the copies dealt to the images at random;
    rho_even: ρ, were all images copied alike, None if that was not measured."""

    rho: float
    low: float
    high: float
    p_permuted: float
    rho_even: float | None
    n_trials: int
    n_images: int


def isolation_of(copying: Sequence[Result]) -> Isolation | None:
    """Of trials that mostly copy; None if none of them knows its ρ.

    Trials are weighted by their images, on the scale of artanh ρ. Where they differ by more than
    their own errors say, the interval is widened by as much (Birge 1932).
    """
    known = [
        (trial.isolation_rho, trial.isolation_images, trial.isolation_rho_even)
        for trial in copying
        if trial.isolation_rho is not None and (trial.isolation_images or 0) > 3
    ]
    if not known:
        return None
    rho, images = (
        np.array(column, dtype=np.float64) for column in list(zip(*known, strict=True))[:2]
    )
    weights = (images - 3) / SPEARMAN
    z = np.arctanh(rho.clip(-MOST, MOST))
    mean = np.average(z, weights=weights)
    spread = (weights * (z - mean) ** 2).sum() / max(1, len(z) - 1)
    half = ndtri(0.975) * np.sqrt(max(1.0, spread) / weights.sum())
    low, middle, high = np.tanh([mean - half, mean, mean + half])
    even = [value for _, _, value in known if value is not None]
    return Isolation(
        rho=float(middle),
        low=float(low),
        high=float(high),
        p_permuted=p_permuted(rho, images),
        rho_even=sum(even) / len(even) if even else None,
        n_trials=len(known),
        n_images=int(images.sum()),
    )


def p_permuted(rho: NDArray[np.float64], images: NDArray[np.float64]) -> float:
    """How often the sum of (n − 1)·ρ over trials is as far from 0 if in each of them the copies are
    dealt to its n images at random: ρ then has mean 0 and variance 1 / (n − 1), whatever ties there
    are, and the sum is close to normal."""
    z = ((images - 1) * rho).sum() / np.sqrt((images - 1).sum())
    return float(2 * ndtr(-abs(z)))
