"""How much a trial is expected to tell of the EMM before it is trained.

The mutual information of EMM and R_mem (Lindley 1956, "On a measure of the information provided by
an experiment"), over all that is believed of slope, noise and curve: a trial that would tell only
these tells nothing. Cases of the belief, bins of R_mem and cells of EMM stand for integrals; that a
trial may be accepted early, and then tells and costs less, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, ndtr, rel_entr

from sweep.search.belief import OUTLIER, Array, Belief, counting_variance, graded

N_CASES = 800  # of what is believed

N_CELLS = 20  # of EMM, equally likely

N_BINS = 12  # of logit R_mem

N_FUTURES = 17  # of what running trials will show; a prime, for a lattice


def information(b: Belief, n: Sequence[int], n_samples: int, running: Sequence[int] = ()) -> Array:
    """[J], in nats, what one more trial at each of `n` [J] is expected to tell of the EMM beyond what
    those `running` will; all with `n_samples` generated images."""
    # cases come in the order of their EMM, so that as many in a row are a cell
    chances = _chances(b, n, n_samples).reshape(N_BINS, N_CELLS, -1, len(n))
    weights = _after(b, sorted(running), n_samples)
    weights = weights.reshape(len(weights), N_CELLS, -1)
    joint = np.einsum("fec,beci->febi", weights, chances)  # of futures, cells, bins and `n`
    if_independent = joint.sum(1, keepdims=True) * joint.sum(2, keepdims=True)
    told: Array = rel_entr(joint, if_independent).sum((1, 2)).mean(0)
    return told


def _chances(b: Belief, n: Sequence[int], n_samples: int) -> Array:
    """[N_BINS, N_CASES, J] the chance of each bin of R_mem in each case, at each of `n` [J]."""
    z, variance = b.logits(n, N_CASES)
    sd = np.sqrt(variance + counting_variance(expit(z), n_samples))
    edges = np.array([-np.inf, *np.linspace(*graded(b.target), N_BINS - 1), np.inf])
    cumulative = ndtr((edges[:, None, None] - z) / sd)
    chances: Array = (1 - OUTLIER) * np.diff(cumulative, axis=0) + OUTLIER / N_BINS
    return chances


def _after(b: Belief, running: Sequence[int], n_samples: int) -> Array:
    """[futures, N_CASES] weights of the cases once the running trials have ended: in each future
    another case is the truth, and with its own luck says what they show. One future if none runs."""
    if not running:
        return np.full((1, N_CASES), 1 / N_CASES)
    weights = np.full((N_FUTURES, N_CASES), 1 / N_CASES)
    futures = np.arange(N_FUTURES)
    truth = ((futures + 0.5) * N_CASES / N_FUTURES).astype(int)
    chances = _chances(b, running, n_samples)
    for i in range(len(running)):
        luck = ((i + 2) * (futures + i + 5) % N_FUTURES + 0.5) / N_FUTURES
        shown = (np.cumsum(chances[:-1, truth, i], 0) < luck).sum(0)
        weights *= chances[shown, :, i]
        weights /= weights.sum(1, keepdims=True)
    weights[weights < 1e-12] = 0  # whose products would underflow
    return weights
