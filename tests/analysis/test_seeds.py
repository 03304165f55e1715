"""The spread over seeds as the report tells it: its interval holds, and says what a few trials
cannot."""

import math
import re

import numpy as np
from scipy.special import expit, logit

from sweep.analysis.seeds import seed_lines
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


def lines(*arguments, **more):
    return seed_lines(summary(*arguments, **more))


def test_the_spread_is_told_with_its_interval():
    held = []
    for line, width in zip(lines(0.35, 12), (8, 12, 16, 20), strict=True):
        said = re.fullmatch(
            r"width=(\d+): sd of logit R_mem between seeds (\S+) \[(\S+), (\S+)\]; half of the seeds "
            r"pass the target up to N = (\S+) \[(\S+) to (\S+)\](; N = .*)?",
            line,
        )
        assert int(said[1]) == width
        middle, low, high = map(float, said.groups()[1:4])
        assert low < middle < high
        half, half_low, half_high = map(float, said.groups()[4:7])
        assert half_low < half < half_high
        held.append(low < 0.35 < high)
    assert sum(held) >= 3


def test_the_interval_that_is_told_holds_with_95_percent():
    judged = summary(0.35, 5)
    for line, study in zip(seed_lines(judged), judged.studies, strict=True):
        middle, low, high = (study.belief.noise_quantile(q) for q in (0.5, 0.025, 0.975))
        assert f" between seeds {middle:.2f} [{low:.2f}, {high:.2f}]" in line


def test_trials_at_one_n_stand_beside():
    assert "; N = 16: R_mem " in lines(0.2, 6, replicates=2)[0]
    assert "; N = 16: R_mem " not in lines(0.2, 6)[0]
