"""Synthetic configurations whose EMM is known, and whole searches of them."""

import math

import numpy as np
from scipy.special import expit, logit

from sweep.search.belief import Observation
from sweep.search.rules import judge, propose

LOW, HIGH = 100, 40_000


def curve(emm, slope=4.0, noise=0.2, target=0.9, n_samples=2000):
    """R_mem(n, seed) of a synthetic configuration."""

    def r_mem(n, seed):
        rng = np.random.default_rng((seed, round(emm)))
        r = expit(logit(target) - slope * math.log(n / emm) + noise * rng.normal())
        return rng.binomial(n_samples, r) / n_samples

    return r_mem


def search(r_mem, options):
    """Finished trials of a whole search, and the verdict."""
    finished = []
    while (verdict := judge(finished, options)).state == "searching":
        n = propose(finished, [], options)
        finished.append(Observation(n, r_mem(n, len(finished)), 2000))
        assert len(finished) <= options.max_trials
    return finished, verdict
