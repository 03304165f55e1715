"""What benchmarks/baselines.py makes of trials, against closed forms and known values."""

import math

import numpy as np
import pytest
from scipy.special import expit, logit

from benchmarks import baselines
from benchmarks.bank_numbers import shared
from benchmarks.baselines import Replay, Task, linear, log_linear, logistic_fit
from benchmarks.replay import RealCurves, cost_in_trainings, curves_of, truth

EMM, SLOPE = 217.0, 3.0


def logistic(n: float) -> float:
    """R_mem without noise: .9 at EMM."""
    return float(expit(logit(0.9) - SLOPE * math.log(n / EMM)))


def task(r_mem=logistic, low=50, high=2000, target=0.9, trials=8) -> Task:
    return Task(r_mem, low, high, target, trials)


# --- what is made of trials


def test_the_papers_figure_gives_the_papers_emm():
    """Their R_mem of unconditional CIFAR-10, digitised; they say 1.06k."""
    r = [0.991, 0.92, 0.609, 0.346, 0.171, 0.089]
    assert linear(baselines.PAPER_SIZES, r, 0.9) == pytest.approx(1064, abs=1)


def test_lines_cross_where_numpy_has_them():
    n, r = [10, 20, 45, 80, 90], [0.99, 0.95, 0.7, 0.4, 0.1]
    for target in (0.5, 0.9, 0.93):
        expected = np.interp(-target, [-one for one in r], n)
        assert linear(n, r, target) == pytest.approx(expected)


@pytest.mark.parametrize("trials", [4, 7, 20])
@pytest.mark.parametrize("target", [0.9, 0.5])
def test_a_logistic_curve_without_noise_is_told_exactly(trials: int, target: float):
    n = baselines.log_sizes(100, 700, trials)
    r = [logistic(one) for one in n]
    crossing = EMM * math.exp((logit(0.9) - logit(target)) / SLOPE)
    assert log_linear(n, r, target) == pytest.approx(crossing, rel=1e-9)
    here = task(low=100, high=700, target=target)
    assert logistic_fit(n, r, here) == pytest.approx(crossing, rel=1e-5)


def test_a_line_in_n_errs_by_what_the_curve_bends():
    """Between a and b a curve lies at most (b − a)²/8 · max|R″| off its chord; over the slope of the
    chord that is the error in N."""
    n = [200, 300]
    r = [logistic(one) for one in n]
    fine = np.linspace(*n, 1001)
    bend = np.abs(np.gradient(np.gradient([logistic(one) for one in fine], fine), fine)).max()
    bound = (n[1] - n[0]) ** 2 / 8 * bend / ((r[0] - r[1]) / (n[1] - n[0]))
    error = abs(linear(n, r, 0.9) - EMM)
    assert 1 < error < bound


@pytest.mark.parametrize("rule", [linear, log_linear])
def test_the_last_of_several_crossings_is_the_emm(rule):
    n = [10, 20, 40, 80, 160]
    assert 80 < rule(n, [0.95, 0.8, 0.7, 0.95, 0.5], 0.9) < 160
    assert math.isnan(rule(n, [0.8, 0.7, 0.6, 0.5, 0.4], 0.9))  # none passes
    assert math.isnan(rule(n, [0.8, 0.99, 0.99, 0.99, 0.9], 0.9))  # the largest passes


def test_no_copies_or_copies_alone_have_a_logit():
    assert 20 < log_linear([20, 40], [1.0, 0.0], 0.9) < 40
    middle = log_linear([20, 40], [1.0, 0.0], 0.5)
    assert middle == pytest.approx(math.sqrt(20 * 40))


def test_a_fit_that_crosses_out_of_range_is_no_answer():
    assert math.isnan(logistic_fit([50, 100, 200], [0.5, 0.3, 0.1], task()))
    assert math.isnan(logistic_fit([500, 1000, 2000], [0.99, 0.98, 0.97], task()))


# --- where trials are spent


