"""Ratios of EMMs whose beliefs are exactly normal: their closed forms, and how often all intervals of
a family hold."""

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm, studentized_range

from sweep.analysis import contrasts
from sweep.analysis.contrasts import (
    ALONE,
    Known,
    against_first,
    compared,
    differing,
    interactions,
    reach,
)

LABELS = ("none", "true", "random-10")


def steps(count, pairs):
    """[pairs, count] weights of ln EMM."""
    weights = np.zeros((len(pairs), count))
    for row, (a, b) in zip(weights, pairs, strict=True):
        row[a], row[b] = -1, 1
    return weights


def all_pairs(count):
    return list(itertools.combinations(range(count), 2))


def grid(means, sds=None, data=None):
    """Configurations of two factors, by their levels: ln EMM of (width, labels)."""
    return [
        Known(
            f"{width}-{label}",
            {"width": width, "labels": label},
            mean,
            0.1 if sds is None else sds[width, label],
            None if data is None else data[width, label],
        )
        for (width, label), mean in means.items()
    ]


def labels(*emms, sd=0.05):
    return [
        Known(name, {"labels": name}, math.log(emm), sd)
        for name, emm in zip(LABELS, emms, strict=True)
    ]


# ---------------------------------------------------------------- which are looked at


def test_every_level_is_compared_with_the_first_and_not_with_its_neighbour():
    """random-10 / none is the one clear effect; among neighbours it is not."""
    found = compared(labels(100, 77, 59, sd=0.12))
    assert [(one.b, one.a) for one in found.shown] == [("true", "none"), ("random-10", "none")]
    assert [one.told for one in found.shown] == ["no", "yes"]
    assert found.shown[1].ratio == pytest.approx(0.59)
    assert {(one.a, one.b): one.told for one in found.pairs}["true", "random-10"] == "no"
    assert all(one.factor == "labels" for one in found.pairs)
    assert found.interactions == []


def test_each_factor_is_compared_at_the_same_levels_of_the_others():
    means = {(width, label): 0.0 for width in (8, 16, 32) for label in ("none", "true")}
    studies = grid(means)
    names = [tuple(studies[i].name for i in pair) for pair in against_first(studies)]
    assert names == [
        *(("8-none", "16-none"), ("8-none", "32-none")),
        *(("8-true", "16-true"), ("8-true", "32-true")),
        *(("8-none", "8-true"), ("16-none", "16-true"), ("32-none", "32-true")),
    ]
    crossed = [
        (factor, by, *(studies[i].name for i in corners))
        for factor, by, corners in interactions(studies)
    ]
    assert crossed == [
        ("width", "labels", "8-none", "16-none", "8-true", "16-true"),
        ("width", "labels", "8-none", "32-none", "8-true", "32-true"),
    ]


def test_the_first_level_is_the_first_whose_emm_is_known():
    """The smallest network may lie below the range of N; a hole takes what needs it and no more."""
    means = {(width, label): 0.0 for width in (8, 16, 32) for label in LABELS}
    for missing in (8, "none"), (8, "true"), (8, "random-10"), (32, "true"):
        del means[missing]
    studies = grid(means)
    pairs = [tuple(studies[i].name for i in pair) for pair in against_first(studies)]
    assert ("16-none", "32-none") in pairs
    assert [pair for pair in pairs if "16-true" in pair] == [("16-none", "16-true")]
    corners = [[studies[i].name for i in places] for _, _, places in interactions(studies)]
    assert corners == [["16-none", "32-none", "16-random-10", "32-random-10"]]


def test_levels_of_any_kind_are_told_apart():
    """Lists can't be hashed; 1 is not true; configurations of other factors are never paired."""
    a, b, c = (Known(str(i), {"m": m}, 0, 1) for i, m in enumerate(([1, 2], [2, 2], True)))
    assert against_first([a, b, c]) == [(0, 1), (0, 2)]
    assert differing(a, Known("x", {"m": [1, 2], "n": 1}, 0, 1)) is None
    assert differing(Known("x", {"m": 1}, 0, 1), c) == "m"
    assert differing(a, a) is None
    told = {"m": 1, "n": 2, "o": 3}, {"o": 3, "n": 2, "m": 4}
    assert against_first([Known("x", one, 0, 1) for one in told]) == [(0, 1)], "in whatever order"
    assert compared([a]).pairs == compared([]).pairs == []


# ---------------------------------------------------------------- how sure they are


