"""Ratios of EMMs."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweep.analysis.study import StudySummary
from sweep.search.belief import Belief


@dataclass(frozen=True)
class Contrast:
    """EMM of configuration `b` / EMM of `a`, with its 95 % interval; they are told apart if it
    excludes 1.

    `same_data`: whether both were trained on subsets of the same data set.
    """

    a: str
    b: str
    ratio: float
    low: float
    high: float
    same_data: bool = True

    @property
    def is_clear(self) -> bool:
        return not self.low <= 1 <= self.high


def neighbours(studies: Sequence[StudySummary]) -> Iterable[tuple[StudySummary, StudySummary]]:
    """Pairs of studies that differ by one step of one factor, its levels in the order of the
    table."""
    levels: dict[str, list[str]] = {}
    for study in studies:
        for factor, value in study.factors.items():
            if repr(value) not in levels.setdefault(factor, []):
                levels[factor].append(repr(value))
    positions = [
        [levels[factor].index(repr(value)) for factor, value in study.factors.items()]
        for study in studies
    ]
    for (a, here), (b, there) in itertools.combinations(zip(studies, positions, strict=True), 2):
        if sum(abs(i - j) for i, j in zip(here, there, strict=True)) == 1:
            yield a, b


def contrast(a: str, belief_a: Belief, b: str, belief_b: Belief) -> Contrast:
    """Two beliefs of independent trials: the difference of ln EMM is taken as normal."""
    difference, sd = belief_b.mean - belief_a.mean, math.hypot(belief_a.sd, belief_b.sd)
    low, high = (math.exp(difference + side * 1.96 * sd) for side in (-1, 1))
    return Contrast(a, b, math.exp(difference), low, high)