def test_grids_reach_from_end_to_end():
    assert baselines.paper_sizes(500, 5000) == list(baselines.PAPER_SIZES)
    assert baselines.paper_sizes(3, 300) == [  # by the square of each ratio
        *(round(3 * (size / 500) ** 2) for size in baselines.PAPER_SIZES)
    ]
    assert baselines.log_sizes(1, 1024, 11) == [2**i for i in range(11)]
    assert baselines.log_sizes(4, 8, 9) == [4, 5, 6, 7, 8]  # once each


@pytest.mark.parametrize("method", baselines.METHODS)
def test_every_way_spends_what_it_is_given_and_is_near_a_truth_without_noise(method: str):
    asked: list[int] = []

    def r_mem(n: int) -> float:
        asked.append(n)
        return logistic(n)

    answer = baselines.METHODS[method](task(r_mem))
    assert len(asked) == (6 if "paper" in method else 8)
    assert min(asked) >= 50
    assert max(asked) <= 2000
    assert abs(math.log(answer / EMM)) < math.log(2000 / 50) / 4


def test_bisection_asks_for_middles():
    asked: list[int] = []

    def step(n: int) -> float:
        asked.append(n)
        return float(n <= 40)

    answer = baselines.bisection(task(step, low=1, high=2**16, trials=5))
    assert asked == [2**8, 2**4, 2**6, 2**5, round(2**5.5)]
    assert answer == pytest.approx(math.sqrt(32 * 45))


@pytest.mark.parametrize("trials", [3, 6, 10])
@pytest.mark.parametrize("emm", [3.1e4, 2.2e6, 8e7])
def test_bisection_ends_within_the_range_over_two_to_the_trials(trials: int, emm: float):
    low, high = 10_000, 100_000_000  # whole numbers lie close there
    answer = baselines.bisection(task(lambda n: float(n <= emm), low, high, trials=trials))
    if trials == 3 and emm in (3.1e4, 8e7):  # an end of the bracket is the range's, untrained
        assert math.isnan(answer)
    else:
        assert abs(math.log(answer / emm)) < math.log(high / low) / 2 ** (trials + 1) + 1e-3


def test_bisection_stops_where_no_whole_number_is_left():
    asked: list[int] = []

    def step(n: int) -> float:
        asked.append(n)
        return float(n <= 13)

    assert baselines.bisection(task(step, 5, 42, trials=24)) == pytest.approx(math.sqrt(13 * 14))
    assert len(asked) == len(set(asked)) < 8


@pytest.mark.parametrize("which", ["TPE", "GP"])
def test_a_study_answers_with_its_nearest_trial(which: str):
    seen: dict[int, float] = {}

    def r_mem(n: int) -> float:
        seen[n] = abs(logistic(n) - 0.9)
        return logistic(n)

    answer = baselines.best_of(task(r_mem), which)
    assert seen[round(answer)] == min(seen.values())


# --- replays


def test_errors_are_those_of_the_answers_that_are_there():
    """In ln; a replay without an answer costs as much, and errs in nothing."""
    answers = [100 * math.exp(error) for error in (0.1, -0.2, 0.3, -0.4, 0.5)] + [math.nan] * 5
    replays = [Replay(answer, i, 2.0 * i) for i, answer in enumerate(answers)]
    s = baselines.summary(replays, 100.0)
    assert (s.replays, s.trials, s.cost, s.answers) == (10, 4.5, 9.0, 50.0)
    assert s.median == pytest.approx(30)
    assert s.high == pytest.approx(46)  # at 3.6 of 0 … 4
    assert math.isnan(s.half_width)
    assert "| none | – | – |" in baselines.row("x", "y", s)


def test_intervals_are_judged_where_there_are_some():
    intervals = [(90, 160), (101, 121), (81, 99), (95, 105)]
    replays = [Replay(100, 6, 6, *one) for one in intervals] + [Replay(math.nan, 6, 6)]
    s = baselines.summary(replays, 100.0)
    assert s.coverage == 50
    middle = math.sqrt(121 / 101) + math.sqrt(99 / 81)  # neither the widest nor the narrowest
    assert s.half_width == pytest.approx(100 * (middle / 2 - 1))
    assert "| 95 % | 50.0 |" in baselines.row("x", "y", s)


