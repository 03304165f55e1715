"""The verdicts of searches, on analytic curves."""

import math

import numpy as np
import pytest
from scipy.special import expit, logit

from sweep.search.belief import Observation
from sweep.search.rules import Options, judge, propose
from tests.search.curves import HIGH, LOW, curve, search


@pytest.mark.parametrize("cost", ["images", "constant"])
@pytest.mark.parametrize("emm", [130, 3000, 30_000])
@pytest.mark.parametrize("target", [0.9, 0.1])
def test_found(emm, target, cost):
    options = Options(LOW, HIGH, target=target, cost=cost)
    finished, verdict = search(curve(emm, target=target), options)
    assert verdict.state == "found"
    assert verdict.emm_low < emm < verdict.emm_high
    assert verdict.sd <= 0.12
    assert verdict.n_trials == len(finished) <= 14
    below, above = math.exp(-0.5) * verdict.emm, math.exp(0.5) * verdict.emm
    assert any(options.passed(o) and o.n >= math.floor(below) for o in finished)
    assert any(not options.passed(o) and o.n <= math.ceil(above) for o in finished)


def test_a_bound_below_the_target_is_no_witness():
    """Of a trial that was accepted early nobody knows whether it would miss the target."""
    passing = [Observation(n, 0.95, 500) for n in (20, 24, 28, 30, 33)]
    far = Observation(70, 0.1, 500)
    known, bound = (Observation(38, 0.8, 500, right_censored=early) for early in (False, True))
    options = Options(8, 512, precision=0.5)
    assert judge([*passing, known, far], options).state == "found"
    verdict = judge([*passing, bound, far], options)
    assert (verdict.state, verdict.emm > 30) == ("searching", True)
    assert "no trial close by misses the target" in verdict.reason


@pytest.mark.parametrize("emm", [66, 10, 1])
def test_below_range_within_two_trials(emm):
    finished, verdict = search(curve(emm), Options(LOW, HIGH))
    assert verdict.state == "below_range"
    assert (verdict.emm, verdict.emm_low) == (None, None)
    assert verdict.emm_high is not None
    assert [o.n for o in finished] in ([LOW], [LOW, LOW])


@pytest.mark.parametrize("emm", [60_001, 1e6])
def test_above_range(emm):
    """Which may be sure before a trial at the end itself."""
    finished, verdict = search(curve(emm), Options(LOW, HIGH))
    assert verdict.state == "above_range"
    assert (verdict.emm, verdict.emm_high) == (None, None)
    assert verdict.emm_low > HIGH * 0.9
    assert max(o.n for o in finished) > HIGH / 2


@pytest.mark.parametrize("emm", [95, 105, 38_500, 41_500])
@pytest.mark.parametrize("cost", ["images", "constant"])
def test_near_an_end_of_the_range_it_ends(emm, cost):
    finished, verdict = search(curve(emm), Options(LOW, HIGH, cost=cost))
    assert verdict.state in ("found", "below_range", "above_range")
    assert all(LOW <= o.n <= HIGH for o in finished)


@pytest.mark.parametrize(
    ("trial", "state"),
    [((HIGH, 0.98), "searching"), ((HIGH, 0.99), "above_range"), ((LOW, 0.7), "below_range")],
)
def test_a_study_ends_outside_the_range_when_that_is_sure_to_95_percent(trial, state):
    """Two trials of the first kind leave it to 6 %; a single one of any could be luck."""
    options, finished = Options(LOW, HIGH), [Observation(*trial, 2000)] * 2
    assert judge(finished[:1], options).state == "searching"
    b = options.belief(finished)
    outside = max(b.p_below(LOW), b.p_above(HIGH))
    assert (0.92 < outside < 0.95) is (state == "searching")
    assert judge(finished, options).state == state


WITNESSES = {  # of R_mem around the range's end at 1,000, where 20,000 images are counted
    "upper": [(500, 0.99), (600, 0.98), (700, 0.97), (800, 0.955), (900, 0.93), (950, 0.92)],
    "lower": [(1050, 0.88), (1100, 0.86), (1200, 0.82), (1400, 0.72), (1700, 0.6)],
}


