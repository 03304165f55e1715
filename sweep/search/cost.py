"""What searches cost, by simulation (docs/search.md), in the unit of their trials: a trial at N costs
N where that is what it trains on (`Options.cost` "images"), and 1 where all cost the same."""

import math
from collections.abc import Iterable
from typing import Literal, Protocol

Cost = Literal["images", "constant"]

# of a trial, by the unit of its length: ∝ N at fixed epochs, the same for every N at fixed steps
COSTS: dict[str, Cost] = {"epochs": "images", "steps": "constant"}

# until an EMM is found: in trials at N = EMM, and in trials …
SEARCH_COST: dict[Cost, float] = {"images": 4.9, "constant": 5.9}
TARGET_COST: dict[Cost, float] = {"images": 5.0, "constant": 1.6}  # … more for every other target
GUARD_COST: dict[Cost, float] = {"images": 3.8, "constant": 0.6}  # … and for a look far above it
REPLICATE_COST = 0.36  # of all that, more for every other seed at an N: it tells of the curve, too

# of a search, by how precisely it is asked: at √2 times the usual sd .87, at 1/√2 of it 1.14
USUAL_PRECISION, PRECISION_POWER = 0.12, 0.4

SHORTENED = 0.7  # what is left of the time of a search where many trials run at once


class Asked(Protocol):
    """Of a search, as fields of `Search` and `Options`: what else than one EMM it is to tell."""

    @property
    def cap(self) -> int: ...
    @property
    def precision(self) -> float: ...
    @property
    def replicates(self) -> int: ...
    @property
    def targets(self) -> tuple[float, ...]: ...
    @property
    def guard(self) -> bool: ...


def search_cost(cost: Cost, asked: Asked) -> float:
    """Of a whole search, in trials at N = EMM or in trials."""
    more = TARGET_COST[cost] * len(asked.targets) + GUARD_COST[cost] * asked.guard
    by_precision = math.pow(USUAL_PRECISION / asked.precision, PRECISION_POWER)
    by_seeds = 1 + REPLICATE_COST * (asked.replicates - 1)
    return min((SEARCH_COST[cost] + more) * by_precision * by_seeds, float(asked.cap))


def unit(cost: Cost, n: float) -> float:
    """What a trial at N = `n` costs."""
    return n if cost == "images" else 1.0


def units_left(
    cost: Cost, asked: Asked, emm: float, finished: Iterable[int], running: Iterable[int] = ()
) -> float:
    """What a search that is not decided still costs, beside its running trials, if it is like most:
    one trial at least, unless one is running.

    emm: as far as it is known; finished, running: N of its trials.
    """
    running = list(running)
    spent = sum(unit(cost, n) for n in [*finished, *running])
    left = search_cost(cost, asked) * unit(cost, emm) - spent
    return max(left, 0.0 if running else unit(cost, emm))


def wall_time(parts: Iterable[float], workers: int) -> float:
    """Of searches that take so long by themselves, in the same unit: all workers share them, and the
    longest is shortened to `SHORTENED` at least by more than one worker."""
    parts = list(parts)
    longest = max(parts, default=0.0)
    return max(sum(parts) / workers, longest if workers == 1 else SHORTENED * longest)
