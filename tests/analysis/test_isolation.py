"""Who is copied: the numbers of a study against permutations, simulation and known values."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr, t

from sweep.analysis.isolation import isolation_of, p_permuted
from sweep.report.page import report_page
from sweep.report.rows import isolation_rows
from tests.summaries import VERDICTS, found, study, sweep_of, trial


def copying(rho: float, images: int, **more: Any) -> Any:
    return trial("a", 30, 0, r_mem=0.9, isolation_rho=rho, isolation_images=images, **more)


def test_one_trial_has_the_interval_of_fisher() -> None:
    """Spearman's rho of .5 among 28 images: artanh .5 ± 1.96 √(1.06 / 25)."""
    one = isolation_of([copying(0.5, 28, isolation_rho_even=0.2)])
    assert one is not None
    half = 1.959964 * math.sqrt(1.06 / 25)
    expected = [math.tanh(math.atanh(0.5) + sign * half) for sign in (-1, 0, 1)]
    assert [one.low, one.rho, one.high] == pytest.approx(expected, abs=1e-6)
    assert (one.n_trials, one.n_images) == (1, 28)
    even = [math.tanh(math.atanh(0.2) + sign * half) for sign in (-1, 0, 1)]
    assert [one.even_low, one.even, one.even_high] == pytest.approx(even, abs=1e-6)
    assert one.p_permuted == pytest.approx(0.0094, abs=1e-3), "z = .5 √27"


def test_trials_that_agree_narrow_it_and_trials_that_do_not_widen_it() -> None:
    alone = isolation_of([copying(0.5, 28)])
    same = isolation_of([copying(0.5, 28)] * 4)
    apart = isolation_of([copying(rho, 28) for rho in (-0.6, 0.9, 0.2, 0.8)])
    assert alone is not None
    assert same is not None
    assert apart is not None
    width = [math.atanh(one.high) - math.atanh(one.low) for one in (alone, same, apart)]
    assert width[1] == pytest.approx(width[0] / 2)
    z = np.arctanh([-0.6, 0.9, 0.2, 0.8])
    assert width[2] == pytest.approx(2 * t.ppf(0.975, 3) * z.std(ddof=1) / 2, rel=1e-6)


def test_what_no_trial_can_tell() -> None:
    assert isolation_of([]) is None
    assert isolation_of([trial("a", 30, 0, r_mem=0.9), copying(0.5, 3)]) is None
    one = isolation_of([copying(0.5, 28)])
    assert one is not None
    assert (one.even, one.even_low, one.even_high) == (None, None, None)
    exact = isolation_of([copying(1.0, 20)])
    assert exact is not None
    assert exact.high <= 1
    assert math.isfinite(exact.low)


def test_p_is_that_of_permutations() -> None:
    """Of two trials with many ties: copies dealt anew to the images of each, 4,000 times."""
    rng = np.random.default_rng(0)
    copies = [rng.poisson(0.7, 16), rng.poisson(2, 40)]
    isolation = [rng.random(16), rng.random(40)]

    def total(of: list[Any]) -> float:
        pairs = zip(of, isolation, strict=True)
        return sum((len(x) - 1) * spearmanr(x, y).statistic for x, y in pairs)

    dealt = [total([rng.permutation(x) for x in copies]) for _ in range(4000)]
    images = np.array([16.0, 40.0])
    assert np.std(dealt) == pytest.approx(math.sqrt((images - 1).sum()), rel=0.05)
    for rho in ([0.3, 0.1], [-0.2, 0.3], [0.4, 0.35]):
        as_large = np.abs(dealt) >= abs(((images - 1) * rho).sum())
        assert p_permuted(np.array(rho), images) == pytest.approx(as_large.mean(), abs=0.03)


@pytest.mark.parametrize("n_trials", [2, 4])
def test_the_interval_covers_where_few_trials_differ(n_trials: int) -> None:
    """Each has a correlation of its own, around 0: sd .5 of artanh ρ, .2 of which is its images'."""
    rng = np.random.default_rng(n_trials)
    holds = []
    for _ in range(1000):
        of_trials = np.tanh(0.5 * rng.standard_normal(n_trials))
        one = isolation_of([copying(rho, 30) for rho in of_trials])
        assert one is not None
        holds.append(one.low <= 0 <= one.high)
    assert 0.935 <= np.mean(holds) <= 0.99


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_the_interval_covers(correlation: float) -> None:
    """Copies Poisson with a mean that goes with isolation, of four trials of 40 images: the
    interval holds what many images give, 95 of 100 times."""
    rng = np.random.default_rng(1)

    def rho(n: int) -> float:
        isolation = rng.standard_normal(n)
        copies = rng.poisson(12 * np.exp(correlation * isolation))
        return float(spearmanr(copies, isolation).statistic)

    truth, covered = np.mean([rho(40) for _ in range(3000)]), 0
    for _ in range(300):
        one = isolation_of([copying(rho(40), 40) for _ in range(4)])
        assert one is not None
        covered += one.low < truth < one.high
    assert covered / 300 == pytest.approx(0.95, abs=0.04)


def test_it_is_of_the_trials_near_the_emm_that_mostly_copy() -> None:
    known: Any = {"isolation_images": 40, "isolation_rho_even": 0.05}
    trials = [
        trial("a", 32, 0, r_mem=0.95, isolation_rho=0.4, **known),
        trial("a", 38, 1, r_mem=0.8, isolation_rho=0.4, **known),
        trial("a", 40, 2, r_mem=0.2, isolation_rho=-0.9, **known),  # hardly copies
        trial("a", 100, 3, r_mem=0.9, isolation_rho=-0.9, **known),  # far from the EMM
    ]
    one = study("a", found(35.0, 30.0, 40.0), trials)
    assert one.isolation is not None
    assert (one.isolation.n_trials, one.isolation.n_images) == (2, 80)
    assert one.isolation.rho == pytest.approx(0.4)
    told = one.as_json()["isolation"]
    assert told["rho"] == pytest.approx(0.4)
    assert told["even"] == pytest.approx(0.05)
    summary = sweep_of(one)
    (row,) = isolation_rows(summary)
    assert row == ("a", "+0.40", "+0.19 to +0.58", "2", "0.00041", "+0.05", "-0.18 to +0.28")
    page = report_page(summary, {}, "none")
    assert all(f">{cell}</td>" in page for cell in row)
    searching = study("a", VERDICTS["searching"], trials)
    assert searching.isolation is not None
    assert searching.isolation.n_trials == 3, "before there is an EMM, all that mostly copy"
