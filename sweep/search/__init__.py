"""The search for the EMM of one configuration, as an Optuna sampler; needs Optuna, numpy and scipy
alone.

`from sweep.search import EmmSampler, study_verdict, stop_when_decided` is the documented way in.
`belief`, `information`, `rules` and `pooling` are pure functions of observations; only `sampler`
knows Optuna, and it is imported when one of these names is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweep.search.sampler import EmmSampler, stop_when_decided, study_verdict

__all__ = ["EmmSampler", "stop_when_decided", "study_verdict"]


def __getattr__(name: str) -> Any:
    """The public names, on demand: `rules` and `belief` are used where Optuna is not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sweep.search import sampler

    return getattr(sampler, name)