@pytest.mark.parametrize("end", ["upper", "lower"])
def test_at_an_end_of_the_range_a_trial_there_stands_for_the_missing_witness(end):
    """It did no more than those beside it: passed at the upper end, failed at the lower one."""
    options = Options(100, 1000) if end == "upper" else Options(1000, 10_000)
    finished = [Observation(n, r_mem, 20_000) for n, r_mem in WITNESSES[end]]
    assert judge(finished, options).state == "searching"
    assert propose(finished, [], options) == 1000
    there = Observation(1000, 0.908 if end == "upper" else 0.89, 20_000)
    assert options.passed(there) is (end == "upper")
    assert judge([*finished, there], options).state == "found"


def test_unresolved_by_the_cap_with_the_best_statement():
    finished, verdict = search(curve(3000), Options(LOW, HIGH, precision=0.01, max_trials=9))
    assert (verdict.state, len(finished)) == ("unresolved", 9)
    assert verdict.emm_low < verdict.emm < verdict.emm_high
    assert "9 trials" in verdict.reason


@pytest.mark.parametrize(("low", "high"), [(8, 200), (1, 3), (1, 2), (50, 60)])
def test_small_integer_ranges_end(low, high):
    for emm in np.geomspace(low, high, 3):
        for slope in (1.0, 30.0):
            _, verdict = search(curve(emm, slope), Options(low, high))
            assert verdict.state != "searching"
            if verdict.emm is not None and verdict.state == "found":
                assert low / 2 < verdict.emm < high * 2


def test_a_trial_far_away_is_no_witness():
    """Narrow as the belief is, EMM is not found before a trial close by has failed: that one is
    asked for."""
    options = Options(LOW, HIGH)
    passing = [
        Observation(n, r, 20_000)
        for n, r in ((1800, 0.92), (1825, 0.918), (1850, 0.915), (1900, 0.91), (1950, 0.905))
    ]
    finished = [*passing, Observation(20_000, 0.0, 20_000)]
    b = options.belief(finished)
    assert b.sd < options.precision
    assert judge(finished, options).state == "searching"
    n = propose(finished, [], options)
    assert 1.1 < n / b.median < 1.3
    assert judge([*finished, Observation(n, 0.8, 20_000)], options).state == "found"


def test_a_search_that_goes_on_says_what_is_lacking():
    def reason(finished, **how):
        verdict = judge(finished, Options(LOW, HIGH, **how))
        return verdict.state, verdict.reason.partition("; ")[2]

    assert reason([Observation(1800, 0.92, 2000)], precision=0.1234567) == (
        "searching",
        "at most 0.123 is asked",
    )
    far = [Observation(n, r, 2000) for n, r in ((1000, 0.99), (4000, 0.3), (5000, 0.16))]
    assert reason(far, precision=1.0) == (
        "searching",
        "fewer than two trials are near the estimate",
    )
    passing = [Observation(n, 0.91, 20_000) for n in (1800, 1900, 1950)]
    missed = [*passing, Observation(20_000, 0.0, 20_000)]
    assert reason(missed, precision=1.0) == ("searching", "no trial close by misses the target")
    finished, verdict = search(curve(3000), Options(LOW, HIGH))
    assert verdict.state == "found"
    near = [one for one in finished if one.n < 9_000]
    assert reason(near, guard=True) == (
        "searching",
        "no trial far above the estimate has looked for a rise",
    )


def test_tighter_precision_asks_for_more():
    coarse, first = search(curve(3000), Options(LOW, HIGH, precision=0.2))
    finer = Options(LOW, HIGH, precision=0.02)
    assert judge(coarse, finer).state == "searching"
    assert first.sd <= 0.2
    fine, verdict = search(curve(3000), finer)
    assert verdict.state == "found"
    assert verdict.sd <= 0.02
    assert len(fine) > len(coarse)


@pytest.mark.parametrize("emm", [3000, 15_000])
def test_guard_against_a_dip(emm):
    """R_mem falls by 35 % around EMM/5, where the search without guard is content."""
    monotone = curve(emm)

    def dipping(n, seed):
        return monotone(n, seed) * (1 - 0.35 * math.exp(-0.5 * (math.log(5 * n / emm) / 0.35) ** 2))

    _, misled = search(dipping, Options(LOW, HIGH))
    assert misled.emm_high < emm / 3
    finished, verdict = search(dipping, Options(LOW, HIGH, guard=True))
    assert verdict.state == "found"
    assert verdict.emm_low < emm < verdict.emm_high
    assert max(o.n for o in finished) >= 3.5 * verdict.emm or HIGH in [o.n for o in finished]


