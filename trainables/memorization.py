"""How much of what a model generates is copied: exact nearest neighbours, R_mem, its interval.

A generated image x is memorized if ‖x − NN1‖₂ < k ‖x − NN2‖₂ with its nearest and second nearest training images, k = 1/3
(Gu et al. 2023, arXiv 2310.02664). Everything is computed on uint8 pixels, so a copy is at distance exactly 0; of exact
duplicates in the training set neither can be told to be *the* source, so their copies never count (d1 = d2).
"""

import math
from collections.abc import Iterable, Sequence
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

    def at(self, index: slice | NDArray[np.bool_]) -> "Neighbours":
        return Neighbours(self.d1[index], self.d2[index], self.i1[index], self.i2[index])

    def r_mem(self, k: float = 1 / 3) -> float:
        return float(self.memorized(k).mean())


def nearest_two(
    samples: Tensor,
    training: Tensor,
    device: torch.device | None = None,
    groups: Ints | None = None,
    flips: bool = False,
    max_bytes: int = 2**28,
) -> Neighbours:
    """Exact nearest and second nearest training image of each sample, by L2; among equal distances any one.

    samples [n, C, R, R] uint8, training [N >= 2, C, R, R] uint8. Needs about `max_bytes` of memory, whatever n and N are.
    groups [N] int64, two or more different ones: the second is then the nearest image of another group than the first's.
    flips: the distance to a training image is that to it or to its mirror image (left and right), whichever is less.
    """
    assert len(training) >= 2, "a second nearest training image is needed"
    chunks = torch.split(training, chunk_size(training[0].numel(), max_bytes))
    return nearest_two_of(samples, chunks, device, groups, flips, max_bytes)


def nearest_two_of(
    samples: Tensor,
    chunks: Iterable[Tensor],
    device: torch.device | None = None,
    groups: Ints | None = None,
    flips: bool = False,
    max_bytes: int = 2**28,
) -> Neighbours:
    """`nearest_two` in a training set that comes in chunks, [any, C, R, R] uint8 each: it need not fit into memory.

    The squares are integers below 2⁵³, so the expansion ‖x‖² − 2⟨x, y⟩ + ‖y‖² is exact in float64.
    """
    names = None if groups is None else torch.from_numpy(groups)
    rows = min(chunk_size(samples[0].numel(), max_bytes), BLOCK)
    blocks = [_Nearest(block, device, flips) for block in torch.split(samples, rows)]
    start = 0
    for chunk in chunks:
        assert samples.dtype == chunk.dtype == torch.uint8, "distances are defined on uint8 pixels"
        y = chunk.flatten(1).to(device, torch.float64)
        index = torch.arange(start, start + len(y), device=device)
        group = None if names is None else names[start : start + len(y)].to(device)
        for block in blocks:
            block.look_at(y, index, group)
        start += len(y)
    return Neighbours.joined([block.found() for block in blocks])


BLOCK = 1024  # samples that are compared at once


def chunk_size(pixels: int, max_bytes: int) -> int:
    """How many training images fit into `max_bytes`: their pixels, and what BLOCK samples need of each."""
    return max(2, int(max_bytes / (8 * (2 * pixels + 5 * BLOCK))))


class _Nearest:
    """The two nearest of the training images that a block of samples has been shown so far."""

    def __init__(self, samples: Tensor, device: torch.device | None, flips: bool) -> None:
        self.samples, self.device, self.flips = samples, device, flips
        self.best = torch.full((len(samples), 2), torch.inf, dtype=torch.float64, device=device)  # squares
        self.where = torch.full((len(samples), 2), -1, dtype=torch.int64, device=device)
        self.group = torch.full((len(samples), 2), -1, dtype=torch.int64, device=device)

    def look_at(self, y: Tensor, index: Tensor, group: Tensor | None) -> None:
        """y [c, pixels] float64 with their positions, and their groups if the second is to be of another one."""
        x = self.samples.flatten(1).to(self.device, torch.float64)
        cross = -2 * x @ y.T
        if self.flips:  # ‖x − mirrored y‖ = ‖mirrored x − y‖
            cross = torch.minimum(cross, -2 * self.samples.flip(-1).flatten(1).to(self.device, torch.float64) @ y.T)
        squares = torch.cat([self.best, x.square().sum(1)[:, None] + cross + y.square().sum(1)[None, :]], 1)
        if group is None:
            self.best, order = squares.topk(2, dim=1, largest=False)
        else:
            groups = torch.cat([self.group, group.expand(len(x), -1)], 1)
            first, at = squares.min(1, keepdim=True)
            others = squares.masked_fill(groups == groups.gather(1, at), torch.inf)
            second, at_second = others.min(1, keepdim=True)
            self.best, order = torch.cat([first, second], 1), torch.cat([at, at_second], 1)
            self.group = groups.gather(1, order)
        self.where = torch.cat([self.where, index.expand(len(x), -1)], 1).gather(1, order)

    def found(self) -> Neighbours:
        assert self.best.isfinite().all(), "a second nearest training image, of another group, is needed"
        distance, index = np.sqrt(self.best.cpu().numpy()), self.where.cpu().numpy()  # numpy rounds roots correctly
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
