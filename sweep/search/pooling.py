"""What the studies of a sweep tell each other: the shape of R_mem(N) and its noise, never the EMM.

A handful of trials can't tell the noise between seeds from the slope of the curve; all trials of a
sweep can, where the configurations share a training recipe.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from sweep.search.belief import (
    CURVES,
    NOISES,
    SHAPE,
    SLOPES,
    Array,
    Prior,
    _outer,
    base_prior,
    lognormal,
)

MIN_POOLED = 4  # finished studies that share a recipe

# A search ends when its trials agree, so that it finds less noise than there is, and the more so the
# noisier its seeds: .9 as .76, .35 as .29, .2 as .16 (docs/search.md, the spread over seeds). What
# studies found is stretched by so much, in ln g, away from a noise that is found as it is.
QUIET, STRETCH = 0.2, 1.25


def search_prior(tables: Sequence[Array]) -> Prior:
    """The prior of a study that starts when the studies behind `tables`, all of its recipe, are
    finished."""
    return pool(tables) if len(tables) >= MIN_POOLED else base_prior()


def report_priors(
    recipes: Mapping[str, str], tables: Mapping[str, Array]
) -> dict[str, Prior | None]:
    """For every finished study (a key of `tables`) the prior to report it with, pooled from the
    others of its recipe.

    None where it stands alone: there are too few others, or its own trials contradict them.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in tables:
        groups[recipes[name]].append(name)
    priors: dict[str, Prior | None] = {}
    for names in groups.values():
        pooled = (
            pool_each([tables[name] for name in names])
            if len(names) >= MIN_POOLED
            else [None] * len(names)
        )
        priors.update(zip(names, pooled, strict=True))
    return priors


def pool(tables: Sequence[Array]) -> Prior:
    """Prior of curve, slope and noise shared by the studies behind `tables` (each from
    `shape_likelihood`).

    EM: every study's posterior of its shape under the pooled prior, then log-normals fitted to
    their mixture, in which the base prior counts as one study more. Noise is then stretched
    (`STRETCH`), and a part of the noise and slope priors stays wide.
    """
    base = base_prior()
    curve, slope, noise = (np.array(w) for w in (base.curve, base.slope, base.noise))
    stacked = np.array(tables).reshape(-1, *SHAPE)
    for _ in range(60):
        posteriors = stacked * _outer(curve, slope, noise)
        total = (posteriors / posteriors.sum((1, 2, 3), keepdims=True)).sum(0)
        curve = total.sum((1, 2)) + 6 / len(CURVES)
        curve /= curve.sum()
        slope = lognormal(SLOPES, *_fit(SLOPES, total.sum((0, 2)) + base.slope, floor=0.2))
        centre, spread = _fit(NOISES, total.sum((0, 1)) + base.noise, floor=0.25)
        noise = lognormal(NOISES, centre, spread)
    noise = lognormal(NOISES, QUIET * (centre / QUIET) ** STRETCH, STRETCH * spread)
    # Most of all a lone noisy study stops too early: the pooled noise is never the whole prior. And
    # the fewer studies are alike, the more easily the next is unlike them.
    unlike = 0.1 + 0.4 / (len(tables) + 1)
    noise = (1 - unlike) * noise + unlike * lognormal(NOISES, 0.8, 0.5)
    slope = 0.9 * slope + 0.1 * lognormal(SLOPES, 3, 1)
    return Prior(tuple(curve), tuple(slope), tuple(noise))


def pool_each(tables: Sequence[Array]) -> list[Prior | None]:
    """For each study of a sweep the prior pooled from the *others*, with which to report it.

    None where it stands alone: fewer than three others, or its own trials contradict them: the base
    prior explains them better by half, although a part of the pooled prior is as wide.
    """
    priors: list[Prior | None] = []
    for i, table in enumerate(tables):
        others = [t for j, t in enumerate(tables) if j != i]
        prior = pool(others) if len(others) >= 3 else None
        if (
            prior
            and (table * base_prior().on(SLOPES)).sum() > 1.5 * (table * prior.on(SLOPES)).sum()
        ):
            prior = None
        priors.append(prior)
    return priors


def _fit(values: Array, weights: Array, floor: float) -> tuple[float, float]:
    """Centre and spread of the log-normal with the mean and sd of ln `values`; the spread is at
    least `floor`."""
    p = weights / weights.sum()
    mean = p @ np.log(values)
    return math.exp(mean), max(floor, math.sqrt(p @ (np.log(values) - mean) ** 2))
