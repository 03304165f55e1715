"""The spread over seeds: variance components that are known, and what is said where they can't be told."""

import math

import numpy as np
import pytest
from scipy.special import expit, logit

from sweep.seeds import seed_lines, spread
from sweep.summary import summary_of
from tests.fakes import fake_space
from tests.test_studies import record_of
from trainables.config import TrialSpec
from trainables.result import Result

N_SAMPLES = 1_000_000  # counting errors are small beside the spread


def swept(subset_sd, own_sd, n_seeds=40, widths=(8, 12, 16, 20)):
    """A summary of trials around each EMM whose logit R_mem has a part that the seed decides for all, and one of its own."""
    space = fake_space(widths, max_trials=200, precision=0.5)
    rng = np.random.default_rng(1)
    common = subset_sd * rng.normal(size=n_seeds)
    results = []
    for named in space.configurations:
        for seed in range(n_seeds):
            n = round(2 * named.factors["width"] * math.exp(rng.uniform(-0.3, 0.3)))
            spec = TrialSpec(name=named.name, configuration=named.configuration, measurement=space.measurement, n=n, seed=seed)
            z = logit(0.9) - 4 * math.log(n / (2 * named.factors["width"])) + common[seed] + own_sd * rng.normal()
            k = rng.binomial(N_SAMPLES, expit(z))
            results.append(
                Result(**dict(record_of(spec)), complete=True, r_mem=k / N_SAMPLES, n_samples=N_SAMPLES, n_memorized=k)
            )
    return summary_of(space, results, [])


@pytest.mark.parametrize(("subset_sd", "own_sd"), [(0.3, 0.3), (0.0, 0.4), (0.4, 0.1)])
def test_variance_components_are_found(subset_sd, own_sd):
    summary = swept(subset_sd, own_sd)
    found = spread(summary.studies)
    assert found is not None
    share = subset_sd**2 / (subset_sd**2 + own_sd**2)
    assert found.low - 1e-9 <= share <= found.high + 1e-9
    assert found.high - found.low < 0.6
    assert found.sd == pytest.approx(math.hypot(subset_sd, own_sd), rel=0.25)


def test_few_seeds_cannot_tell():
    summary = swept(0.3, 0.3, n_seeds=3)
    assert spread(summary.studies) is None
    assert "too few seeds" in seed_lines(summary)[-1]


def test_one_configuration_shares_no_seed():
    assert spread(swept(0.3, 0.3, widths=(8,)).studies) is None
