"""The N that a search asks next, beside trials that run."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sweep.search.belief import Observation
from sweep.search.information import information
from sweep.search.rules import Options, accept_bound, judge, propose
from tests.search.curves import HIGH, LOW, curve, search


def test_where_a_trial_costs_its_n_it_goes_upwards_by_steps():
    """Not to the middle of the range, which tells more and costs twenty times as much."""
    options = Options(LOW, HIGH, start=250)
    assert propose([], [], options) == 250
    passed = Observation(250, 1.0, 2000)
    assert 500 < propose([passed], [], options) < 1500
    assert propose([passed], [], replace(options, cost="constant")) > 3000
    falling = [
        Observation(n, r, 2000) for n, r in ((100, 1.0), (250, 1.0), (500, 0.99), (700, 0.93))
    ]
    assert 400 < propose(falling, [], options) < 1250, "the graded R_mem shows that EMM is near"


@pytest.mark.parametrize("cost", ["images", "constant"])
def test_it_asks_where_a_trial_tells_most_for_what_it_costs(cost):
    """Where that is near the estimate: no N around it tells a tenth more, for what it costs."""
    trials = ((400, 1.0), (1000, 0.99), (1600, 0.96), (2100, 0.9), (2200, 0.88), (2600, 0.75))
    finished = [Observation(n, r_mem, 2000) for n, r_mem in trials]
    options = Options(LOW, HIGH, cost=cost)
    b = options.belief(finished)
    n = propose(finished, [], options)
    around = np.geomspace(b.median / 1.5, 1.5 * b.median, 200).round().astype(int)
    told = information(b, [n, *around], 2000) / ([n, *around] if cost == "images" else 1)
    assert told[0] > 0.9 * told.max()


@pytest.mark.parametrize("cost", ["images", "constant"])
def test_noisy_trials_on_one_side_do_not_hold_it_there(cost):
    """Of seeds that disagree most pass above the EMM, which is where their mean crosses: nine trials
    at one N tell neither slope nor noise, and it must look elsewhere."""
    r = (0.96, 0.94, 0.77, 0.93, 0.92, 0.94, 0.82, 0.95, 0.9)
    finished = [Observation(2000, r_mem, 500) for r_mem in r] + [Observation(3500, 0.5, 500)]
    n = propose(finished, [], Options(LOW, HIGH, cost=cost))
    assert abs(math.log(n / 2000)) > 0.1


def test_where_all_trials_cost_the_same_it_bisects():
    options = Options(LOW, HIGH, cost="constant")
    assert propose([], [], options) == 2000
    assert propose([Observation(2000, 1.0, 2000)], [], options) > 5000
    assert propose([Observation(2000, 0.0, 2000)], [], options) < 700


def test_replicates_at_every_n():
    options = Options(LOW, HIGH, replicates=3)
    finished, verdict = search(curve(3000), options)
    counts = Counter(o.n for o in finished)
    assert verdict.state == "found"
    assert set(counts.values()) == {3}
    assert verdict.emm_low < 3000 < verdict.emm_high
    n = propose([], [], options)
    assert [propose([], [n] * i, options) for i in range(3)] == [n, n, n]
    assert propose([], [n] * 3, options) > n


def test_the_cap_ends_a_study_amid_its_replicates():
    """3 trials, times 2 seeds, and two N have one seed each."""
    ns = (100, 100, 250, 250, 600, 900)
    options = Options(LOW, HIGH, replicates=2, max_trials=3)
    finished = [Observation(n, 0.99, 2000) for n in ns]
    assert judge(finished[:-1], options).state == "searching"
    assert propose(finished, [], options) == 600
    assert judge(finished, options).state == "unresolved"
    assert "after all 6 trials" in judge(finished, options).reason


@pytest.mark.parametrize(("emm", "end"), [(105, 100), (1000, None), (38_000, 40_000)])
def test_a_study_that_ends_unresolved_says_how_it_goes_on(emm, end):
    """At an end of the range as a transformer did, of whose 24 trials 18 were at the smallest N."""
    options = Options(100, 40_000, precision=0.02, max_trials=8)
    ns = [max(100, min(40_000, round(emm * factor))) for factor in (1, 1, 1, 1, 0.5, 0.7, 1.4, 1)]
    r = [0.94, 0.85, 0.92, 0.88, 0.99, 0.97, 0.8, 0.9]
    verdict = judge([Observation(n, value, 500) for n, value in zip(ns, r, strict=True)], options)
    assert verdict.state == "unresolved"
    assert ("let the range reach further" in verdict.reason) is (end is not None)
    assert f"N = {end}:" in verdict.reason or end is None
    assert ("with a larger max_trials it goes on" in verdict.reason) is (end is None)


def test_what_reaches_the_target_exactly_has_passed():
    assert Options(LOW, HIGH, 0.7).passed(Observation(300, 0.7, 2000))
    assert not Options(LOW, HIGH, 0.7).passed(Observation(300, 0.6995, 2000))


def test_the_bound_of_early_acceptance():
    assert accept_bound(0.9) == pytest.approx(0.985, abs=5e-4)
    assert all(target < accept_bound(target) < 1 for target in (0.01, 0.1, 0.5, 0.99))


def test_proposals_are_deterministic_and_forget_the_order():
    finished, _ = search(curve(3000), Options(LOW, HIGH))
    for k in range(len(finished)):
        n = propose(finished[:k], [], Options(LOW, HIGH))
        assert n == propose(finished[:k][::-1], [], Options(LOW, HIGH)) == finished[k].n
    fixed, running = Options(LOW, HIGH, cost="constant"), [1500, 2000, 3000, 4000, 2500]
    orders = [running, running[::-1], sorted(running), running[2:] + running[:2]]
    assert len({propose(finished[:4], order, fixed) for order in orders}) == 1


@pytest.mark.parametrize("cost", ["images", "constant"])
def test_running_trials_spread(cost):
    options = Options(LOW, HIGH, cost=cost)
    for finished in ([], [Observation(100, 1.0, 2000)], search(curve(3000), options)[0][:-1]):
        pending = []
        for _ in range(8):
            pending.append(propose(finished, pending, options))
        assert len(set(pending)) == 8
    b = options.belief(finished)  # around the estimate by now: they divide the belief between them
    quantiles = sorted(b.cdf(n) for n in pending[:3])
    assert min(np.diff(quantiles)) > 0.1


@pytest.mark.parametrize("emm", [150, 15_000])
@pytest.mark.parametrize("options", [{}, {"replicates": 3}])
def test_eight_trials_at_a_time_find_it_too(emm, options):
    """The small ones end first, since time goes with N; those still running when it is decided are
    stopped."""
    options, r_mem = Options(LOW, HIGH, **options), curve(emm)
    finished, running = [], []  # (when, trial)
    now = 0.0
    while (verdict := judge(finished, options)).state == "searching":
        while len(running) < 8:
            n = propose(finished, [o.n for _, o in running], options)
            running.append((now + n, Observation(n, r_mem(n, len(finished) + len(running)), 2000)))
        running.sort(key=lambda one: one[0])
        now, trial = running.pop(0)
        finished.append(trial)
    assert verdict.state == "found"
    assert verdict.emm_low < emm < verdict.emm_high


def test_running_trials_do_not_pile_up():
    """Of eight, as many as a study has at once, hardly two are as good as one."""
    finished = [
        Observation(n, r, 2000) for n, r in ((100, 1.0), (250, 1.0), (2000, 0.95), (4000, 0.7))
    ]
    for cost in ("images", "constant"):
        pending = []
        for _ in range(8):
            pending.append(propose(finished, pending, Options(LOW, HIGH, cost=cost)))
        assert np.quantile(np.diff(np.log(sorted(pending))), 0.25) > 0.02


def test_a_range_from_one_is_left_upwards():
    assert propose([Observation(1, 1.0, 2000)], [], Options(1, 100)) > 1


def test_a_range_full_of_running_trials_repeats():
    assert propose([], [1, 2], Options(1, 2)) in (1, 2)
