"""How much of what a model generates is copied: exact nearest neighbours, R_mem, its interval.

A generated image x is memorized if ‖x − NN1‖₂ < k ‖x − NN2‖₂ with its nearest and second nearest training images, k = 1/3
(Gu et al. 2023, arXiv 2310.02664). Everything is computed on uint8 pixels, so a copy is at distance exactly 0; of exact
duplicates in the training set neither can be told to be *the* source, so their copies never count (d1 = d2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Neighbours:
    """The two nearest training images of n generated ones.

    d1 <= d2: [n] float64, L2 distances in pixel values (0–255); i1, i2: [n] int64, positions in the training set.
    """

    d1: Floats
    d2: Floats
    i1: Ints
    i2: Ints

    def memorized(self, k: float = 1 / 3) -> NDArray[np.bool_]:
        """[n] bool: d1 < k·d2."""
        return self.d1 < k * self.d2

    @classmethod
    def joined(cls, parts: Sequence["Neighbours"]) -> "Neighbours":
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("d1", "d2", "i1", "i2")))

    def first(self, n: int) -> "Neighbours":
        return Neighbours(self.d1[:n], self.d2[:n], self.i1[:n], self.i2[:n])

    def r_mem(self, k: float = 1 / 3) -> float:
        return float(self.memorized(k).mean())


def nearest_two(samples: Tensor, training: Tensor, device: torch.device | None = None, max_bytes: int = 2**28) -> Neighbours:
    """Exact nearest and second nearest training image of each sample, by L2; among equal distances any one.

    samples [n, C, R, R] uint8, training [N >= 2, C, R, R] uint8. The squares are integers below 2⁵³, so the expansion
    ‖x‖² − 2⟨x, y⟩ + ‖y‖² is exact in float64. Needs about `max_bytes` of memory, whatever n and N are.
    """
    assert samples.dtype == training.dtype == torch.uint8, "distances are defined on uint8 pixels"
    assert len(training) >= 2, "a second nearest training image is needed"
    pixels = training[0].numel()
    chunk = max(2, int(max_bytes / (8 * (2 * pixels + 5 * 1024))))  # their pixels, and what 1,024 samples need
    nearest = []
    rows = min(chunk, 1024)
    for first in range(0, len(samples), rows):
        x = samples[first : first + rows].flatten(1).to(device, torch.float64)
        best = torch.full((len(x), 2), torch.inf, dtype=torch.float64, device=device)
        where = torch.zeros((len(x), 2), dtype=torch.int64, device=device)
        for start in range(0, len(training), chunk):
            y = training[start : start + chunk].flatten(1).to(device, torch.float64)
            squares = x.square().sum(1)[:, None] - 2 * x @ y.T + y.square().sum(1)[None, :]
            indices = torch.arange(start, start + len(y), device=device).expand(len(x), -1)
            best, order = torch.cat([best, squares], 1).topk(2, dim=1, largest=False)
            where = torch.cat([where, indices], 1).gather(1, order)
        nearest.append((np.sqrt(best.cpu().numpy()), where.cpu().numpy()))  # numpy rounds roots correctly, on any machine
    distance, index = (np.concatenate(parts) for parts in zip(*nearest, strict=True))
    return Neighbours(distance[:, 0], distance[:, 1], index[:, 0], index[:, 1])


LOOK_EVERY = 250  # images between two looks at whether they suffice: a constant, so that no batch size changes a result


def n_sufficient(memorized: NDArray[np.bool_], n_samples: int, logit_se: float) -> int | None:
    """How many of the samples drawn so far are enough: the first multiple of LOOK_EVERY at which logit R_mem has the
    standard error `logit_se`, or `n_samples`; None if more are needed."""
    for n in range(LOOK_EVERY, min(len(memorized), n_samples) + 1, LOOK_EVERY):
        k = int(memorized[:n].sum())
        if math.sqrt(1 / (k + 0.5) + 1 / (n - k + 0.5)) <= logit_se:
            return n
    return n_samples if len(memorized) >= n_samples else None


def r_mem_interval(n_memorized: int, n_samples: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson interval of a memorization ratio: the sampling noise of one trial (not of its seed)."""
    interval = binomtest(n_memorized, n_samples).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)