def test_cost_is_in_images_where_epochs_are_fixed():
    emm = truth("digits-epochs", "mean")
    assert cost_in_trainings("digits-epochs", 3, 2 * emm) == pytest.approx(2)
    assert cost_in_trainings("digits-width8", 3, 900) == 3
    one = baselines.replay(("log grid, interpolated", "digits-epochs", 8, 1, 1))
    assert one.cost == pytest.approx(sum(baselines.log_sizes(5, 33, 8)) / emm)
    wide = baselines.replay(("log grid, interpolated", "digits-epochs", 8, 1, 4))
    assert wide.cost == pytest.approx(sum(baselines.log_sizes(5, 4 * 33, 8)) / emm)


def test_a_seed_is_a_replay():
    jobs = [("bisection, logistic fit", "mnist14", 7, seed, 1) for seed in (1, 1, 2)]
    first, again, other = map(baselines.replay, jobs)
    assert str(first) == str(again)  # some of its numbers are not numbers
    assert first.answer != other.answer


def test_curves_go_on_as_they_fell():
    """Above the largest size, on the logit in ln N."""
    n = np.array([4.0, 6, 9, 14, 20, 30])
    deviates = np.array([-1.0, 0, 1])[:, None]
    curves = RealCurves(n, 2.5 - 3 * np.log(n / 10) + 0.2 * deviates, "constant", 0.9)
    for beyond in (31, 60, 300):
        expected = 2.5 - 3 * math.log(beyond / 10)
        assert curves.mean(beyond) == pytest.approx(expected, abs=1e-6)
        assert logit(curves.at(beyond)) == pytest.approx(expected + 0.2 * deviates[:, 0], abs=1e-6)
    assert curves.searched() == (4, 30)
    assert curves.searched(16) == (4, 480)


def test_curves_of_the_bank_are_continuous_at_their_ends():
    for name in baselines.NAMES:
        curves = curves_of(name)
        end = curves.sizes[-1]
        assert curves.mean(end * 1.0001) == pytest.approx(curves.mean(end), abs=1e-2)
        assert curves.mean(16 * end) < curves.mean(end)


def test_the_overview_has_a_line_for_each_method(capsys: pytest.CaptureFixture[str]):
    """Means over configurations, and the errors on each."""
    ours = [Replay(110, 6, 4, 90, 120)] * 3
    grid = [Replay(80, 8, 10)] * 2 + [Replay(math.nan, 8, 10)] * 2
    results = {
        ("a", "ours"): baselines.summary(ours, 100.0),
        ("a", "grid"): baselines.summary(grid, 100.0),
        ("b", "ours"): baselines.summary([Replay(100, 9, 9, 90, 120)], 100.0),
        ("b", "grid"): baselines.summary([Replay(100, 8, 20)], 100.0),
    }
    baselines.overview(results)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "| ours | 7.5 | 6.5 | 100.0 | 95 % | 9.5 / 9.5 | 0.0 / 0.0 |",
        "| grid | 8.0 | 15.0 | 75.0 | none | 22.3 / 22.3 | 0.0 / 0.0 |",
    ]


# --- what the bank says of its seeds


def test_what_the_sizes_of_a_seed_share_is_the_intraclass_correlation_of_the_book():
    """Shrout and Fleiss 1979, table 2: six targets, four judges who differ in their means; ICC(3, 1)
    is .71 (their table 4)."""
    ratings = [
        [9, 2, 5, 8],
        [6, 1, 3, 2],
        [8, 4, 6, 8],
        [7, 1, 2, 6],
        [10, 5, 6, 9],
        [6, 2, 4, 7],
    ]
    assert shared(np.array(ratings, float)) == pytest.approx(0.7148, abs=1e-4)


def test_seeds_that_share_nothing_are_said_to_share_nothing():
    rng = np.random.default_rng(0)
    found = [shared(rng.normal(size=(12, 3))) for _ in range(4000)]
    assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / math.sqrt(4000))
