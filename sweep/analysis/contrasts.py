"""Ratios of EMMs."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
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


def contrasts_at(
    pairs: Sequence[tuple[str, str]], beliefs: Mapping[str, Mapping[float, Belief | None]]
) -> dict[float, list[Contrast]]:
    """Target → the ratios of the EMMs there of the pairs (a, b) of which it is told of both; by
    `beliefs` of every configuration."""
    found: dict[float, list[Contrast]] = {}
    for a, b in pairs:
        for target in sorted(beliefs[a].keys() & beliefs[b].keys(), reverse=True):
            of_a, of_b = beliefs[a][target], beliefs[b][target]
            if of_a is not None and of_b is not None:
                found.setdefault(target, []).append(contrast(a, of_a, b, of_b))
    return found


def order_lines(contrasts: Mapping[float, Sequence[Contrast]]) -> list[str]:
    """For people: pairs that are told apart in one order at one target, and in the other at
    another."""
    clear: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for target, found in contrasts.items():
        for one in found:
            if one.is_clear:
                clear.setdefault((one.a, one.b), []).append((target, one.ratio))
    return [
        f"{a} and {b}: which has the larger EMM depends on the target: ratio "
        + ", ".join(f"{ratio:.2f} at {target:g}" for target, ratio in ratios)
        for (a, b), ratios in clear.items()
        if min(ratio for _, ratio in ratios) < 1 < max(ratio for _, ratio in ratios)
    ]
