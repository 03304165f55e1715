"""Exact nearest neighbours among the training images.

Everything is computed on uint8 pixels, so a copy is at distance exactly 0; of exact duplicates in
the training set neither can be told to be *the* source, so their copies never count (d1 = d2).
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from trainables.measure.r_mem import Ints, Neighbours


def nearest_two(
    samples: Tensor,
    training: Tensor,
    device: torch.device | None = None,
    groups: Ints | None = None,
    flips: bool = False,
    max_bytes: int = 2**28,
) -> Neighbours:
    """Exact nearest and second nearest training image of each sample, by L2; among equal distances
    any one.

    samples [n, C, R, R] uint8, training [N >= 2, C, R, R] uint8. Needs about `max_bytes` of memory,
    whatever n and N are. groups [N] int64, two or more different ones: the second is then the
    nearest image of another group than the first's. flips: the distance to a training image is that
    to it or to its mirror image (left and right), whichever is less.
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
    """`nearest_two` in a training set that comes in chunks, [any, C, R, R] uint8 each: it need not
    fit into memory.

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
    """How many training images fit into `max_bytes`: their pixels, and what BLOCK samples need of
    each."""
    return max(2, int(max_bytes / (8 * (2 * pixels + 5 * BLOCK))))


class _Nearest:
    """The two nearest of the training images that a block of samples has been shown so far."""

    def __init__(self, samples: Tensor, device: torch.device | None, flips: bool) -> None:
        self.samples, self.device, self.flips = samples, device, flips
        # squares
        self.best = torch.full((len(samples), 2), torch.inf, dtype=torch.float64, device=device)
        self.where = torch.full((len(samples), 2), -1, dtype=torch.int64, device=device)
        self.group = torch.full((len(samples), 2), -1, dtype=torch.int64, device=device)

    def look_at(self, y: Tensor, index: Tensor, group: Tensor | None) -> None:
        """y [c, pixels] float64 with their positions, and their groups if the second is to be of
        another one."""
        x = self.samples.flatten(1).to(self.device, torch.float64)
        cross = -2 * x @ y.T
        if self.flips:  # ‖x − mirrored y‖ = ‖mirrored x − y‖
            cross = torch.minimum(
                cross, -2 * self.samples.flip(-1).flatten(1).to(self.device, torch.float64) @ y.T
            )
        squares = torch.cat(
            [self.best, x.square().sum(1)[:, None] + cross + y.square().sum(1)[None, :]], 1
        )
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
        assert self.best.isfinite().all(), (
            "a second nearest training image, of another group, is needed"
        )
        distance, index = (
            np.sqrt(self.best.cpu().numpy()),
            self.where.cpu().numpy(),
        )  # numpy rounds roots correctly
        return Neighbours(distance[:, 0], distance[:, 1], index[:, 0], index[:, 1])
