"""The best that any search could do on one heavy-noise configuration among seven logistic ones: an
ideal observer.

    python benchmarks/lone_noise.py [--seed 1] [--draws 4000]

It knows the curve and its slope exactly and sees some trials of 2,000 images at EMM; what it does
not know is the noise between seeds: heavy (logit sd .5 to 1) with probability w, else that of the
logistic row (.1 to .5). Its interval is the exact posterior's. The true share is w = 1/8; a larger
w buys coverage of the noisy one with width of the others. Read in docs/search.md.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NOISES: Array = np.geomspace(0.1, 1, 41)  # of both kinds; log-uniform, as the simulation draws them
OFFSETS: Array = np.linspace(-1.5, 1.5, 601)  # of ln EMM from the truth
COUNTING = 1 / (2000 * 0.9 * 0.1)  # variance of a measured logit at R_mem = .9


def interval(crossings: Array, slope: float, heavy: float) -> tuple[float, float]:
    """95 % interval of ln EMM, given where in ln N each trial says that the curve crosses."""
    weights = np.where(
        NOISES < 0.5, (1 - heavy) / (NOISES < 0.5).sum(), heavy / (NOISES >= 0.5).sum()
    )
    sd = np.sqrt(NOISES**2 + COUNTING)[:, None] / slope
    squares = ((crossings[:, None] - OFFSETS) ** 2).sum(0)
    log_p = np.log(weights)[:, None] - len(crossings) * np.log(sd) - squares / (2 * sd**2)
    p = np.exp(log_p - log_p.max()).sum(0)
    low, high = np.interp([0.025, 0.975], np.cumsum(p) / p.sum(), OFFSETS)
    return float(low), float(high)


def observe(
    trials: int, heavy: float, noise: tuple[float, float], draws: int, seed: int
) -> tuple[float, float]:
    """(coverage, median half-width) of its intervals on configurations of slope 2 to 8 and a noise
    in this range."""
    rng = np.random.default_rng(seed)
    covered, widths = [], []
    for _ in range(draws):
        slope, g = np.exp(rng.uniform(np.log(2), np.log(8))), np.exp(rng.uniform(*np.log(noise)))
        low, high = interval(rng.normal(0, np.sqrt(g**2 + COUNTING) / slope, trials), slope, heavy)
        covered.append(low < 0 < high)
        widths.append(np.exp((high - low) / 2) - 1)
    return float(np.mean(covered)), float(np.median(widths))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draws", type=int, default=4000)
    args = parser.parse_args()
    print(
        "| trials at EMM | w | logistic: half-width % | coverage % | heavy noise: half-width % | coverage % |"
    )
    print("|---|---|---|---|---|---|")
    for trials in (2, 3, 4, 5):
        for heavy in (1 / 8, 0.3, 0.5, 0.7):
            cells = [
                observe(trials, heavy, noise, args.draws, args.seed)
                for noise in ((0.1, 0.5), (0.5, 1))
            ]
            shown = " | ".join(
                f"{100 * width:.1f} | {100 * coverage:.1f}" for coverage, width in cells
            )
            print(f"| {trials} | {heavy:.3g} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
