"""The final measurement of a trial: images of its best snapshot, drawn until they are enough."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.labels import by_label
from trainables.measure.measures import measures
from trainables.measure.r_mem import Neighbours, n_sufficient
from trainables.trial.training import Training


class FinalSamples:
    """Images from the best snapshot of a training that is over, with fresh latents, so that its
    choice does not bias R_mem.

    protocol=paper takes the same latents again, and so the maximum over the snapshots. `n`: how
    many are enough, if that is known.
    """

    def __init__(self, training: Training, n: int | None = None) -> None:
        assert training.best is not None, "a training that is over has a snapshot"
        self.training, self.n = training, n
        self.subset, self.measurement = training.subset, training.measurement
        self.best, self.weights = training.best
        training.trainer.load_sampling_weights(self.weights)
        self.images: list[Tensor] = []  # by batch
        self.neighbours: list[Neighbours] = []  # of each batch
        self.memorized: list[NDArray[np.bool_]] = []  # of each batch, as the measurement judges

    @property
    def n_sufficient(self) -> int | None:
        """How many of those drawn so far are enough; None if more are needed."""
        if not self.memorized:
            return None
        if self.n is not None:
            return self.n if sum(map(len, self.images)) >= self.n else None
        memorized = np.concatenate(self.memorized)
        return n_sufficient(memorized, self.measurement.n_samples, self.measurement.logit_se)

    def draw(self) -> None:
        """One batch more."""
        drawn = sum(map(len, self.images))
        end = min(drawn + self.measurement.at_once, self.measurement.n_samples)
        images = self.training.sample("final", drawn, end)
        neighbours = self.subset.nearest(images)
        memorized = self.subset.memorized(images, neighbours)
        self.images.append(images)
        self.neighbours.append(neighbours)
        self.memorized.append(memorized)

    def measure(self, n: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The arrays that are kept of the first `n` images, and what a result says of them, by
        their names."""
        images = torch.cat(self.images)[:n]
        neighbours = Neighbours.joined(self.neighbours).at(slice(n))
        distances = self.subset.distances(neighbours, images, self.training.trainer)
        labels = self.subset.label_arrays(self.subset.latent_seeds("final", 0, n))
        numbers = measures(distances, len(self.subset.images), self.measurement.k)
        memorized, nearest = neighbours.memorized(self.measurement.k), neighbours.i1
        seen = distances.in_features
        if self.measurement.judge == "features":
            assert seen is not None
            assert seen.copies is not None
            memorized, nearest = seen.copies, seen.found.i1
            numbers |= {"r_mem_pixels": numbers["r_mem"], "r_mem": seen.r_mem}
            numbers["n_memorized"] = int(memorized.sum())
        dim, indices = self.subset.label_dim, self.subset.indices
        arrays = {"images": images.numpy(), "subset": indices}
        numbers |= by_label(memorized, nearest, dim, indices, **labels)
        numbers["ceiling"] = self.subset.ceiling()
        return {**arrays, **distances.as_arrays(), **labels}, numbers
