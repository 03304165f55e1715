"""The results of a sweep as they would be at another k: from the distances that every trial keeps,
nothing is trained."""

from typing import Any

from search_spaces.space import SearchSpace
from trainables.config.measurement import Measurement
from trainables.data.labels import by_label, label_dim
from trainables.errors import DamagedFile
from trainables.measure.kept import Distances
from trainables.measure.measures import MEASURES, measures
from trainables.storage import Storage
from trainables.trial.result import MEASUREMENT, Result, read_measurement


def space_at(space: SearchSpace, k: float) -> SearchSpace:
    return space.model_copy(update={"measurement": _how(space.measurement, k)})


def result_at(result: Result, storage: Storage, k: float) -> Result:
    """A trial's result at another k; numbers of which no distances are kept (snapshots, ceiling)
    are then not known.

    Which snapshot is measured, how many images are enough, and whether the trial is accepted early
    was decided at the trial's own k. An R_mem that was a lower bound still is one, on whichever side
    of the target. Raises DamagedFile if the distances are lost.
    """
    if not result.complete:
        return result
    kept = read_measurement(storage, result)
    if kept is None:
        raise DamagedFile(
            f"--k: trials/{result.training_key} has no {MEASUREMENT}; without it only its own k "
            "is known"
        )
    distances = Distances.of_arrays(kept)
    subset = kept["subset"]
    labels = {name: kept[name] for name in ("labels", "subset_labels") if name in kept}
    # what distances do not tell: snapshots, the ceiling, and, where they were not kept, labels
    lost: dict[str, Any] = {name: None for name, row in MEASURES.items() if row.compute is None}
    lost["curve"] = ()
    spec = result.spec.model_copy(update={"measurement": _how(result.measurement, k)})
    dim = label_dim(result.configuration.labels, labels.get("subset_labels"))
    of_labels = by_label(distances.found.memorized(k), distances.found.i1, dim, subset, **labels)
    known = measures(distances, result.spec.n, k) | of_labels
    return result.model_copy(update={**lost, **known, "spec": spec})


def _how(measurement: Measurement, k: float) -> Measurement:
    """k is of the rule in pixels."""
    return measurement.model_copy(update={"k": k, "judge": "pixels"})
