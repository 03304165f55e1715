"""The spread over seeds as the report tells it: its interval holds, and says what a few trials
cannot."""

import math

import numpy as np
from scipy.special import expit, logit

from sweep.analysis.seeds import seed_rows
from sweep.analysis.summary import summary_of
from tests.fakes import fake_space
from tests.run.test_studies import record_of
from trainables.config.trial import TrialSpec
from trainables.trial.result import Result


def summary(noise, n_trials, replicates=1):
    """Of four configurations with trials around each EMM, `replicates` at every N."""
    space, rng, results = (
        fake_space((8, 12, 16, 20), max_trials=200, precision=0.5),
        np.random.default_rng(1),
        [],
    )
    for named in space.configurations:
        emm = 2 * named.factors["width"]
        for number in range(n_trials):
            n = round(emm * math.exp(0.3 * math.sin(number // replicates)))
            spec = TrialSpec(
                name=named.name,
                configuration=named.configuration,
                measurement=space.measurement,
                n=n,
                seed=number,
            )
            z = logit(0.9) - 4 * math.log(n / emm) + noise * rng.normal()
            k = rng.binomial(2000, expit(z))
            results.append(
                Result(
                    **dict(record_of(spec)),
                    complete=True,
                    r_mem=k / 2000,
                    n_samples=2000,
                    n_memorized=k,
                )
            )
    return summary_of(space, results, [])


def rows(*arguments, **more):
    return seed_rows(summary(*arguments, **more))


def test_the_spread_is_told_with_its_interval():
    held = []
    for row, width in zip(rows(0.35, 12), (8, 12, 16, 20), strict=True):
        name, sd, interval, half, half_interval, _ = row
        assert name == f"width={width}"
        low, high = map(float, interval.split(" to "))
        assert low < float(sd) < high
        half_low, half_high = map(float, half_interval.split(" to "))
        assert half_low < float(half) < half_high
        held.append(low < 0.35 < high)
    assert sum(held) >= 3


def test_the_interval_that_is_told_holds_with_95_percent():
    judged = summary(0.35, 5)
    for row, study in zip(seed_rows(judged), judged.studies, strict=True):
        middle, low, high = (study.belief.noise_quantile(q) for q in (0.5, 0.025, 0.975))
        assert row[1:3] == (f"{middle:.2f}", f"{low:.2f} to {high:.2f}")


def test_trials_at_one_n_stand_beside():
    judged = summary(0.2, 6, replicates=2)
    several = [f"{r.r_mem:.3f}" for r in judged.studies[0].complete if r.spec.n == 16]
    assert f"N = 16: {' '.join(several)}" in seed_rows(judged)[0][-1].split("; ")
    assert len(several) == 2
    assert "N = 16: " not in rows(0.2, 6)[0][-1]
