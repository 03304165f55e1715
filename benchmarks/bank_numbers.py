"""What the bank of real trials says of curves and of noise: the tables of docs/bank.md.

    python -m benchmarks.bank_numbers

Logits are ln((k + ½) / (n − k + ½)) of k copies among n images. Counting alone gives them a variance,
which is taken off where the spread over seeds is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import skew

from benchmarks.bank import BANK, NAMES, TABLE
from benchmarks.replay import N_SAMPLES, curves_of, truth

Array = NDArray[np.float64]
GRADED = 0.1, 0.97  # means between these say how seeds differ; beyond, counting hides it


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    names = list(head)
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def counting_variance(logits: Array) -> Array:
    """Of each logit."""
    r = 1 / (1 + np.exp(-logits))
    return 1 / (N_SAMPLES * r + 0.5) + 1 / (N_SAMPLES * (1 - r) + 0.5)


def shared(values: Array) -> float:
    """Intraclass correlation of values [seeds, sizes]: the share of their variance that all sizes of
    a seed have in common, the mean of each size taken off (two-way analysis of variance; Shrout and
    Fleiss 1979, ICC(3, 1))."""
    n_seeds, n_sizes = values.shape
    residuals = values - values.mean(0)
    between = n_sizes * residuals.mean(1).var(ddof=1)
    # as many means were taken off as there are sizes
    within = residuals.var(1, ddof=1).mean() * n_seeds / (n_seeds - 1)
    return float((between - within) / (between + (n_sizes - 1) * within))


def noise_row(name: str) -> list[str]:
    curves = curves_of(name)
    mean = (1 / (1 + np.exp(-curves.logits))).mean(0)
    graded = (mean > GRADED[0]) & (mean < GRADED[1])
    logits = curves.logits[:, graded]
    residuals = logits - logits.mean(0)
    beyond = logits.var(0, ddof=1) - counting_variance(logits).mean(0)
    sd = np.sqrt(np.maximum(beyond, 0))
    near = np.argsort(abs(np.log(curves.sizes[graded] / truth(name, "mean"))))[:3]
    return [
        name,
        f"{truth(name, 'mean'):.1f}",
        f"{truth(name, 'median'):.1f}",
        f"{np.sqrt(np.mean(sd[near] ** 2)):.2f}",
        f"{sd.min():.2f} to {sd.max():.2f}",
        f"{skew(residuals / residuals.std(0), axis=None):+.2f}",
        f"{shared(logits):.2f}",
    ]


def crossed_row(name: str, n: int) -> list[str]:
    """Shares of the variance of the logit: of the subset with its latents, of the seed of the
    training, and of the two together with counting (two-way analysis of variance)."""
    trials = json.loads((BANK / f"{name}.json").read_text())["trials"]
    found = {(t["subset_seed"], t["seed"]): t["r_mem"] * N_SAMPLES for t in trials if t["n"] == n}
    subsets, seeds = ({key[i] for key in found} for i in (0, 1))
    k = np.array([[found[a, b] for b in sorted(seeds)] for a in sorted(subsets)])
    logits = np.log((k + 0.5) / (N_SAMPLES - k + 0.5))
    of_subset, of_seed = (logits.mean(axis, keepdims=True) for axis in (1, 0))
    rest = logits - of_subset - of_seed + logits.mean()
    n_a, n_b = logits.shape
    left = (rest**2).sum() / ((n_a - 1) * (n_b - 1))
    parts = [
        max(of_subset.var(ddof=1) - left / n_b, 0),
        max(of_seed.var(ddof=1) - left / n_a, 0),
        left,
    ]
    return [
        str(n),
        f"{n_a} × {n_b}",
        f"{np.sqrt(sum(parts)):.2f}",
        *(f"{part / sum(parts):.2f}" for part in parts),
        f"{counting_variance(logits).mean() / sum(parts):.2f}",
    ]


def main() -> None:
    names = NAMES
    print("R_mem after training on N images, mean over seeds\n")
    for name in names:
        curves = curves_of(name)
        r = 1 / (1 + np.exp(-curves.logits))
        rows = [(name, *(f"{value:.2f}" for value in r.mean(0)))]
        table([f"N ({len(r)} seeds)", *(f"{n:.0f}" for n in curves.sizes)], rows)
    head = ("configuration", "mean crosses at", "median crosses at", "sd of the logit near there")
    table([*head, "at all graded sizes", "skew", "shared by a seed's sizes"], map(noise_row, names))
    for name, row in TABLE.items():
        if row.crossed:
            head = ("N", "subsets × seeds", "sd", "subset", "seed", "the rest", "counting, of it")
            print(f"{name}: shares of the variance of the logit\n")
            table(head, [crossed_row(name, n) for n in row.sizes])


if __name__ == "__main__":
    main()
