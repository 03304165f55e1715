"""A last, larger measurement of a finished trial, from its weights: more images, nothing trained,
no Ray."""

import torch

from trainables.config.identity import derive_seed
from trainables.data.images import ImageData
from trainables.errors import TrialFailed
from trainables.storage import Storage
from trainables.training.build import build_trainer
from trainables.trial import weights as kept_weights
from trainables.trial.result import FinalMeasurement, Result, trial_directory
from trainables.trial.subset import Subset


def measure_final(
    result: Result, data: ImageData, sweep: Storage, n_samples: int, device: torch.device
) -> FinalMeasurement:
    """R_mem of `n_samples` images with latents that no other measurement uses, `measurement.at_once`
    at a time.

    Raises TrialFailed if the trial's weights are gone.
    """
    measurement = result.measurement
    weights = kept_weights.read(trial_directory(sweep, result.training_key))
    if weights is None:
        raise TrialFailed(f"the weights of N={result.spec.n}, seed {result.spec.seed} are gone")
    subset = Subset(result.spec, data, device)
    subset.open_features()
    trainer = build_trainer(
        result.configuration, subset.images, subset.label_tensor, result.spec.seed, device
    )
    trainer.load_sampling_weights(weights)
    n_memorized = 0
    for start in range(0, n_samples, measurement.at_once):
        # not `latent_seeds`: protocol=paper has one set of latents for all, and these are to be
        # fresh ones
        indices = range(start, min(start + measurement.at_once, n_samples))
        seeds = [derive_seed("last", data.digest, result.spec.seed, index) for index in indices]
        samples = trainer.sample(seeds, measurement, subset.sample_labels(seeds))
        n_memorized += int(subset.memorized(samples, subset.nearest(samples)).sum())
    return FinalMeasurement(
        r_mem=n_memorized / n_samples, n_samples=n_samples, n_memorized=n_memorized
    )
