"""The results of a sweep as the other eye judges them: R_mem in features in place of R_mem in
pixels, or the other way round. Nothing is trained."""

from typing import Any, Literal

from trainables.measure.feature_rule import LEAST_HELD_OUT
from trainables.measure.measures import MEASURES, Measures
from trainables.trial.result import Result

Eye = Literal["pixels", "features"]

# measures that do not follow from how copies are told: they hold whatever the eye
OF_BOTH = (
    *("median_d1", "nn_distance", "unseen_labels", "c_t", "pair_agreement", "pair_distance"),
    *("r_mem_features", "features_null", "features_threshold"),
)


def result_in(eye: Eye, result: Result, target: float) -> Result:
    """A trial's result by the eye that it was not judged by; what the other rule says beside R_mem
    is then not known.

    Which snapshot is measured, how many images are enough, and whether the trial is accepted early
    was decided by the first eye. An R_mem that was a lower bound still is one; below the target it
    says nothing, and the trial counts as failed, as it does where it is not known in features.
    """
    measurement = result.measurement.model_copy(update={"judge": eye})
    spec = result.spec.model_copy(update={"measurement": measurement})
    if not result.complete:
        return result.model_copy(update={"spec": spec})
    seen: dict[str, Any] = {
        name: Measures.model_fields[name].default for name in MEASURES if name not in OF_BOTH
    }
    if eye == "features":
        r_mem, seen["r_mem_pixels"] = result.r_mem_features, result.r_mem
    else:
        r_mem = result.r_mem_pixels
    seen |= {"curve": (), "r_mem": r_mem, "n_memorized": round((r_mem or 0) * result.n_samples)}
    cause = None
    if r_mem is None:
        cause = f"fewer than {LEAST_HELD_OUT} held-out images: in features nothing is known"
    elif result.right_censored and r_mem < target:
        cause = f"accepted early; in {eye} its R_mem is only known to be above {r_mem:.3f}"
    if cause is not None:
        seen |= {"complete": False, "cause": cause}
    return result.model_copy(update={**seen, "spec": spec})
