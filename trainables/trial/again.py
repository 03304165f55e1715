"""A finished trial looked at by another eye, from the images that it kept: nothing is trained, no
Ray."""

import numpy as np
import torch

from trainables.data.images import ImageData
from trainables.errors import DamagedFile, UserError
from trainables.measure.feature_rule import InFeatures
from trainables.measure.features import FeatureSpace
from trainables.storage import Storage
from trainables.trial.result import MEASUREMENT, Result, read_measurement
from trainables.trial.subset import Subset


def check_data(result: Result, data: ImageData) -> None:
    """Raises UserError if `data` are not those that the trial was trained on."""
    if data.digest != result.data.digest:
        raise UserError(
            f"{result.spec.name}: its data are not those that it was trained on; put these back "
            "where the sweep found them"
        )


def look_again(
    result: Result, data: ImageData, sweep: Storage, features: FeatureSpace
) -> InFeatures:
    """Its generated images, and held-out images, against its training images: as if the trial had
    been measured in features, which its spec must name.

    Raises UserError as `check_data` does, and DamagedFile if its images are lost.
    """
    check_data(result, data)
    file = f"trials/{result.training_key}/{MEASUREMENT}"
    kept = read_measurement(sweep, result)
    if kept is None:
        raise DamagedFile(f"{file} is missing; without its images no other eye can look at them")
    subset = Subset(result.spec, data, features.device)
    is_of_data = kept["images"].shape[1:] == data.images.shape[1:]
    if not is_of_data or not np.array_equal(subset.indices, kept["subset"]):
        raise DamagedFile(f"{file} is of another subset, or of images of another size")
    return subset.bank(features).look_at(torch.from_numpy(np.array(kept["images"])))
