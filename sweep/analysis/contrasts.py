"""Ratios of EMMs, ratios of such ratios, and intervals of them that hold together.

ln EMM of each configuration is taken as normal, and trials of two configurations as independent.
So every contrast is a sum of independent normals, ln ratio = Σ wᵢ ln EMMᵢ, and how two of them hang
together is known: those that share a configuration move together. Their joint interval is that of
the largest |z| of all (max-t; Hothorn, Bretz and Westfall 2008), which is as wide as it must be;
Holm's and Bonferroni's know nothing of what is shared, and Holm's steps give no intervals. On all
pairs of equal precision it is Tukey's, against one configuration Dunnett's, on two separate pairs
Šidák's.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from sweep.search.belief import Belief

Array = NDArray[np.float64]

LEVEL = 0.95  # of an interval, and of all of a family together
ALONE = -float(ndtri((1 - LEVEL) / 2))  # sds that an interval by itself reaches to both sides
# draws, so that the width of a joint interval is known to .5 %: of many contrasts fewer do
FEWEST_DRAWS, MOST_DRAWS, DRAWN = 2**14, 2**16, 2**24  # at least, at most, times the contrasts
MOST_JOINT = 5_000  # contrasts; of more the bound is taken, which is hardly wider


@dataclass(frozen=True)
class Known:
    """A configuration whose EMM is known. `mean`, `sd` of ln EMM; `digest` of its data; `trials` by
    which it is known, where others may be known by them too."""

    name: str
    factors: Mapping[str, Any]
    mean: float
    sd: float
    digest: str | None = None
    trials: frozenset[str] = frozenset()

    @classmethod
    def by(
        cls,
        belief: Belief,
        name: str,
        factors: Mapping[str, Any],
        digest: str | None = None,
        trials: frozenset[str] = frozenset(),
    ) -> "Known":
        return cls(name, factors, belief.mean, belief.sd, digest, trials)

    def has_own(self, other: "Known") -> bool:
        """Whether each has trials that the other has not: else a ratio of them says nothing."""
        fewest = min(len(self.trials), len(other.trials))
        return not fewest or len(self.trials & other.trials) < fewest


@dataclass(frozen=True)
class Contrast:
    """EMM of configuration `b` / EMM of `a`, with its 95 % interval.

    `same_data`: whether both were trained on subsets of the same data set. `factor`: the only one in
    which they differ, if there is one. `together_*`: the interval that holds at once with those of
    all contrasts against a first level and all interactions, if this is such a contrast;
    `pairs_*`: at once with those of all pairs.
    """

    a: str
    b: str
    ratio: float
    low: float
    high: float
    same_data: bool = True
    factor: str | None = None
    together_low: float | None = None
    together_high: float | None = None
    pairs_low: float | None = None
    pairs_high: float | None = None

    @property
    def told(self) -> str:
        """Whether it excludes 1: "yes", also by the interval that holds together with others (those
        of all pairs, if it is not against a first level); "alone", by its own only; "no"."""
        if self.together_low is None:
            return _told(self.low, self.high, self.pairs_low, self.pairs_high)
        return _told(self.low, self.high, self.together_low, self.together_high)

    @property
    def inverse(self) -> "Contrast":
        """EMM of `a` / EMM of `b`."""
        own = 1 / self.ratio, 1 / self.high, 1 / self.low
        together = _inverted(self.together_low, self.together_high)
        pairs = _inverted(self.pairs_low, self.pairs_high)
        return Contrast(self.b, self.a, *own, self.same_data, self.factor, *together, *pairs)


def _inverted(low: float | None, high: float | None) -> tuple[float | None, float | None]:
    return (None, None) if low is None or high is None else (1 / high, 1 / low)


@dataclass(frozen=True)
class Interaction:
    """How much one factor changes the ratio that another one makes: (EMM of `d` / EMM of `c`) / (EMM
    of `b` / EMM of `a`), with its 95 % interval.

    `factor`: that in which b differs from a, and d from c; `by`: that in which c differs from a, and
    d from b. `together_*`: as of a contrast.
    """

    factor: str
    by: str
    a: str
    b: str
    c: str
    d: str
    ratio: float
    low: float
    high: float
    same_data: bool = True
    together_low: float | None = None
    together_high: float | None = None

    @property
    def told(self) -> str:
        """As of a contrast."""
        return _told(self.low, self.high, self.together_low, self.together_high)


def _told(low: float, high: float, joint_low: float | None, joint_high: float | None) -> str:
    if low <= 1 <= high:
        return "no"
    is_clear = joint_low is not None and joint_high is not None and not joint_low <= 1 <= joint_high
    return "yes" if is_clear else "alone"


# ---------------------------------------------------------------- which are looked at


def against_first(studies: Sequence[Known]) -> list[tuple[int, int]]:
    """Positions (a, b) of those that differ in one factor alone, where a has the first of its levels
    of which an EMM is known, in the order of the table."""
    pairs = []
    for factor in _factors(studies):
        for first, *others in _alike_but(studies, factor):
            pairs += [(first, other) for other in others]
    return pairs


def interactions(studies: Sequence[Known]) -> list[tuple[str, str, tuple[int, int, int, int]]]:
    """(factor, by, positions of a, b, c, d) of all `Interaction`s against the first levels."""
    found = []
    for factor, by in itertools.combinations(_factors(studies), 2):
        for rectangle in _alike_but(studies, factor, by):
            at = {_levels(studies[i], factor, by): i for i in rectangle}
            a = (first, base) = next(iter(at))
            rows = dict.fromkeys(level for level, _ in at if level != first)
            columns = dict.fromkeys(level for _, level in at if level != base)
            for level, other in itertools.product(rows, columns):
                corners = a, (level, base), (first, other), (level, other)
                if all(corner in at for corner in corners):
                    i, j, k, m = (at[corner] for corner in corners)
                    found.append((factor, by, (i, j, k, m)))
    return found


def _factors(studies: Sequence[Known]) -> list[str]:
    return list(dict.fromkeys(factor for study in studies for factor in study.factors))


def _levels(study: Known, *factors: str) -> tuple[str, ...]:
    return tuple(repr(study.factors[factor]) for factor in factors)


def _alike_but(studies: Sequence[Known], *factors: str) -> Iterable[list[int]]:
    """Positions of those that have these factors and are alike in all others, by group."""
    groups: dict[str, list[int]] = {}
    for position, study in enumerate(studies):
        if all(factor in study.factors for factor in factors):
            rest = [(name, repr(v)) for name, v in study.factors.items() if name not in factors]
            groups.setdefault(repr(sorted(rest)), []).append(position)
    return groups.values()


def differing(a: Known, b: Known) -> str | None:
    """The only factor in which two configurations differ; None if there is no such one."""
    if a.factors.keys() != b.factors.keys():
        return None
    factors = [name for name, value in a.factors.items() if repr(value) != repr(b.factors[name])]
    return factors[0] if len(factors) == 1 else None


# ---------------------------------------------------------------- how sure they are


def reach(weights: Array, sds: Array) -> float:
    """How many of its own sd each contrast reaches to both sides, so that all intervals hold
    together with LEVEL.

    `weights` [contrasts, configurations] of ln EMM in ln ratio, `sds` [configurations] of ln EMM.
    The quantile of the largest |z| over the same normals every time; it lies between that of one
    contrast alone and Šidák's for as many separate ones, which bounds it whatever they share
    (Šidák 1967).
    """
    count = max(len(weights), 1)
    bound = -float(ndtri((1 - LEVEL ** (1 / count)) / 2))
    if count == 1 or count > MOST_JOINT:
        return bound
    scaled = weights * sds
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    draws = min(max(DRAWN // count, FEWEST_DRAWS), MOST_DRAWS)
    generator = np.random.default_rng(0)
    largest = [  # of a few at a time, so that memory stays small
        np.abs(generator.standard_normal((1024, len(sds))) @ scaled.T).max(1)
        for _ in range(draws // 1024)
    ]
    return float(np.clip(np.quantile(np.concatenate(largest), LEVEL), ALONE, bound))


Weights = dict[int, int]  # position of a configuration → its weight in ln ratio


class Ratio(NamedTuple):
    """A ratio, the ends of its own interval, and of that which holds together with others."""

    ratio: float
    low: float
    high: float
    joint_low: float
    joint_high: float


def ratios(studies: Sequence[Known], contrasts: Sequence[Weights]) -> list[Ratio]:
    """Each contrast, together with the others."""
    weights = np.zeros((len(contrasts), len(studies)))
    for row, one in zip(weights, contrasts, strict=True):
        row[list(one)] = list(one.values())
    means, sds = (np.array([getattr(one, name) for one in studies]) for name in ("mean", "sd"))
    sd, joint = np.sqrt(weights**2 @ sds**2), reach(weights, sds)
    sides = np.array([0, -ALONE, ALONE, -joint, joint])
    found = np.exp((weights @ means)[:, None] + sides * sd[:, None])
    return [Ratio(*row) for row in found.tolist()]


@dataclass(frozen=True)
class Contrasts:
    """`pairs`: all, in the order of the table; `shown`: those of them against a first level, by
    factor; `interactions`: of every two factors. The intervals of the last two hold together."""

    pairs: list[Contrast]
    shown: list[Contrast]
    interactions: list[Interaction]

    @property
    def n_together(self) -> int:
        return len(self.shown) + len(self.interactions)


def compared(studies: Sequence[Known]) -> Contrasts:
    """The contrasts of configurations whose EMM is known; none of two that have the same trials."""

    def have_own(positions: Iterable[int]) -> bool:
        chosen = [studies[i] for i in positions]
        return all(a.has_own(b) for a, b in itertools.combinations(chosen, 2))

    first = list(filter(have_own, against_first(studies)))
    crossed = [one for one in interactions(studies) if have_own(one[2])]
    steps: list[Weights] = [{a: -1, b: 1} for a, b in first]
    squares: list[Weights] = [{a: 1, b: -1, c: -1, d: 1} for _, _, (a, b, c, d) in crossed]
    together = ratios(studies, steps + squares)
    of_steps, of_squares = together[: len(steps)], together[len(steps) :]
    of_first = dict(zip(first, of_steps, strict=True))
    positions = list(filter(have_own, itertools.combinations(range(len(studies)), 2)))
    of_all = ratios(studies, [{a: -1, b: 1} for a, b in positions])
    pairs = {}
    for pair, one in zip(positions, of_all, strict=True):
        a, b = (studies[i] for i in pair)
        shown = of_first.get(pair)
        pairs[pair] = Contrast(
            a=a.name,
            b=b.name,
            ratio=one.ratio,
            low=one.low,
            high=one.high,
            same_data=a.digest == b.digest,
            factor=differing(a, b),
            together_low=shown and shown.joint_low,
            together_high=shown and shown.joint_high,
            pairs_low=one.joint_low,
            pairs_high=one.joint_high,
        )
    changes = [
        _interaction(*named, studies, one) for named, one in zip(crossed, of_squares, strict=True)
    ]
    return Contrasts(list(pairs.values()), [pairs[pair] for pair in first], changes)


def _interaction(
    factor: str, by: str, corners: Sequence[int], studies: Sequence[Known], one: Ratio
) -> Interaction:
    a, b, c, d = (studies[i].name for i in corners)
    same_data = len({studies[i].digest for i in corners}) == 1
    return Interaction(factor, by, a, b, c, d, one.ratio, one.low, one.high, same_data, *one[3:])


def order_lines(contrasts: Mapping[float, Sequence[Contrast]]) -> list[str]:
    """For people: pairs that are told apart in one order at one target, and in the other at
    another."""
    clear: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for target, found in contrasts.items():
        for one in found:
            if one.told == "yes":
                clear.setdefault((one.a, one.b), []).append((target, one.ratio))
    return [
        f"{a} and {b}: which has the larger EMM depends on the target: ratio "
        + ", ".join(f"{ratio:.2f} at {target:g}" for target, ratio in ratios)
        for (a, b), ratios in clear.items()
        if min(ratio for _, ratio in ratios) < 1 < max(ratio for _, ratio in ratios)
    ]
