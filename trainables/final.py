"""A last, larger measurement of a finished trial, from its weights: more images, nothing trained, no Ray."""

import torch

from trainables import checkpoint
from trainables.config import derive_seed
from trainables.custom import build_trainer
from trainables.datasets import ImageData, subset_order
from trainables.errors import TrialFailed
from trainables.memorization import nearest_two
from trainables.result import WEIGHTS, FinalMeasurement, Result, trial_directory
from trainables.storage import Storage


def measure_final(result: Result, data: ImageData, sweep: Storage, n_samples: int, device: torch.device) -> FinalMeasurement:
    """R_mem of `n_samples` images with latents that no other measurement uses, `measurement.batch` at a time.

    Raises TrialFailed if the trial's weights are gone.
    """
    how, seed = result.measurement, result.spec.seed
    kept = checkpoint.load(trial_directory(sweep, result.training_key), WEIGHTS)
    if kept is None:
        raise TrialFailed(f"the weights of N={result.spec.n}, seed {seed} are gone")
    images = torch.from_numpy(data.images[subset_order(data, seed)[: result.spec.n]])
    trainer = build_trainer(result.configuration, images, None, seed, device)
    trainer.load_sampling_weights(kept["ema"])
    n_memorized = 0
    for start in range(0, n_samples, how.batch):
        indices = range(start, min(start + how.batch, n_samples))
        samples = trainer.sample([derive_seed("last", data.digest, seed, index) for index in indices], how)
        n_memorized += int(nearest_two(samples, images, device).memorized(how.k).sum())
    return FinalMeasurement(r_mem=n_memorized / n_samples, n_samples=n_samples, n_memorized=n_memorized)