@pytest.mark.parametrize(
    "law",
    [
        lambda n: 0.5 + 0.5 * expit(logit(0.8) - 4 * math.log(n / 3000)),
        lambda n: (
            expit(logit(0.9) - 4 * math.log(n / 15_000))
            * (1 - 0.35 * math.exp(-0.5 * (math.log(8 * n / 15_000) / 0.8) ** 2))
        ),
    ],
    ids=["a floor of copies", "a wide dip"],
)
def test_guard_says_so_where_it_cannot_tell(law):
    """The trial far above the estimate memorizes too much, and those around it never reach the
    target."""

    def r_mem(n, seed):
        rng = np.random.default_rng(seed)
        return rng.binomial(2000, expit(logit(law(n)) + 0.1 * rng.normal())) / 2000

    finished, verdict = search(r_mem, Options(LOW, HIGH, guard=True))
    assert verdict.state == "unresolved"
    assert "a floor, or a dip" in verdict.reason
    assert len(finished) < 14


def test_what_lies_below_a_dip_is_no_witness():
    """The one trial near the estimate that passed is of the curve before the dip."""
    before = [(200, 0.97), (300, 0.5), (400, 0.2), (500, 0.05), (1350, 0.99)]
    after = [(1500, 0.895), (1800, 0.88), (2000, 0.89), (3400, 0.45), (9000, 0.01)]
    options = Options(LOW, HIGH, precision=0.3, guard=True)
    finished = [Observation(n, r_mem, 2000) for n, r_mem in (*before, *after)]
    assert [o.n for o in options.heard(finished)] == [n for n, _ in after]
    verdict = judge(finished, options)
    assert verdict.sd <= options.precision
    assert verdict.state == "searching"
    assert 1350 < propose(finished, [], options) < verdict.emm, "where one that passes is missing"


def test_few_copies_beyond_a_dip_are_many_where_few_are_sought():
    """Of a target of .1; for one of .9 they are the floor that every curve may have."""
    before = [(200, 0.5), (300, 0.02), (400, 0.01), (500, 0.0)]
    after = [(1500, 0.13), (1800, 0.11), (2200, 0.07), (3400, 0.02)]
    finished = [Observation(n, r_mem, 2000) for n, r_mem in (*before, *after)]
    few, many = (Options(LOW, HIGH, target, guard=True) for target in (0.1, 0.9))
    assert [o.n for o in few.heard(finished)] == [n for n, _ in after]
    assert many.heard(finished) == finished


def test_guard_costs_one_trial_on_a_monotone_curve():
    options = Options(LOW, HIGH, guard=True)
    finished, verdict = search(curve(3000), options)
    assert finished[:-1] == search(curve(3000), Options(LOW, HIGH))[0]
    emm = judge(finished[:-1], options).emm
    assert finished[-1].n == math.floor(4 * emm)
    nearer = Observation(round(3 * emm), finished[-1].r_mem, 2000)
    assert judge([*finished[:-1], nearer], options).state == "searching"
    assert verdict.state == "found"
    below, verdict = search(curve(10), options)
    assert verdict.state == "below_range"
    assert 3.6 * LOW <= below[-1].n <= 4 * LOW, "nor does a curve that begins below the target"


def test_the_interval_covers():
    """60 configurations, slopes 2–8, noise .1–.5: 95 % is meant, 85 % would be alarming."""
    rng = np.random.default_rng(7)
    z, w = np.polynomial.hermite_e.hermegauss(40)
    covered, cost, trials = [], [], []
    for i in range(60):
        emm, slope, noise = np.exp(rng.uniform(np.log([200, 2, 0.1]), np.log([20_000, 8, 0.5])))
        h = logit(0.9)
        for _ in range(20):  # the mean over seeds crosses the target
            r = expit(h + noise * z)
            h += (0.9 - r @ w / w.sum()) / ((r * (1 - r)) @ w / w.sum())

        def r_mem(n, seed, i=i, emm=emm, slope=slope, noise=noise, h=h):
            luck = np.random.default_rng((i, seed))
            return (
                luck.binomial(2000, expit(h - slope * math.log(n / emm) + noise * luck.normal()))
                / 2000
            )

        finished, verdict = search(r_mem, Options(LOW, HIGH))
        assert verdict.state == "found"
        covered.append(verdict.emm_low < emm < verdict.emm_high)
        cost.append(sum(o.n for o in finished) / emm)
        trials.append(len(finished))
    assert np.mean(covered) >= 0.85
    assert np.mean(cost) < 5.5
    assert np.mean(trials) < 10
