"""The EMM at other targets, from the trials of one search: known crossings, and silence elsewhere."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from sweep.analysis.contrasts import Contrast, Known, compared, order_lines
from sweep.analysis.profile import belief_at
from sweep.analysis.summary import summary_of
from sweep.report.ratios import pair_rows
from sweep.search.belief import Observation
from sweep.search.rules import Options
from tests.summaries import SPACE, curve

OPTIONS = Options(100, 40_000)


def trials(*sizes, emm=2000, slope=4.0, noise=0.0):
    """On a logistic curve that crosses .9 at `emm`."""
    rng = np.random.default_rng(0)
    z = logit(0.9) - slope * np.log(np.array(sizes) / emm) + noise * rng.normal(size=len(sizes))
    return [Observation(n, float(r), 2000) for n, r in zip(sizes, expit(z), strict=True)]


def crossing(target, emm=2000, slope=4.0):
    return emm * math.exp((logit(0.9) - logit(target)) / slope)


@pytest.mark.parametrize("target", [0.97, 0.9, 0.5, 0.1])
def test_a_crossing_among_the_trials_is_found(target):
    found = belief_at(trials(900, 1300, 1900, 2500, 3300, 4500, 6000, 8000), OPTIONS, target)
    low, high = found.interval()
    assert low < crossing(target) < high < 1.35 * low


def test_where_no_trial_lies_nothing_is_told():
    """.5 is crossed at 3,464: there is none that fails it, none near enough, and both."""
    assert belief_at(trials(1000, 1500, 1900, 2300), OPTIONS, 0.5) is None
    assert belief_at(trials(1000, 1500, 1900, 9000), OPTIONS, 0.5) is None
    assert belief_at(trials(1000, 1500, 2900, 3300, 4200), OPTIONS, 0.5) is not None
    assert belief_at([], OPTIONS, 0.5) is None


def test_a_wide_belief_is_not_told():
    """Seeds that differ by more than a trial beside it can make up for."""
    sizes = (800, 2000, 3000, 3900, 5000)
    assert belief_at(trials(*sizes), OPTIONS, 0.5) is not None
    assert belief_at(trials(*sizes, slope=0.6, noise=1.5), OPTIONS, 0.5) is None


def test_an_order_may_depend_on_the_target():
    """Of curves that cross between their .9 and their .5: their ratios are known."""
    steep = trials(900, 1300, 1700, 2000, 2300, 2900, 3600, slope=4)
    flat = trials(400, 700, 1000, 1400, 2400, 4000, 7000, 9000, emm=1200, slope=1.2)
    found = {
        target: compared(
            [
                Known.by(belief_at(seen, OPTIONS, target), name, {"curve": name})
                for name, seen in (("steep", steep), ("flat", flat))
            ]
        ).shown
        for target in (0.9, 0.5)
    }
    for target, (one,) in found.items():
        ratio = crossing(target, 1200, 1.2) / crossing(target, 2000, 4)
        assert (one.a, one.b, one.told) == ("steep", "flat", "yes")
        assert one.low < ratio < one.high
    (line,) = order_lines(found)
    assert line.startswith("steep and flat: which has the larger EMM depends on the target")


def test_an_order_changes_only_where_it_is_clear_at_both():
    def one(low, high, b="b"):
        ratio = math.sqrt(low * high)
        return Contrast("a", b, ratio, low, high, pairs_low=low, pairs_high=high)

    assert order_lines({0.9: [one(0.5, 0.8)], 0.5: [one(1.2, 2.0)]}) == [
        "a and b: which has the larger EMM depends on the target: ratio 0.63 at 0.9, 1.55 at 0.5"
    ]
    assert order_lines({0.9: [one(0.5, 0.8)], 0.5: [one(0.9, 2.0)]}) == []
    alone = replace(one(1.2, 2.0), pairs_low=0.9, pairs_high=2.7)
    assert order_lines({0.9: [one(0.5, 0.8)], 0.5: [alone]}) == [], (
        "among all pairs it may be chance"
    )
    assert order_lines({0.9: [one(0.5, 0.8)], 0.5: [one(0.3, 0.7)]}) == []
    assert order_lines({0.9: [one(0.5, 0.8)], 0.5: [one(1.2, 2.0, b="c")]}) == []


def test_every_pair_of_one_factor_is_told_at_every_target_and_looked_at_against_the_first():
    sizes = (10, 16, 22, 28, 36, 46, 60, 80)
    space = SPACE.model_copy(update={"vary": {"network.width": (4, 8, 16)}})
    results = [
        one.model_copy(update={"spec": one.spec.model_copy(update={"name": f"width={width}"})})
        for width, emm in ((4, 20), (8, 24), (16, 28))
        for one in curve("width=8", emm, sizes)
    ]
    summary = summary_of(space, results, [])
    told = summary.as_json()["contrasts_by_target"]
    assert [one["target"] for one in told][:2] == [0.9, 0.5]
    for at in told[:2]:
        pairs = [(one["b"], one["a"]) for one in at["contrasts"]]
        assert pairs == [("width=8", "width=4"), ("width=16", "width=4"), ("width=16", "width=8")]
    rows = [row[:3] for row in pair_rows(summary) if row[0] == "0.5"]
    assert rows == [("0.5", "width=8", "width=4"), ("0.5", "width=16", "width=4")]