def test_a_ratio_and_a_ratio_of_ratios_are_exact():
    means = {
        (8, "none"): math.log(20), (8, "true"): math.log(30),
        (16, "none"): math.log(50), (16, "true"): math.log(150),
    }  # fmt: skip
    sds = dict(zip(means, (0.1, 0.2, 0.3, 0.4), strict=True))
    found = compared(grid(means, sds, dict(zip(means, "ddde", strict=True))))
    one = next(one for one in found.pairs if (one.a, one.b) == ("8-none", "16-none"))
    sd = math.hypot(0.1, 0.3)
    assert one.ratio == pytest.approx(2.5)
    assert (one.low, one.high) == pytest.approx(
        (2.5 * math.exp(-1.959964 * sd), 2.5 * math.exp(1.959964 * sd)), rel=1e-5
    )
    (change,) = found.interactions
    assert (change.a, change.b, change.c, change.d) == ("8-none", "16-none", "8-true", "16-true")
    sd = math.sqrt(0.1**2 + 0.2**2 + 0.3**2 + 0.4**2)
    assert change.ratio == pytest.approx((150 / 30) / (50 / 20))
    assert math.log(change.high / change.low) == pytest.approx(2 * 1.959964 * sd, rel=1e-5)
    assert [one.same_data for one in found.shown] == [True, False, True, False]
    assert change.same_data is False
    assert found.n_together == 5
    widths = [math.log(one.together_high / one.together_low) for one in found.shown]
    own = [math.log(one.high / one.low) for one in found.shown]
    joint = math.log(change.together_high / change.together_low) / math.log(
        change.high / change.low
    )
    assert np.divide(widths, own) == pytest.approx(joint), "one family, one reach"
    assert 1.2 < joint < 2.5689 / 1.96, "wider than alone, narrower than by Bonferroni"


@pytest.mark.parametrize("count", [3, 8, 40])
def test_all_pairs_of_equal_precision_reach_as_far_as_tukey_s(count):
    exact = studentized_range.ppf(0.95, count, 1e5) / math.sqrt(2)
    assert reach(steps(count, all_pairs(count)), np.ones(count)) == pytest.approx(exact, rel=0.005)


@pytest.mark.parametrize("count", [3, 8, 40])
def test_against_one_they_reach_as_far_as_dunnett_s(count):
    """Known the first, the others are independent; whatever the scale of ln EMM."""

    def misses(c):
        far = math.sqrt(2) * c

        def held(z):
            return norm.pdf(z) * (norm.cdf(far - z) - norm.cdf(-far - z)) ** (count - 1)

        return quad(held, -8, 8)[0] - 0.95

    weights = steps(count, [(0, i) for i in range(1, count)])
    exact = brentq(misses, 1.9, 5)
    assert reach(weights, np.full(count, 0.03)) == pytest.approx(exact, rel=0.005)


def test_separate_pairs_reach_as_far_as_sidak_s_and_one_alone_no_further():
    separate = steps(8, [(0, 1), (2, 3), (4, 5), (6, 7)])
    assert reach(separate, np.ones(8)) == pytest.approx(norm.ppf((1 + 0.95**0.25) / 2), rel=0.005)
    assert reach(separate[:1], np.ones(8)) == ALONE == pytest.approx(norm.ppf(0.975))
    twice = np.repeat(separate[:1], 5, axis=0)
    assert reach(twice, np.ones(8)) == pytest.approx(ALONE, rel=0.005), "one contrast, five times"


def test_of_very_many_the_bound_is_taken(monkeypatch):
    weights = steps(40, all_pairs(40))
    exact = reach(weights, np.ones(40))
    monkeypatch.setattr(contrasts, "MOST_JOINT", 700)
    bound = reach(weights, np.ones(40))
    assert bound == pytest.approx(norm.ppf((1 + 0.95 ** (1 / 780)) / 2))
    assert exact < bound < norm.ppf(1 - 0.025 / 780) < 1.05 * exact


@pytest.mark.parametrize("what", ["pairs", "together", "alone"])
def test_the_intervals_of_a_family_hold_together(what):
    """Of 12 configurations of unequal precision, which are in truth all alike: in 95 % of sweeps all
    intervals of a family hold 1; those that are for one ratio each do so in far fewer."""
    rng = np.random.default_rng(7)
    truth = {(width, label): 3.0 for width in (8, 16, 32, 64) for label in LABELS}
    spread = dict(zip(truth, rng.uniform(0.05, 0.4, len(truth)), strict=True))
    studies = grid(truth, spread)
    sds, count = np.array([one.sd for one in studies]), len(studies)
    pairs, squares = against_first(studies), [corners for *_, corners in interactions(studies)]
    weights = steps(count, all_pairs(count) if what == "pairs" else pairs)
    if what != "pairs":
        crossed = np.zeros((len(squares), count))
        for row, (a, b, c, d) in zip(crossed, squares, strict=True):
            row[[a, d]], row[[b, c]] = 1, -1
        weights = np.vstack([weights, crossed])
    width = ALONE if what == "alone" else reach(weights, sds)
    errors = rng.normal(size=(20_000, count)) * sds @ weights.T
    held = (np.abs(errors) <= width * np.sqrt(weights**2 @ sds**2)).all(1).mean()
    if what == "alone":
        assert held < 0.75
    else:
        assert held == pytest.approx(0.95, abs=0.006)


def test_the_same_beliefs_give_the_same_intervals():
    studies = labels(100, 77, 59)
    assert compared(studies) == compared(studies)
