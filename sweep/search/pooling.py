"""What the studies of a sweep tell each other: the shape of R_mem(N) and its noise, never the EMM.

A handful of trials can't tell the noise between seeds from the slope of the curve; all trials of a
sweep can, where the configurations share a training recipe.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sweep.search.belief import Array, Prior, base_prior, pool, pool_each

MIN_POOLED = 4  # finished studies that share a recipe


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
