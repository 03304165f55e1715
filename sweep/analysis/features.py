"""The results of a sweep as another eye judges them: R_mem in features in place of R_mem in pixels.
Nothing is trained."""

from typing import Any

from trainables.measure.feature_rule import LEAST_HELD_OUT
from trainables.measure.measures import MEASURES, Measures
from trainables.trial.result import Result

# measures that do not follow from the rule in pixels: they are told of both eyes
OF_BOTH = (
    *("median_d1", "nn_distance", "unseen_labels", "c_t"),
    *("r_mem_features", "features_null", "features_threshold"),
)


def result_in_features(result: Result, target: float) -> Result:
    """A trial's result in features; what the rule in pixels says beside R_mem is then not known.

    Which snapshot is measured, how many images are enough, and whether the trial is accepted early
    was decided in pixels. An R_mem that was a lower bound still is one; below the target it says
    nothing, and the trial counts as failed, as it does where it is not known in features.
    """
    if not result.complete:
        return result
    r_mem = result.r_mem_features
    seen: dict[str, Any] = {
        name: Measures.model_fields[name].default for name in MEASURES if name not in OF_BOTH
    }
    seen |= {"curve": (), "r_mem": r_mem, "n_memorized": round((r_mem or 0) * result.n_samples)}
    cause = None
    if r_mem is None:
        cause = f"fewer than {LEAST_HELD_OUT} held-out images: in features nothing is known"
    elif result.right_censored and r_mem < target:
        cause = f"accepted early; in features its R_mem is only known to be above {r_mem:.3f}"
    if cause is not None:
        seen |= {"complete": False, "cause": cause}
    return result.model_copy(update=seen)
