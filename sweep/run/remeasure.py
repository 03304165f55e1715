"""A finished sweep looked at by another eye than pixels, on this machine: its trials stay as they
are, and nothing is trained."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import SearchSpace
from sweep.analysis.summary import SweepSummary, seen_in
from sweep.run.checks import Sweep
from trainables.config.identity import identity, key_of
from trainables.config.measurement import FEATURES, Measurement
from trainables.errors import DamagedFile
from trainables.measure.feature_rule import InFeatures
from trainables.measure.features import FeatureSpace
from trainables.measure.kept import PARTS, arrays_in_features, in_features_of
from trainables.storage import Storage
from trainables.trial.again import check_data, look_again
from trainables.trial.result import Result, read_arrays

DISTANCES = "distances"  # of each trial that was looked at, beside the report


def space_in_features(space: SearchSpace, how: Measurement) -> SearchSpace:
    """As if the sweep had been measured in the features that `how` names."""
    return space.model_copy(update={"measurement": _with_features(space.measurement, how)})


def _with_features(measurement: Measurement, how: Measurement) -> Measurement:
    return measurement.model_copy(update={name: getattr(how, name) for name in FEATURES})


def remeasure(
    pixels: SweepSummary,
    sweep: Storage,
    how: Measurement,
    features: FeatureSpace,
    out: Path,
    tell: Callable[[Result], None],
) -> SweepSummary:
    """The sweep judged in the features that `how` names, with its summary in `pixels` beside.

    out: where distances are kept, so that a second call looks only at what is new; tell: is given
    each result, with its numbers in features. A trial whose images are lost is passed over. Raises
    UserError if the data are not those of the sweep.
    """
    space = space_in_features(pixels.space, how)
    loaded, kept, damaged = Sweep(space), Storage(str(out)), list(pixels.damaged)

    def name_of(result: Result) -> str:
        return f"{DISTANCES}/{key_of({'trial': result.measurement_key, **identity(how)})}.npz"

    def seen(result: Result) -> Result:
        found = _read(kept, name_of(result), result.n_samples)
        asked = _asked(result, how)
        if found is None:
            found = look_again(asked, loaded.data_of(result.spec.name), sweep, features)
            with kept.writing(name_of(result)) as stream:
                np.savez_compressed(stream, **arrays_in_features(found))  # type: ignore[arg-type]
        return asked.model_copy(
            update={
                "r_mem_features": found.r_mem,
                "features_null": found.null_rate,
                "features_threshold": found.threshold,
            }
        )

    for result in (one for study in pixels.studies for one in study.complete):
        if not kept.exists(name_of(result)):  # before anything is written
            check_data(result, loaded.data_of(result.spec.name))
    studies = []
    for study in pixels.studies:
        results = [result for result in study.results if not result.complete]
        for result in study.complete:
            try:
                results.append(seen(result))
            except DamagedFile as error:
                damaged.append(str(error))
            else:
                tell(results[-1])
        studies.append(replace(study, results=sorted(results, key=lambda one: one.spec.seed)))
    looked_at = replace(pixels, space=space, studies=studies, damaged=damaged, other=None)
    return seen_in("features", looked_at)


def _asked(result: Result, how: Measurement) -> Result:
    """As if the trial had been measured in these features."""
    measurement = _with_features(result.measurement, how)
    spec = result.spec.model_copy(update={"measurement": measurement})
    return result.model_copy(update={"spec": spec})


def _read(storage: Storage, name: str, n: int) -> InFeatures | None:
    """Of n generated images; None if there is nothing, or nothing whole."""

    def check(kept: Mapping[str, NDArray[Any]]) -> None:
        found = in_features_of(kept)
        if found is None or any(len(getattr(found.found, part)) != n for part in PARTS):
            raise ValueError("it is of other images")

    try:
        kept = read_arrays(storage, name, check)
    except DamagedFile:
        return None
    return None if kept is None else in_features_of(kept)
