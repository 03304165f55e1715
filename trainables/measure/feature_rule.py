"""The rule of copies in feature space. No torch.

A generated image is a copy in features if it lies nearer to a training image than all but one in
ONE_IN of the images that were not trained on do. The threshold so comes from the data, the N and
the features at hand, never from a paper, and what the rule counts by chance is known by
construction: of m + 1 exchangeable distances each is as likely the r-th smallest, so that one more
held-out image lies below the r-th of m with probability r / (m + 1).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainables.measure.r_mem import Floats, Ints

ONE_IN = 100  # held-out images, whom the rule calls copies

# held-out images that it takes: half of them give the threshold, the others show what it counts
LEAST_HELD_OUT = 2 * (ONE_IN - 1)


@dataclass(frozen=True)
class InFeatures:
    """Distances to the nearest training image in feature space: L2 between features of length 1,
    √(2 − 2 cos), so 0 … 2.

    d1: [n] float64, of the generated images; i1: [n] int64, positions of these nearest ones in the
    training set; null: [m] float64, distances of the held-out images.
    """

    d1: Floats
    i1: Ints
    null: Floats

    @cached_property
    def _halves(self) -> tuple[Floats, Floats]:
        """At random, by a constant seed: held-out images may come sorted."""
        order = np.random.default_rng(0).permutation(len(self.null))
        middle = len(order) // 2
        return self.null[order[:middle]], self.null[order[middle:]]

    @cached_property
    def threshold(self) -> float | None:
        """Below it an image is a copy; None of fewer held-out images than LEAST_HELD_OUT."""
        half, _ = self._halves
        rank = (len(half) + 1) // ONE_IN
        return float(np.sort(half)[rank - 1]) if rank else None

    @property
    def copies(self) -> NDArray[np.bool_] | None:
        """[n], of the generated images."""
        return None if self.threshold is None else self.d1 < self.threshold

    @property
    def r_mem(self) -> float | None:
        return None if self.copies is None else float(self.copies.mean())

    @property
    def null_rate(self) -> float | None:
        """The share of the other half of the held-out images that the rule calls copies."""
        _, others = self._halves
        return None if self.threshold is None else float((others < self.threshold).mean())
