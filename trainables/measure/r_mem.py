"""The rule of memorization, and its ratio R_mem with its interval. No torch.

A generated image x is memorized if ‖x − NN1‖₂ < k ‖x − NN2‖₂ with its nearest and second nearest
training images, k = 1/3 (Gu et al. 2023, arXiv 2310.02664).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Neighbours:
    """The two nearest training images of n generated ones.

    d1 <= d2: [n] float64, L2 distances in pixel values (0–255); i1, i2: [n] int64, positions in the
    training set.
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
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("d1", "d2", "i1", "i2")
            )
        )

    def at(self, index: slice | NDArray[np.bool_] | Ints) -> "Neighbours":
        return Neighbours(self.d1[index], self.d2[index], self.i1[index], self.i2[index])

    def r_mem(self, k: float = 1 / 3) -> float:
        return float(self.memorized(k).mean())


# images between two looks at whether they suffice: a constant, so that no batch size changes a
# result
LOOK_EVERY = 250


def n_sufficient(memorized: NDArray[np.bool_], n_samples: int, logit_se: float) -> int | None:
    """How many of the samples drawn so far are enough: the first multiple of LOOK_EVERY at which
    logit R_mem has the standard error `logit_se`, or `n_samples`; None if more are needed."""
    for n in range(LOOK_EVERY, min(len(memorized), n_samples) + 1, LOOK_EVERY):
        k = int(memorized[:n].sum())
        if math.sqrt(1 / (k + 0.5) + 1 / (n - k + 0.5)) <= logit_se:
            return n
    return n_samples if len(memorized) >= n_samples else None


def r_mem_interval(n_memorized: int, n_samples: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson interval (Wilson 1927) of a memorization ratio: the sampling noise of one trial (not
    of its seed)."""
    z = float(ndtri(0.5 + 0.5 * level))
    ratio = n_memorized / n_samples
    scale = 2 * (n_samples + z**2)
    centre = (2 * n_samples * ratio + z**2) / scale
    half = z / scale * math.sqrt(4 * n_samples * ratio * (1 - ratio) + z**2)
    # what is 0 or 1 exactly is not rounded past it
    low = centre - half if n_memorized else 0.0
    high = centre + half if n_memorized < n_samples else 1.0
    return low, high
