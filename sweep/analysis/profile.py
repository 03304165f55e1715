"""The EMM at other targets, from the trials of one search: a profile of R_mem instead of a number.

The trials lie where the search asked, near the crossing of its own target. Another crossing is told
where a trial that passes that target and one that does not lie near it, and the belief is narrow
enough: elsewhere its interval would rest on the form of the curve alone. Evidence: docs/search.md.
"""

from collections.abc import Sequence

from sweep.search.belief import Belief, Observation
from sweep.search.rules import Options, has_witnesses

PROFILE = (0.9, 0.5, 0.1, 0.01)
WIDEST = 0.25  # sd of ln EMM that is told


def belief_at(finished: Sequence[Observation], options: Options, target: float) -> Belief | None:
    """The belief of the EMM at another target than the search's own; None where trials tell
    nothing."""
    there = options.at(target)
    if not (any(map(there.passed, finished)) and any(map(there.missed, finished))):
        return None  # and no belief need be computed
    belief = there.belief(finished)
    return belief if belief.sd <= WIDEST and has_witnesses(finished, there, belief) else None
