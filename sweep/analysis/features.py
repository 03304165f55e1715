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


def result_in(eye: Eye, result: Result) -> Result:
    """A trial's result by the eye that it was not judged by; what the other rule says beside R_mem
    is then not known.

    Which snapshot is measured, how many images are enough, and whether the trial is accepted early
    was decided by the first eye. An R_mem that was a lower bound still is one, on whichever side of
    the target. A trial whose R_mem is not known in features counts as failed.
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
    if r_mem is None:
        cause = f"fewer than {LEAST_HELD_OUT} held-out images: in features nothing is known"
        seen |= {"complete": False, "cause": cause}
    return result.model_copy(update={**seen, "spec": spec})
