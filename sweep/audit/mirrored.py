"""What mirrored copies would count, were they counted: for a hint to `--flips`."""

from dataclasses import dataclass

import numpy as np

from trainables.measure.r_mem import Ints, Neighbours

MOST = 2000  # generated images that are looked at mirrored as well


@dataclass(frozen=True)
class Mirrored:
    """Of `n` generated images, evenly spread, `more` are copies only if mirrored ones count."""

    n: int
    more: int

    @property
    def hint(self) -> str | None:
        """Where it is more than a few that look alike both ways."""
        if self.more < max(2, 0.01 * self.n):
            return None
        return (
            f"--flips would find {self.more:,} more copies among {self.n:,} generated images: "
            "mirrored ones; they count if the model was trained with mirrored images"
        )


def looked_at(plain: Neighbours, mirrored: Neighbours, groups: Ints, k: float) -> Mirrored:
    """plain, mirrored: the neighbours of the same n images, and of their mirror images."""
    either = nearer_of(plain, mirrored, groups)
    more = either.memorized(k) & ~plain.memorized(k)
    return Mirrored(len(plain.d1), int(more.sum()))


def nearer_of(a: Neighbours, b: Neighbours, groups: Ints) -> Neighbours:
    """The two nearest of four, the second of another group of equal training images than the first
    (groups: [N])."""
    is_b = b.d1 < a.d1
    d1, i1 = np.where(is_b, b.d1, a.d1), np.where(is_b, b.i1, a.i1)
    distances = np.stack([a.d1, a.d2, b.d1, b.d2])
    indices = np.stack([a.i1, a.i2, b.i1, b.i2])
    others = np.where(groups[indices] == groups[i1], np.inf, distances)
    rows, place = np.arange(len(d1)), others.argmin(axis=0)
    return Neighbours(d1, others[place, rows], i1, indices[place, rows])
