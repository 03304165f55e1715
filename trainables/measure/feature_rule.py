"""The rule of copies in feature space. No torch.

A generated image is a copy in features if its score is below that of all but one in ONE_IN of the
images that were not trained on. The score is d1 / d2, as in pixels, or d1 alone. The threshold so
comes from the data, the N and the features at hand, never from a paper, and what the rule counts by
chance is known by construction: of m + 1 exchangeable scores each is as likely the r-th smallest,
so that one more held-out image lies below the r-th of m with probability r / (m + 1).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainables.measure.r_mem import Floats, Neighbours

ONE_IN = 100  # held-out images, whom the rule calls copies

# held-out images that it takes: half of them give the threshold, the others show what it counts
LEAST_HELD_OUT = 2 * (ONE_IN - 1)

# and of how many, or as many as samples, it takes note: the r-th smallest of few differs much
MOST_HELD_OUT = 2000


@dataclass(frozen=True)
class InFeatures:
    """Neighbours in feature space; distances are L2 between features of length 1, √(2 − 2 cos), so
    0 … 2.

    found: the two nearest training images of n generated ones; null: of m held-out images; by_ratio:
    whether the score is d1 / d2, or d1.
    """

    found: Neighbours
    null: Neighbours
    by_ratio: bool

    def score(self, neighbours: Neighbours) -> Floats:
        """[n]; of two neighbours at distance 0 neither can be told to be the source: 1."""
        if not self.by_ratio:
            return neighbours.d1
        d1, d2 = neighbours.d1, neighbours.d2
        return np.divide(d1, d2, out=np.ones_like(d1), where=d2 > 0)

    @cached_property
    def halves(self) -> tuple[Floats, Floats]:
        """The scores of the held-out images, at random, by a constant seed: they may come sorted."""
        null = self.score(self.null)
        order = np.random.default_rng(0).permutation(len(null))
        middle = len(order) // 2
        return null[order[:middle]], null[order[middle:]]

    @cached_property
    def threshold(self) -> float | None:
        """Below it a score is that of a copy; None of fewer held-out images than
        LEAST_HELD_OUT."""
        half, _ = self.halves
        rank = (len(half) + 1) // ONE_IN
        return float(np.sort(half)[rank - 1]) if rank else None

    @property
    def copies(self) -> NDArray[np.bool_] | None:
        """[n], of the generated images."""
        return None if self.threshold is None else self.score(self.found) < self.threshold

    @property
    def r_mem(self) -> float | None:
        return None if self.copies is None else float(self.copies.mean())

    @property
    def null_rate(self) -> float | None:
        """The share of the other half of the held-out images that the rule calls copies."""
        _, others = self.halves
        return None if self.threshold is None else float((others < self.threshold).mean())
