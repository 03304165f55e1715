"""How much a trial is expected to tell of the EMM: against closed forms and bounds."""

import math

import numpy as np
import pytest
from scipy.special import expit, logit

from sweep.search.belief import NOISES, SLOPES, Observation, Prior, belief
from sweep.search.information import information

COUNTED = 10**9  # so many images that counting errs by nothing


def known(i_slope=16, i_noise=6):
    """A prior that knows the curve, logistic, its slope and the noise."""

    def sure(size, i):
        return tuple(float(k == i) for k in range(size))

    return Prior(sure(3, 0), sure(len(SLOPES), i_slope), sure(len(NOISES), i_noise))


def believed(prior, at=1000, times=4, target=0.5):
    """After some trials at the EMM itself, where R_mem is graded."""
    return belief([Observation(at, target, COUNTED)] * times, 10, 100_000, target, prior)


def gaussian(b, slope, noise, trials):
    """Information of as many trials about the mean of a normal: ½ ln(1 + k s² σ² / g²)."""
    return 0.5 * math.log(1 + trials * (slope * b.sd / noise) ** 2)


@pytest.mark.parametrize("times", [2, 6])
@pytest.mark.parametrize("i_noise", [5, 7])
def test_where_slope_and_noise_are_known_it_is_that_of_a_normal(times, i_noise):
    """Less what bins of R_mem, 20 cells of EMM and one trial in fifty that means nothing take of it."""
    b, slope, noise = believed(known(16, i_noise), times=times), SLOPES[16], NOISES[i_noise]
    (told,) = information(b, [1000], COUNTED)
    assert 0.7 < told / gaussian(b, slope, noise, 1) < 1.01


def test_a_trial_beside_running_ones_tells_what_is_left():
    """k + 1 trials tell ½ ln(1 + (k + 1) s²σ²/g²), of which k are on their way."""
    b, slope, noise = believed(known(), times=2), SLOPES[16], NOISES[6]
    for k in (1, 3, 7):
        (told,) = information(b, [1000], COUNTED, [1000] * k)
        left = gaussian(b, slope, noise, k + 1) - gaussian(b, slope, noise, k)
        assert told == pytest.approx(left, rel=0.25)


@pytest.mark.parametrize("target", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("n_samples", [1, 100_000])
@pytest.mark.parametrize("running", [[], [30] * 2, list(range(10, 90)) * 8])
def test_it_is_a_number_whatever_is_asked(target, n_samples, running):
    told = information(belief([], 10, 100, target), [10, 11, 100], n_samples, running)
    assert np.isfinite(told).all()
    assert (told > -1e-9).all()


def test_what_runs_tells_in_any_order_and_most_where_it_is():
    """A second trial beside one that runs tells less of what that will tell; far away it is as good
    as before."""
    trials = [Observation(n, r, 2000) for n, r in ((500, 0.99), (1000, 0.93), (2000, 0.55))]
    b, n = belief(trials, 10, 100_000), [900, 1200, 1500, 4000]
    alone, beside = information(b, n, 2000), information(b, n, 2000, [1200])
    assert (beside < 1.02 * alone).all()
    assert np.argmin(beside / alone) in (0, 1, 2)
    one, other = (
        information(b, n, 2000, order) for order in ([900, 1200, 1500], [1500, 900, 1200])
    )
    assert one == pytest.approx(other, rel=1e-12)


def test_counting_few_images_tells_less():
    b = believed(known(), times=2)
    told = [information(b, [1000], n_samples)[0] for n_samples in (10, 100, 10_000)]
    assert told == sorted(told)
    assert told[0] < 0.7 * told[2]


def test_far_from_the_emm_a_trial_tells_nothing_and_nothing_is_ever_taken_away():
    b = believed(known(), target=0.9)
    told = information(b, [10, 100, 900, 1000, 1100, 10_000, 100_000], COUNTED)
    assert (told > -1e-9).all()
    assert told[[0, 1, 5, 6]].max() < 0.02 < 0.08 < told[[2, 3, 4]].min()


def test_it_agrees_with_futures_drawn_by_hand():
    """An independent way: draw what the trial will show, add it to the trials, and see by how much
    the belief's entropy falls, on average."""
    before = [Observation(n, r, 2000) for n, r in ((500, 0.99), (1000, 0.93), (2000, 0.55))]
    b = belief(before, 10, 100_000)
    cells = np.array([b.quantile(q) for q in np.linspace(0, 1, 21)[1:-1]])

    def entropy(of):
        p = np.diff([0, *(of.cdf(n) for n in cells), 1])
        return -np.sum(p * np.log(np.maximum(p, 1e-12)))

    rng = np.random.default_rng(1)
    for n in (700, 1300):
        mean, variance = b.logits([n], 4000)
        z = rng.choice(mean[:, 0] + np.sqrt(variance[:, 0]) * rng.standard_normal(4000), 300)
        shown = rng.binomial(2000, expit(z)) / 2000
        after = [belief([*before, Observation(n, r, 2000)], 10, 100_000) for r in shown]
        fall = entropy(b) - np.mean([entropy(one) for one in after])
        (told,) = information(b, [n], 2000)
        assert told == pytest.approx(fall, rel=0.25)


def test_with_many_trials_at_the_emm_one_elsewhere_tells_more():
    """Trials at the EMM itself never tell the slope, on which the width of the belief hangs."""
    trials = [Observation(1000, expit(logit(0.9) + e), 2000) for e in np.linspace(-0.5, 0.5, 9)]
    at, elsewhere = information(belief(trials, 10, 100_000), [1000, 2000], 2000)
    assert elsewhere > 3 * at
